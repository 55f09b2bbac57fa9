"""The torture tests at full length."""

from __future__ import annotations

import test_log_pipe
from support import costly_records

MAX_SECONDS = 0.005


def test_hundred_thousand_hostile_records():
    """Of 100,000 records of four processes every line parses and none is missing; it takes a minute."""
    test_log_pipe.check_hostile_records(100_000)


def test_two_thousand_costly_records():
    """None of 2,000 records takes more than 5 ms of the processor; it takes minutes to make them."""
    slow = []
    for fields in costly_records.records(2000):
        seconds = costly_records.seconds_of(fields)[1]
        if seconds > MAX_SECONDS:
            slow.append((seconds, costly_records.description(fields)))

    assert [] == slow
