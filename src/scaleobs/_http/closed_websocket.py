"""What is done with an accepted WebSocket when it closes, over ASGI and WSGI alike: its count, its line, its span."""

from __future__ import annotations

from typing import Any

from scaleobs._http.exchange import SERVER_ERROR
from scaleobs._http.recorder import Recorder, Request
from scaleobs._metrics.child import SOCKET, SOCKET_DURATION
from scaleobs._metrics.storage import Storage
from scaleobs._tracing import RequestSpan
from scaleobs.catalog import OTHER_CODE, UNKNOWN_CODE, UNMATCHED_ROUTE

_DEFINED = range(1000, 1016)
_REGISTERED = range(3000, 4000)
_PRIVATE = range(4000, 5000)

FAILURES = frozenset({1006, 1011, *range(3500, 3600), *range(4500, 4600)})
"""The codes that frameworks send after an exception; those of Falcon and Litestar contain a status of 5xx."""

_SWITCHED, _CONNECTED = 101, 200
"""The status of a handshake that was accepted: over HTTP/1.1; over HTTP/2 and 3 (RFC 8441 and 9220)."""


def label_of(code: int, storage: Storage, *, is_sent: bool) -> str:
    """
    Return a close code as a label: clients can add no more than 19 values, applications 20 more.

    Args:
        code: any number.
        storage: limits the codes of applications.
        is_sent: whether the application has sent the code.
    """
    if code in _DEFINED:
        return str(code)
    if code in _REGISTERED:
        return "3xxx"
    if code in _PRIVATE:
        return str(code) if is_sent and storage.admit_code(str(code)) else "4xxx"
    return OTHER_CODE


def count(
    recorder: Recorder,
    request: Request,
    seconds: float,
    *,
    fields: dict[str, Any],
    error: BaseException | None,
    is_sent: bool = False,
    is_failed: bool = False,
) -> None:
    """Count a closed WebSocket by the code in these fields, and write its line with them. Never raises."""
    try:
        route = route_of(recorder, request)
        code = label_of(fields["code"], recorder.storage, is_sent=is_sent) if "code" in fields else UNKNOWN_CODE
        labels = (SOCKET, route, code)
        child = recorder.local.shard.child_of(labels, SOCKET_DURATION)
        child.observe(seconds)
        if child.labels != labels:
            recorder.reports.limit_reached(recorder.storage.limit)
        fields = {**fields, "route": route, "duration_seconds": round(seconds, 6)}
        recorder.log.websocket_closed(fields, error, is_failed=is_failed)
    except BaseException as fault:
        if error is None and not isinstance(fault, Exception):
            raise
        recorder.fault(fault)  # See `DetailedExchange.app_finished`.


def failed_later(recorder: Recorder, request: Request, context: dict[str, Any] | None, error: BaseException) -> None:
    """Log what the application raised after it had closed the WebSocket. Never raises."""
    try:
        if context is not None and issubclass(type(error), Exception):
            fields = {**context, "method": "GET", "route": route_of(recorder, request)}
            recorder.log.background_failed(fields, error)
    except BaseException as fault:
        recorder.fault(fault)  # See `DetailedExchange.app_finished`.


def route_of(recorder: Recorder, request: Request) -> str:
    """Return the template of the request that has become a WebSocket. Never raises."""
    try:
        return recorder.routes.template(request)[0]
    except Exception as fault:
        recorder.fault(fault)
        return UNMATCHED_ROUTE


def end_span(
    span: RequestSpan | None,
    recorder: Recorder,
    request: Request,
    error: BaseException | None,
    *,
    is_failed: bool = False,
) -> None:
    """End the span of an accepted WebSocket. Never raises."""
    if span is None:
        return
    try:
        if error is not None and not issubclass(type(error), Exception):  # Cancelled, as in the line.
            error = None
        sent = _CONNECTED if str(request.get("http_version", ""))[:1] in {"2", "3"} else _SWITCHED
        status = SERVER_ERROR if is_failed or error is not None else sent
        span.response_ended("GET", route_of(recorder, request), status, sent)
        span.app_finished(error)
    except Exception as fault:
        recorder.fault(fault)
