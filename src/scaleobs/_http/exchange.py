"""One request and its response: timed, labelled, counted and logged once."""

from __future__ import annotations

import contextlib
import logging
import random
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping
from time import perf_counter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import structlog

from scaleobs import _tracing
from scaleobs._http.abandoned import Abandoned
from scaleobs._metrics.child import Child, Exemplar, Shard
from scaleobs._metrics.storage import OVERFLOW_ROUTE
from scaleobs._routes.exceptions import HANDLED_ERROR
from scaleobs.logs._configure import has_exporters
from scaleobs.logs._handled import end_handled, keep_bound, mark_logged, restored_trace
from scaleobs.logs._logger import Logger, Output
from scaleobs.logs._sink import LEVEL_SLOTS, stdout

if TYPE_CHECKING:
    from scaleobs._http.recorder import Recorder, Request

CLIENT_GONE = 499
"""The status of a request whose client disconnected before the answer began; nginx's number for it."""

SERVER_ERROR = 500

OPEN, COMPLETING, ENDED = range(3)
"""The stages: the response is not complete; its last byte is being sent; the request is counted."""

_OUTPUT = Output("scaleobs")


class Exchange:
    """
    One HTTP request that is counted and nothing more.

    The first call of `finished`, `client_gone` or `app_finished` ends it. Later calls change nothing, in any order.
    The middlewares fill the slots one by one, since a call of `__init__` would cost a tenth of a request.

    Attributes:
        begun: the time of the server's call, by `perf_counter`.
        recorder: counts it.
        request: the scope or environ.
        shard: the counts of this thread.
        stage: one of `OPEN`, `COMPLETING`, `ENDED`.
        status: as the framework sent it (a number, an enum, a text); `None` before the response starts.
        context: the ids of the request in every log line, or `None` if it has no line of its own. This attribute and
            all below are set in a `DetailedExchange` only.
        path: as the server passed it, without the query; an application may change the path of its request.
        client_disconnected: if true, the errors that follow in the application are not logged.
        span: its server span, or `None` without tracing.
        pending_log_fields: the fields of its line until the application has finished.
    """

    __slots__ = (
        *("begun", "recorder", "request", "shard", "stage", "status"),
        *("client_disconnected", "context", "path", "pending_log_fields", "span"),
    )

    begun: float
    recorder: Recorder
    request: Request
    shard: Shard
    stage: int
    status: Any
    context: dict[str, Any] | None
    path: str
    client_disconnected: bool
    span: _tracing.RequestSpan | None
    pending_log_fields: dict[str, Any] | None

    def finished(self) -> None:
        """The last byte was passed to the server."""
        if self.stage != ENDED:
            self.end(SERVER_ERROR if self.status is None else self.status)

    def client_gone(self) -> None:
        """The client disconnected."""
        if self.stage != ENDED:
            self.end(CLIENT_GONE if self.status is None else self.status)

    def app_finished(self, error: BaseException | None = None) -> None:  # noqa: ARG002 - `DetailedExchange` logs it.
        """The application returned or raised."""
        if self.stage != ENDED:
            self.end(SERVER_ERROR)

    def end(self, status: Any) -> None:
        """Count the request with this status; called once."""
        seconds = perf_counter() - self.begun
        self.stage = ENDED
        request = self.request
        shard = self.shard
        recorder = self.recorder
        try:
            route_key = id(request.get(recorder.route_key)) if recorder.by_identity else request.get(recorder.route_key)
            child = shard.child_cache[request[recorder.method], route_key, status]
        except Exception:  # Not in the cache, or a status without a hash.
            child = recorder.child_of_request(request, status, shard)
        slots = child.slots
        slots[bisect_left(child.bounds, seconds)] += 1
        slots[child.sum_at] += seconds

    def finish_abandoned(self) -> None:
        """The response was neither read to its end nor closed."""
        if self.stage != ENDED:
            self.shard = self.recorder.local.shard
            self.finished()
            self.app_finished()

    def mark_abandoned(self) -> None:
        """Make the next scrape call `finish_abandoned`; safe in a finalizer."""
        if self.stage != ENDED:
            # Without this, its duration would include the time until that scrape.
            seconds = perf_counter() - self.begun
            self.recorder.storage.abandoned.append(Abandoned(self, seconds))


