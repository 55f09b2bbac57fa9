"""
One request from first byte to last: timed, labelled, counted and logged once, whatever the application does.

ASGI and WSGI tell what happens in the words of this file, so that both mean the same by it. Nothing here raises into
the application: a fault of our own is counted, logged once, and the request goes on.

This is the hot path. Its objects are filled in by their makers, field by field, because a call of `__init__` would cost
a tenth of all there is to do; `benchmarks/` says what that is.
"""

from __future__ import annotations

import contextlib
import time
from bisect import bisect_left
from collections.abc import Callable, Iterable, MutableMapping
from http import HTTPStatus
from time import perf_counter
from typing import Any

from scaleobs import catalog, tracing
from scaleobs.accesslog import AccessLine, AccessLog
from scaleobs.metrics.series import Exemplar, Series
from scaleobs.metrics.shard import Here, Shard
from scaleobs.metrics.storage import Storage
from scaleobs.routes import Routes

CLIENT_GONE = 499
"""The status of a request whose client went away before the answer began; nginx's number for it."""

SERVER_ERROR = 500

OPEN, WATCHED, COMPLETING, ENDED = range(4)
"""
The stages of a request: none of its answer's body is on its way; some is, or may be; the last byte is; and nothing that
happens is counted any more.
"""

_USUAL = {f"{status.value} {status.phrase}".upper() for status in HTTPStatus}
_SIGNED = "scaleobs.counted_in"
_MOST_REMEMBERED = 20_000

Request = MutableMapping[str, Any]
"""An ASGI scope or a WSGI environ."""


class Recorder:
    """
    What hears of every request to one application; `here` is where the thread that asks counts those.

    Args:
        storage: where requests are counted.
        routes: how their templates are found.
        log: where their lines go, and faults; its `writes_lines` says whether requests have any.
        method: the key of a request's method in the scope or environ.

    Attributes:
        on_moved: called when the storage counts in other memory than before.
    """

    __slots__ = ("_known", "clue", "here", "log", "method", "on_moved", "routes", "storage")

    def __init__(self, storage: Storage, routes: Routes, log: AccessLog, method: str) -> None:
        self.storage = storage
        self.here = Here(storage.new_shard)
        self.routes = routes
        self.clue = routes.clue
        self.log = log
        self.method = method
        self.on_moved: Callable[[], None] = lambda: None
        self._known: Iterable[tuple[str, str]] = ()

    def known_routes(self) -> Iterable[tuple[str, str]]:
        """Return every method and route template that the application can answer now."""
        known = self.routes.known()
        if known is not self._known:
            # A route was added: what an endpoint told before may not be all that it tells now.
            self._known = known
            self.storage.forget_found()
        return known

    def fault(self, error: Exception) -> None:
        """Count a fault of scaleobs itself and write it once, and never raise."""
        self.storage.fault()
        self.log.fault(error)

    def series_of(self, request: Request, status: object, shard: Shard) -> Series:
        """Return the series to count a request in, and remember it for others like it where its clue tells enough."""
        method = request.get(self.method, "")
        with contextlib.suppress(Exception):  # Not remembered, or a status that can't be looked up.
            return shard.found[method, request.get(self.clue), status]
        route, is_told_by_clue = catalog.UNMATCHED_ROUTE, False
        try:
            route, is_told_by_clue = self.routes.template(request)
        except Exception as error:
            self.fault(error)
        is_known = isinstance(method, str) and method in catalog.METHODS
        labels = (method if is_known else catalog.OTHER_METHOD, route, f"{_code(status):03d}")
        series = shard.series_of(labels)
        if series.labels != labels:
            self.log.limit_reached(self.storage.limit)
        # What a client makes up must not be remembered, nor what overflows: that is counted each time.
        if (
            is_told_by_clue
            and is_known
            and series.labels == labels
            and _is_usual(status)
            and (len(shard.found) < _MOST_REMEMBERED)
        ):
            with contextlib.suppress(Exception):
                shard.found[method, request.get(self.clue), status] = series
        return series


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
            series = shard.found[request[recorder.method], request.get(recorder.clue), status]
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


class ToldExchange(Exchange):
    """
    One HTTP request of which more is wanted: its access line, an exemplar, a native histogram.

    Attributes:
        line: its access line, or `None` where none is written.
    """

    __slots__ = ()

    line: AccessLine | None

    def client_gone(self) -> None:
        """Note that the client went away."""
        if self.stage != ENDED and self.line is not None:
            self.line.client_gone()
        super().client_gone()

    def left(self, error: BaseException | None = None) -> None:
        """Note that the application returned, or raised; it can add nothing to its answer from now on."""
        if self.line is not None:
            try:
                self.line.left(error)
            except Exception as fault:
                self.recorder.fault(fault)
        super().left(error)

    def end(self, status: Any) -> None:
        """Count the request with this status, now, and tell of it; to be called once."""
        seconds = perf_counter() - self.begun
        self.stage = ENDED
        recorder = self.recorder
        series = recorder.series_of(self.request, status, self.shard)
        series.observe(seconds)
        try:
            if recorder.storage.keeps_exemplars:
                self._leave_exemplar(series, seconds)
            if recorder.storage.has_sizes:
                self.shard.measure(series.labels, *self.sizes())
            if self.line is not None:
                sent = None if self.status is None else _code(self.status)
                self.line.ended(route=series.labels[1], status=_code(status), sent_status=sent, seconds=seconds)
        except Exception as error:
            recorder.fault(error)

    def traceparent(self) -> str:
        """Return the `traceparent` that the client sent, or nothing."""
        raise NotImplementedError

    def sizes(self) -> tuple[int, int]:
        """Return the bytes of the bodies of the request and the response, as far as they were sent."""
        raise NotImplementedError

    def _leave_exemplar(self, series: Series, seconds: float) -> None:
        span = tracing.current_span() or tracing.parse_traceparent(self.traceparent())
        if span is not None and span.is_sampled:
            series.leave(Exemplar(span.trace_id, span.span_id, seconds, time.time()))


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


def _is_usual(status: object) -> bool:
    """Return whether there are few statuses like this: a number, or one with the words that belong to it."""
    return isinstance(status, int) or (isinstance(status, str) and status.upper() in _USUAL)


def _code(status: object) -> int:
    """Return a status as a number below 1000, and 0 for what is none."""
    try:
        code = int(status.split(None, 1)[0]) if isinstance(status, str) else int(status)  # type: ignore[call-overload]
    except Exception:  # Whatever the number that an application made up says of itself.
        return 0
    return int(code) if 0 <= code < 1000 else 0  # noqa: PLR2004
