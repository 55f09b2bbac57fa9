"""What a storage hears of, and what it tells a scrape."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple, Protocol

from scaleobs.metrics.series import Labels, Series


class Source(Protocol):
    """A service as the metrics see it."""

    def info(self) -> tuple[str, ...]:
        """Return the label values of `service_info`."""
        ...

    def is_served(self) -> bool:
        """Return whether a server has begun to serve it."""
        ...

    def is_ready(self) -> bool:
        """Return whether the readiness probe would answer 200."""
        ...

    def known_routes(self) -> Iterable[tuple[str, str]]:
        """Return every method and route template that it can answer."""
        ...

    def fault(self, error: Exception) -> None:
        """Count a fault of scaleobs itself and write it once, and never raise."""
        ...

    def moved(self) -> None:
        """Hear that the storage counts in other memory than before."""
        ...


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