class DetailedExchange(Exchange):
    """
    One HTTP request with a line, a span, an exemplar or sizes.

    Its line is written at its end. After a 5xx it is written when the application has finished, to include its error.
    """

    __slots__ = ()

    def client_gone(self) -> None:
        """The client disconnected."""
        if self.stage != ENDED:
            self.client_disconnected = True
        super().client_gone()

    def app_finished(self, error: BaseException | None = None) -> None:
        """The application returned or raised."""
        if self.stage != ENDED:
            self.end(SERVER_ERROR)
        if self.pending_log_fields is None and error is None and self.span is None:
            return
        with restored_trace(self._handled() if error is None else None) as noted:
            self._end_with(error if noted is None else noted)

    def _end_with(self, error: BaseException | None) -> None:
        try:
            try:
                if self.span is not None:
                    self.span.app_finished(None if self.client_disconnected else error)
            finally:
                self._log_finish(error)
        except BaseException as fault:
            if error is None and not isinstance(fault, Exception):
                raise
            self.recorder.fault(fault)  # What the methods of an error raise does not replace the error.

    def end(self, status: Any) -> None:
        """Count the request with this status, and log it; called once."""
        seconds = perf_counter() - self.begun
        self.stage = ENDED
        request = self.request
        shard = self.shard
        recorder = self.recorder
        try:
            route_key = id(request.get(recorder.route_key)) if recorder.by_identity else request.get(recorder.route_key)
            child = shard.child_cache[request[recorder.method], route_key, status]
        except Exception:
            child = recorder.child_of_request(request, status, shard)
        slots = child.slots
        slots[bisect_left(child.bounds, seconds)] += 1
        slots[child.sum_at] += seconds
        try:
            if recorder.storage.needs_observe:
                self._observe(child, seconds)
            if self.span is not None:
                self._end_span(self.span, child, status)
            if self.context is not None:
                code = status if type(status) is int and 0 <= status < 1000 else code_of(status)  # noqa: PLR2004
                fields = {
                    **self.context,
                    "event": "request.finished",
                    "method": request.get(recorder.method, ""),
                    "route": child.labels[1],
                    "path": self.path,
                    "status_code": code,
                    "duration_seconds": int(seconds * 1e6 + 0.5) / 1e6,  # Three times as fast as `round`.
                    "client": self.client(),
                }
                if len(fields) != len(self.context) + _OWN_FIELDS:
                    keep_bound(fields, self.context)
                if self.client_disconnected or self.status is not status or recorder.spans.app_makes_spans:
                    self._add_fields(fields)
                if code < SERVER_ERROR or self.client_disconnected:
                    recorder.log.request_finished(fields)
                else:
                    self.pending_log_fields = fields
        except Exception as error:
            recorder.fault(error)

    def traceparent(self) -> str:
        """Return the `traceparent` header; empty without one."""
        raise NotImplementedError

    def client(self) -> str:
        """Return the address of the client; empty without one."""
        raise NotImplementedError

    def sizes(self) -> tuple[int, int] | None:
        """Return the bytes of the bodies of the request and the response, or `None` if they were not measured."""
        raise NotImplementedError

    def _add_fields(self, fields: dict[str, Any]) -> None:
        if self.recorder.spans.app_makes_spans and (span := _tracing.current_span()) is not None:
            fields["trace_id"], fields["span_id"] = span.trace_id, span.span_id
        if self.client_disconnected:
            end_handled(self.context)  # type: ignore[arg-type]
        if self.status is not None:
            if self.client_disconnected:
                fields["truncated"] = True
            if code_of(self.status) != fields["status_code"]:
                fields["sent_status"] = code_of(self.status)

    def _end_span(self, span: _tracing.RequestSpan, child: Child, status: Any) -> None:
        method, route, _ = child.labels
        if route == OVERFLOW_ROUTE:
            method = self.request.get(self.recorder.method, "")
            route, _ = self.recorder.routes.template(self.request)
        code = code_of(status)
        sent = code if self.status is None else code_of(self.status)
        span.response_ended(method, route, code, sent)

    def _handled(self) -> Any:
        """Return the exception that the framework has answered with a 5xx, as `sys.exc_info` does, or `None`."""
        if self.pending_log_fields is not None:
            return self.pending_log_fields.get("exc_info")
        return None if self.context is not None else self.request.pop(HANDLED_ERROR, None)

    def _log_finish(self, error: BaseException | None) -> None:
        fields, self.pending_log_fields = self.pending_log_fields, None
        log = self.recorder.log
        if fields is not None:
            log.request_finished(fields, error)
        elif error is not None and self.context is not None and not self.client_disconnected:
            method, route, _ = self.recorder.child_of_request(self.request, self.status, self.shard).labels
            log.background_failed({**self.context, "method": method, "route": route}, error)

    def _observe(self, child: Child, seconds: float) -> None:
        """Add to the native histogram, the exemplars and the sizes."""
        storage = self.recorder.storage
        if child.native is not None:
            child.native.observe(seconds)
        if storage.keeps_exemplars:
            own = None if self.span is None else self.span.ids
            span = own or _tracing.current_span() or _tracing.parse_traceparent(self.traceparent())
            if span is not None and span.is_sampled:
                child.set_exemplar(Exemplar(span.trace_id, span.span_id, seconds, time.time()))
        if storage.has_sizes and (sizes := self.sizes()) is not None:
            self.shard.measure(child.labels, *sizes)


_OWN_FIELDS = 7
"""The fields of an access line beside those of its context."""


