"""One request of which more is wanted than that it is counted: its line, an exemplar, its sizes."""

from __future__ import annotations

import time
from bisect import bisect_left
from time import perf_counter
from typing import Any

from scaleobs import tracing
from scaleobs.exchange import ENDED, SERVER_ERROR, Exchange
from scaleobs.metrics.series import Exemplar, Series
from scaleobs.metrics.storage import OVERFLOW_ROUTE
from scaleobs.recorder import code_of


class ToldExchange(Exchange):
    """
    One HTTP request of which more is wanted.

    Its line is written when it has ended; after an answer of 5xx, when the application has left, because it may be
    about to raise what the line should carry.

    Attributes:
        context: what identifies it in every log line, or `None` where it has no line of its own.
        path: as the server called, without the query; an application may change its own.
        is_gone: whether the client went away; what the application raises because of it is not told.
        span: its server span, or `None` where nobody traces.
        waiting: the fields of a line that is to be written when the application has left.
    """

    # Those below are slots of its subclasses: in ASGI, one of these has another base with slots of its own.
    __slots__ = ()

    context: dict[str, Any] | None
    path: str
    is_gone: bool
    span: tracing.RequestSpan | None
    waiting: dict[str, Any] | None

    def client_gone(self) -> None:
        """Note that the client went away."""
        if self.stage != ENDED:
            self.is_gone = True  # type: ignore[misc]
        super().client_gone()

    def left(self, error: BaseException | None = None) -> None:
        """Note that the application returned, or raised; it can add nothing to its answer from now on."""
        if self.stage != ENDED:
            self.end(SERVER_ERROR)
        if self.waiting is None and error is None and self.span is None:
            return
        try:
            if self.span is not None:
                self.span.left(None if self.is_gone else error)
            self._tell_of_leaving(error)
        except Exception as fault:
            self.recorder.fault(fault)

    def end(self, status: Any) -> None:
        """Count the request with this status, now, and tell of it; to be called once."""
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
        except Exception:
            series = recorder.series_of(request, status, shard)
        cells = series.cells
        cells[bisect_left(series.bounds, seconds)] += 1
        cells[-1] += seconds
        try:
            if recorder.storage.wants_more:
                self._measure(series, seconds)
            if self.span is not None:
                self._end_span(self.span, series, status)
            if self.context is not None:
                code = status if type(status) is int and 0 <= status < 1000 else code_of(status)  # noqa: PLR2004
                fields = {
                    **self.context,
                    "event": "request.finished",
                    "method": request.get(recorder.method, ""),
                    "route": series.labels[1],
                    "path": self.path,
                    "status_code": code,
                    "duration_seconds": int(seconds * 1e6 + 0.5) / 1e6,  # A third of what `round` takes.
                    "client": self.client(),
                }
                if self.is_gone or self.status is not status or recorder.spans.are_inside:
                    self._tell_more(fields)
                if code < SERVER_ERROR or self.is_gone:
                    recorder.log.request_finished(fields)
                else:
                    self.waiting = fields  # type: ignore[misc]
        except Exception as error:
            recorder.fault(error)

    def traceparent(self) -> str:
        """Return the `traceparent` that the client sent, or nothing."""
        raise NotImplementedError

    def client(self) -> str:
        """Return the address of the client, as far as it is known."""
        raise NotImplementedError

    def sizes(self) -> tuple[int, int]:
        """Return the bytes of the bodies of the request and the response, as far as they were sent."""
        raise NotImplementedError

    def _tell_more(self, fields: dict[str, Any]) -> None:
        if self.recorder.spans.are_inside and (span := tracing.current_span()) is not None:
            fields["trace_id"], fields["span_id"] = span.trace_id, span.span_id
        if self.status is None:
            return
        if self.is_gone:
            fields["truncated"] = True
        if code_of(self.status) != fields["status_code"]:
            fields["sent_status"] = code_of(self.status)

    def _end_span(self, span: tracing.RequestSpan, series: Series, status: Any) -> None:
        method, route, _ = series.labels
        if route == OVERFLOW_ROUTE:
            method = self.request.get(self.recorder.method, "")
            route, _ = self.recorder.routes.template(self.request)
        code = code_of(status)
        sent = code if self.status is None else code_of(self.status)
        span.ended(method, route, code, sent)

    def _tell_of_leaving(self, error: BaseException | None) -> None:
        fields, self.waiting = self.waiting, None  # type: ignore[misc]
        log = self.recorder.log
        if fields is not None:
            log.request_finished(fields, error)
        elif error is not None and self.context is not None and not self.is_gone:
            method, route, _ = self.recorder.series_of(self.request, self.status, self.shard).labels
            log.background_failed({**self.context, "method": method, "route": route}, error)

    def _measure(self, series: Series, seconds: float) -> None:
        storage = self.recorder.storage
        if series.sparse is not None:
            series.sparse.observe(seconds)
        if storage.keeps_exemplars:
            own = None if self.span is None else self.span.ids
            span = own or tracing.current_span() or tracing.parse_traceparent(self.traceparent())
            if span is not None and span.is_sampled:
                series.leave(Exemplar(span.trace_id, span.span_id, seconds, time.time()))
        if storage.has_sizes:
            self.shard.measure(series.labels, *self.sizes())
