"""What a storage reads of a service, and what it returns to a scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from scaleobs.health.results import LastRun
from scaleobs.metrics.series import Labels, Series


@dataclass(frozen=True, eq=False, slots=True, weakref_slot=True)
class Source:
    """
    What the metrics read of a service, and what they report to it.

    Attributes:
        info: returns the label values of `service_info`.
        is_served: returns whether a server has begun to serve it.
        is_ready: returns whether the readiness probe would answer 200.
        last_runs: returns how the last run of each check went; runs none.
        known_routes: returns every method and route template that it can answer.
        on_fault: called with a fault of scaleobs itself, which it counts and logs; never raises.
        on_memory_changed: called when the storage counts in other memory than before.
    """

    info: Callable[[], tuple[str, ...]]
    is_served: Callable[[], bool]
    is_ready: Callable[[], bool]
    last_runs: Callable[[], Iterable[LastRun]]
    known_routes: Callable[[], Iterable[tuple[str, str]]]
    on_fault: Callable[[Exception], None]
    on_memory_changed: Callable[[], None]


class Abandoned(Protocol):
    """A request that nobody ended before it was collected."""

    def collected(self) -> None:
        """End it, outside the finalizer."""
        ...


class Counts(NamedTuple):
    """
    All counts at one moment. `unborn` are label sets of `http_requests_total` that have not counted yet.

    `lines` are log lines by level, in the order of the catalog.
    """

    series: list[Series]
    request_sizes: list[Series]
    response_sizes: list[Series]
    unborn: list[Labels]
    active: dict[str, float]
    faults: float
    dropped: float
    lines: tuple[float, ...]
    workers: int