def code_of(status: object) -> int:
    """Return a status as a number below 1000, or 0 if it is not one."""
    if type(status) is int:
        return status if 0 <= status < 1000 else 0  # noqa: PLR2004
    try:
        code = int(status.split(None, 1)[0]) if isinstance(status, str) else int(status)  # type: ignore[call-overload]
    except Exception:  # An application may send any object.
        return 0
    return int(code) if 0 <= code < 1000 else 0  # noqa: PLR2004


SLOW_SECONDS = 1.0
"""The default limit above which a request is slow; an objective replaces it."""

_ERROR = 400


class AccessLog:
    """
    Logs requests and WebSockets.

    Args:
        logger: a structlog logger.
        writes_lines: whether each request has a line; failures in the background are always logged.
        levels: the level of that line by status, or by class of statuses such as `4xx`.
        sample: the share of successful requests with a line, by route; `*` is for other routes.
        slow_seconds: a longer request always has a line.
    """

    def __init__(
        self,
        logger: Any,
        *,
        writes_lines: bool = True,
        levels: Mapping[str, str] = MappingProxyType({}),
        sample: Mapping[str, float] = MappingProxyType({}),
        slow_seconds: float = SLOW_SECONDS,
    ) -> None:
        self.logger = logger
        self.writes_lines = writes_lines
        self._levels = ["info"] * SERVER_ERROR + ["error"] * SERVER_ERROR
        for status in sorted(levels, reverse=True):  # A class of statuses before its single statuses.
            code = int(status.replace("x", "0"))
            self._levels[code : code + (100 if "x" in status else 1)] = [levels[status]] * (100 if "x" in status else 1)
        self._sample = sample
        self._slow_seconds = slow_seconds
        self._write: Callable[[str, dict[str, Any]], None] = self._write_by_logger

    def renew_writer(self) -> None:
        """Use the current configuration of logging: too slow to read it for each line. Never raises."""
        with contextlib.suppress(Exception):
            self._write = access_writer() or self._write_by_logger

    def request_finished(self, fields: dict[str, Any], error: BaseException | None = None) -> None:
        """Write the line of a request, with the application's error; changes `fields`, which include the event."""
        if self._sample and self._is_sampled_out(fields):
            return
        if error is not None:
            self._write_failure(fields, error)
            return
        self._write(self._levels[fields["status_code"]], fields)

    def _write_failure(self, fields: dict[str, Any], error: BaseException) -> None:
        """Write the line with an exception, which no other line has: so with a level that is written."""
        level = self._levels[fields["status_code"]]
        if not logging.getLogger("scaleobs").isEnabledFor(logging.getLevelNamesMapping()[level.upper()]):
            level = "error"
        fields["exc_info"] = error
        mark_logged(error, is_logged=False)  # It may be raised in each request.
        self._write(level, fields)
        mark_logged(error)

    def background_failed(self, fields: dict[str, Any], error: BaseException) -> None:
        """Log an error that the application raised after the line of its request was written."""
        self.logger.error("background.failed", **fields, exc_info=error)
        mark_logged(error)

    def websocket_closed(
        self, fields: dict[str, Any], error: BaseException | None = None, *, is_failed: bool = False
    ) -> None:
        """Write the line of a WebSocket, with the error that the application raised while it was open."""
        if not self.writes_lines:
            return
        if error is not None and issubclass(type(error), Exception):
            self.logger.error("websocket.closed", **fields, exc_info=error)
            mark_logged(error)
        elif is_failed:
            self.logger.error("websocket.closed", **fields)
        else:
            self.logger.info("websocket.closed", **fields)

    def _write_by_logger(self, level: str, fields: dict[str, Any]) -> None:
        getattr(self.logger, level)(fields.pop("event"), **fields)

    def _is_sampled_out(self, fields: dict[str, Any]) -> bool:
        """Return whether sampling leaves out this successful request."""
        if fields["status_code"] >= _ERROR or fields["duration_seconds"] > self._slow_seconds or "truncated" in fields:
            return False
        share = self._sample.get(fields["route"], self._sample.get("*", 1.0))
        return share < 1 and random.random() >= share  # noqa: S311


def access_writer() -> Callable[[str, dict[str, Any]], None] | None:
    """
    Return a writer of events to the configured chain, or `None` if the chain is not scaleobs's.

    It is a third faster than structlog's loggers, which pass the fields as keyword arguments three times. A change of
    the configuration needs a new writer.
    """
    config = structlog.get_config()
    processors, min_level = config["processors"], Logger.min_level
    if config["logger_factory"] is not Output or config["wrapper_class"] is not Logger or has_exporters():
        return None
    output, put = _OUTPUT, stdout.write
    numbers = logging.getLevelNamesMapping()
    positions = {level: position for level, position in LEVEL_SLOTS.items() if numbers[level.upper()] >= min_level}

    def write(level: str, event: dict[str, Any]) -> None:
        position = positions.get(level)
        if position is None:
            return
        line: Any = event
        try:
            for processor in processors:
                line = processor(output, level, line)
        except structlog.DropEvent:
            return
        put(line, position)

    return write
