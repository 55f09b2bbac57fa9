"""Every kind of ledger entry, with the rule for its slots."""

from __future__ import annotations

from enum import Enum, IntEnum, auto, unique
from typing import Self


class Rule(Enum):
    """How the slots of an entry may change."""

    GROWS = auto()
    """No slot ever falls; if one does, the ledger is damaged. Slots of dead workers count."""
    STAYS = auto()
    """Slots may fall. Those of dead workers count."""
    LIVING = auto()
    """Slots may fall. Those of dead workers don't count."""
    SHARED = auto()
    """Siblings write the slots, too. Slots with any other rule are written by the owner of the ledger only."""


@unique
class Kind(IntEnum):
    """
    What the slots of an entry contain.

    The number of a kind is written into ledgers: a change needs another `ledger.MAGIC`.
    """

    rule: Rule

    def __new__(cls, number: int, rule: Rule) -> Self:
        """Create a kind with a number other than 0, and a rule."""
        kind = int.__new__(cls, number)
        kind._value_ = number
        kind.rule = rule
        return kind

    DURATION = 1, Rule.GROWS
    """Of a label set: the requests in each bucket, then the sum of their seconds."""
    REQUEST_SIZE = 2, Rule.GROWS
    """Of a label set: the requests in each bucket of request sizes, then the sum of the bytes."""
    RESPONSE_SIZE = 3, Rule.GROWS
    """Of a label set: the requests in each bucket of response sizes, then the sum of the bytes."""
    TALLY = 4, Rule.GROWS
    """Of a storage: faults of scaleobs itself, and dropped label sets."""
    LINES = 5, Rule.GROWS
    """Of a storage: log lines by level, and lost log lines."""
    LOOP_LAG = 6, Rule.GROWS
    """The lag of the event loops: the measurements in each bucket, then the sum of their seconds."""

    WEBSOCKET = 17, Rule.GROWS
    """Of a route and a close code: the closed WebSockets in each bucket, then the sum of their seconds."""

    EXEMPLARS = 7, Rule.STAYS
    """Of a label set: the latest exemplar of each bucket."""
    NATIVE = 8, Rule.STAYS
    """Of a label set: its native histogram, whose buckets are merged when there are too many."""
    USER_VALUE = 9, Rule.STAYS
    """One value of a user's metric, which may be reset, and its mark."""
    PROCESS = 10, Rule.STAYS
    """CPU seconds and garbage collections: of the previous owners, then of this one."""

    OPEN = 11, Rule.LIVING
    """Of a shard: the HTTP requests that have begun, and the open WebSockets."""
    POOLS = 12, Rule.LIVING
    """Of each thread pool: busy threads, waiting calls, all threads."""
    PULSE = 13, Rule.LIVING
    """The `time.monotonic()` at which the event loop of the worker last ran."""
    DRAIN = 14, Rule.LIVING
    """The pid of the worker while it drains."""

    FLAGS = 15, Rule.SHARED
    """
    Of a storage: whether a scrape has requested exemplars (1) and a request had a trace (2), and whether requests take
    the fast path.
    """
    CPU = 16, Rule.SHARED
    """CPU seconds of the owner at a sibling's last scrape; they remain if the owner is killed."""
