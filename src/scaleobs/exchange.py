"""
One request from first byte to last: timed, labelled, counted and logged once, whatever the application does.

ASGI and WSGI tell what happens in the words of this file, so that both mean the same by it. Nothing here raises into
the application: a fault of our own is counted, logged once, and the request goes on.

This is the hot path. Its objects are filled in by their makers, field by field, because a call of `__init__` would cost
a tenth of all there is to do; `benchmarks/` says what that is.
"""

from __future__ import annotations

from bisect import bisect_left
from time import perf_counter
from typing import Any

from scaleobs.metrics.shard import Shard
from scaleobs.metrics.storage import Storage
from scaleobs.recorder import Recorder, Request

CLIENT_GONE = 499
"""The status of a request whose client went away before the answer began; nginx's number for it."""

SERVER_ERROR = 500

OPEN, WATCHED, COMPLETING, ENDED = range(4)
"""
The stages of a request: none of its answer's body is on its way; some is, or may be; the last byte is; and nothing that
happens is counted any more.
"""

_SIGNED = "scaleobs.counted_in"


class Exchange:
    """
    One HTTP request that is counted and nothing more.

    It is ended by whichever comes first: `finished`, `client_gone` or `left`. Each may be called any number of times
    and in any order; what follows the end changes nothing.

    Attributes:
        begun: when the server called, by `perf_counter`.
        recorder: what hears of it.
        request: the scope or environ.
        shard: where this thread counts.
        stage: one of `OPEN`, `WATCHED`, `COMPLETING`, `ENDED`.
        status: what was handed to the server, as a number, an enum or whatever the framework used; `None` before that.
    """

    __slots__ = ("begun", "recorder", "request", "shard", "stage", "status")

    begun: float
    recorder: Recorder
    request: Request
    shard: Shard
    stage: int
    status: Any

    def finished(self) -> None:
        """Note that the last byte was handed to the server."""
        if self.stage != ENDED:
            self.end(SERVER_ERROR if self.status is None else self.status)

    def client_gone(self) -> None:
        """Note that the client went away."""
        if self.stage != ENDED:
            self.end(CLIENT_GONE if self.status is None else self.status)

    def left(self, error: BaseException | None = None) -> None:  # noqa: ARG002 - For the one that tells of it.
        """Note that the application returned, or raised; it can add nothing to its answer from now on."""
        if self.stage != ENDED:
            self.end(SERVER_ERROR)

    def end(self, status: Any) -> None:
        """Count the request with this status, now; to be called once."""
        seconds = perf_counter() - self.begun
        self.stage = ENDED
        request = self.request
        shard = self.shard
        recorder = self.recorder
        try:
            clue = request.get(recorder.clue)
            if recorder.by_identity:
                clue = id(clue)
            series = shard.found[request[recorder.method], clue, status]
        except Exception:  # The first one like this, one that isn't remembered, or a status that can't be looked up.
            series = recorder.series_of(request, status, shard)
        cells = series.cells
        cells[bisect_left(series.bounds, seconds)] += 1
        cells[-1] += seconds

    def collected(self) -> None:
        """Note that nobody read the answer to its end, nor closed it."""
        if self.stage != ENDED:
            self.shard = self.recorder.here.shard
            self.finished()
            self.left()

    def abandon(self) -> None:
        """Leave word that nobody will end this any more; safe in a finalizer. The next scrape calls `collected`."""
        if self.stage != ENDED:
            # By then it would seem to have lasted until that scrape.
            lasted = perf_counter() - self.begun
            self.recorder.storage.abandoned.append(_Abandoned(self, lasted))


class _Abandoned:
    """A request that nobody will end, and how long it lasted until then."""

    __slots__ = ("_exchange", "_lasted")

    def __init__(self, exchange: Exchange, lasted: float) -> None:
        self._exchange = exchange
        self._lasted = lasted

    def collected(self) -> None:
        self._exchange.begun = perf_counter() - self._lasted
        self._exchange.collected()


def is_first_to_see(request: Request, storage: Storage) -> bool:
    """
    Return whether no other middleware counts this request in the same storage, and sign it.

    An application that is mounted in another one, both instrumented, would count twice.
    """
    signed = request.get(_SIGNED, ())
    if storage in signed:
        return False
    request[_SIGNED] = (*signed, storage)
    return True
