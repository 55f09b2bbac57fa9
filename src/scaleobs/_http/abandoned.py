"""A request that nothing else ends."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scaleobs._http.exchange import Exchange


class Abandoned:
    """
    A request that the next scrape ends.

    Args:
        exchange: the request.
        seconds: its duration.
    """

    __slots__ = ("_exchange", "_seconds")

    def __init__(self, exchange: Exchange, seconds: float) -> None:
        self._exchange = exchange
        self._seconds = seconds

    def finish_abandoned(self) -> None:
        """End the request, with the duration that it had."""
        self._exchange.begun = perf_counter() - self._seconds
        self._exchange.finish_abandoned()
