"""Every kind of entry in a ledger, with the rule for its numbers."""

from __future__ import annotations

from enum import Enum, IntEnum, auto, unique
from typing import Self


class Rule(Enum):
    """What may become of the numbers of an entry."""

    GROWS = auto()
    """No number ever falls, otherwise the ledger is damaged. Those of dead workers count."""
    STAYS = auto()
    """Numbers may fall. Those of dead workers count."""
    LIVING = auto()
    """Numbers may fall. Those of dead workers mean nothing."""
    SHARED = auto()
    """Siblings write them, too. Numbers of any other rule are written by the owner of the ledger alone."""


@unique
class Kind(IntEnum):
    """
    What the numbers of an entry are.

    The number of a kind stands in the files: a change here needs another `entries.MAGIC`.
    """

    rule: Rule

    def __new__(cls, number: int, rule: Rule) -> Self:
        """Make a kind of its number, which isn't 0, and its rule."""
        kind = int.__new__(cls, number)
        kind._value_ = number
        kind.rule = rule
        return kind

    DURATION = 1, Rule.GROWS
    """Of a label set: the requests in each bucket, then the sum of their seconds."""
    REQUEST_SIZE = 2, Rule.GROWS
    """Of a label set: the same of the bytes of its requests."""
    RESPONSE_SIZE = 3, Rule.GROWS
    """Of a label set: the same of the bytes of its responses."""
    TALLY = 4, Rule.GROWS
    """Of a storage: faults of scaleobs itself, and label sets that were dropped."""
    LINES = 5, Rule.GROWS
    """Of a storage: log lines by level, and those that were lost."""
    LOOP_LAG = 6, Rule.GROWS
    """How late the event loops ran: the looks in each bucket, then the sum of their seconds."""

    EXEMPLARS = 7, Rule.STAYS
    """Of a label set: the latest exemplar of each bucket."""
    NATIVE = 8, Rule.STAYS
    """Of a label set: its native histogram, whose buckets are merged when there are too many."""
    USER_VALUE = 9, Rule.STAYS
    """A number of a user's metric, which may be reset, and its mark."""
    PROCESS = 10, Rule.STAYS
    """CPU seconds and garbage collections: of the owners before, then of this one."""

    OPEN = 11, Rule.LIVING
    """Of a shard: the HTTP requests that were begun, and the WebSockets that are open."""
    POOLS = 12, Rule.LIVING
    """How many threads of each pool are busy, how many calls wait, and how many threads there are."""
    PULSE = 13, Rule.LIVING
    """When the worker was last seen to go on, by `time.monotonic`."""
    DRAIN = 14, Rule.LIVING
    """The pid of the worker while it drains."""

    FLAGS = 15, Rule.SHARED
    """
    Of a storage: whether a scrape has requested exemplars (1) and a request had a trace (2), and whether requests take
    the fast path.
    """
    CPU = 16, Rule.SHARED
    """CPU seconds of the owner by a sibling's last scrape, which stay if the owner is killed."""
