"""The torture test at full length."""

from __future__ import annotations

import test_log_pipe


def test_hundred_thousand_hostile_records():
    """Of 100,000 records of four processes every line parses and none is missing; it takes a minute."""
    test_log_pipe.check_hostile_records(100_000)
