"""One server span per request, by OpenTelemetry's stable HTTP conventions, if a provider is set."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, MutableMapping
from typing import Any

from scaleobs import catalog
from scaleobs._tracing.context import SAMPLED, Span, is_configured, parse_traceparent, parse_tracestate

_SCHEMA = "https://opentelemetry.io/schemas/1.26.0"
_SERVER_ERROR = 500
_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}

Attributes = dict[str, str | int]
Header = Callable[[str], str]
"""Returns the value of a header by its name: several are joined by commas, and a missing one is empty."""

_MAKERS = {
    ("opentelemetry.instrumentation.asgi", "OpenTelemetryMiddleware"),
    ("starlette.middleware.opentelemetry", "OpenTelemetryMiddleware"),
}
"""Middlewares that always make a server span, also inside another one."""

_MARKS = {"fastapi.telemetry": None, "starlette.opentelemetry": True}
"""Keys of a scope; two frameworks make no span for a request that has their key."""


def mark(scope: MutableMapping[str, Any]) -> None:
    """Mark a request that has its span, so that mounted frameworks make none."""
    for key, value in _MARKS.items():
        if key.partition(".")[0] in sys.modules:
            scope.setdefault(key, value)


class RequestSpan:
    """
    The span of one request: our own, or one that another instrumentation has started and will end.

    Attributes:
        ids: for log lines and exemplars.
    """

    __slots__ = ("_context", "_ended", "_span", "ids")

    def __init__(self, span: Any, *, context: Any = None, is_own: bool = True) -> None:
        span_context = span.get_span_context()
        sampled = bool(span_context.trace_flags & SAMPLED)
        self.ids = Span(f"{span_context.trace_id:032x}", f"{span_context.span_id:016x}", sampled)
        self._span = span if is_own else None
        self._context = context
        self._ended = 0

    def enter(self) -> Any:
        """Make it the current span, and return the token for `leave`; `None` if it is current already."""
        return None if self._context is None else sys.modules["opentelemetry.context"].attach(self._context)

    @staticmethod
    def leave(token: Any) -> None:
        """Undo `enter`, in the same context."""
        if token is not None:
            sys.modules["opentelemetry.context"].detach(token)

    def response_ended(self, method: str, route: str, status: int, sent: int) -> None:
        """
        Set the attributes of the response, and end the span; after a 5xx, `app_finished` ends it.

        Args:
            method: the label of the metrics.
            route: the label of the metrics; the span has none if it is unmatched.
            status: the label of the metrics.
            sent: the status that the client received, e.g. 200 for a response that was cut off.
        """
        span = self._span
        if span is None:
            return
        self._ended = time.time_ns()
        span.set_attribute("http.response.status_code", sent)
        if route != catalog.UNMATCHED_ROUTE:
            span.set_attribute("http.route", route)
            span.update_name(f"{_name_of(method)} {route}")
        if status < _SERVER_ERROR:
            self._finish(span)
        else:
            span.set_attribute("error.type", str(status))
            span.set_status(sys.modules["opentelemetry.trace"].StatusCode.ERROR)

    def app_finished(self, error: BaseException | None) -> None:
        """Record what the application raised, and end the span; called after `response_ended`."""
        span = self._span
        if span is None:
            return
        if error is not None:
            with contextlib.suppress(BaseException):  # The error's own methods may raise anything.
                span.set_attribute("error.type", _type_of(error))
                span.record_exception(error)
        self._finish(span)

    def _finish(self, span: Any) -> None:
        self._span = None
        span.end(end_time=self._ended)


class Spans:
    """
    Makes the span of each request to one application.

    Args:
        app: the application; if it, or a middleware around it, makes server spans, these are used.

    Attributes:
        app_makes_spans: whether the application makes the spans, so that ids are known only while it runs.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._provider: Any = None
        self._tracer: Any = None
        self.app_makes_spans = False

    def begin(self, header: Header, attributes: Callable[[], Attributes]) -> RequestSpan | None:
        """
        Return the span of a request: a new one, or that of a middleware around us; `None` if no provider is set.

        Args:
            header: reads the request's headers.
            attributes: returns the attributes that are known before the response; samplers receive them.
        """
        if not is_configured():
            return None
        from opentelemetry import context, propagate, trace

        if self._tracer is None or trace.get_tracer_provider() is not self._provider:
            from importlib.metadata import version

            self._provider = trace.get_tracer_provider()
            self._tracer = self._provider.get_tracer("scaleobs", version("scaleobs"), schema_url=_SCHEMA)
            self.app_makes_spans = _makes_spans(self._app)
        outer = trace.get_current_span()
        if _is_of_this_request(outer, trace):
            return RequestSpan(outer, is_own=False)
        if self.app_makes_spans:
            return None
        now = context.get_current()
        if not outer.is_recording():  # A span of an earlier request, left in the context of a connection or thread.
            now = trace.set_span_in_context(trace.INVALID_SPAN, now)
        parent = propagate.extract(header, now, getter=_Headers())  # type: ignore[arg-type]
        given = attributes()
        name = _name_of(str(given["http.request.method"]))
        span = self._tracer.start_span(name, context=parent, kind=trace.SpanKind.SERVER, attributes=given)
        if not span.get_span_context().is_valid:  # The SDK is disabled.
            return None
        return RequestSpan(span, context=trace.set_span_in_context(span, parent))


class _Headers:
    """Passes headers to OpenTelemetry's propagators, without an invalid trace context."""

    @staticmethod
    def get(header: Header, key: str) -> list[str] | None:
        value = header(key)
        if key == "traceparent" and parse_traceparent(value) is None:
            return None
        if key == "tracestate":  # OpenTelemetry discards all members if two have the same key.
            value = ",".join("=".join(member) for member in parse_tracestate(value).items())
        return [value] if value else None

    @staticmethod
    def keys(_header: Header) -> list[str]:
        return []


def request_attributes(method: str, *, scheme: str, path: str, client: str, version: str, header: Header) -> Attributes:
    """
    Return the attributes of a span before the response. The query is left out, since it may contain tokens.

    Args:
        method: as the client sent it.
        scheme: `http` or `https`; `ws` or `wss` for a WebSocket.
        path: without the query.
        client: its address, or an empty text.
        version: of HTTP, such as `1.1`.
        header: reads the request's headers.
    """
    standard = method if method in catalog.METHODS else catalog.OTHER_METHOD
    attributes: Attributes = {"http.request.method": standard, "url.scheme": scheme, "url.path": path}
    if standard != method:
        attributes["http.request.method_original"] = method
    host, colon, port = header("host").rpartition(":")
    if not colon or not port.isdecimal():  # There is no port; the text after the colon ends an IPv6 address.
        host, port = header("host"), ""
    given: Attributes = {
        "server.address": host.strip("[]"),
        "server.port": int(port) if port else _PORTS.get(scheme, 0),
        "client.address": client,
        "network.protocol.version": version,
        "user_agent.original": header("user-agent"),
    }
    return attributes | {name: value for name, value in given.items() if value}


def _is_of_this_request(span: Any, trace: Any) -> bool:
    """Return whether a current span is the server span of this request: not ended, and not a client's span."""
    context = span.get_span_context()
    if not context.is_valid or context.is_remote:
        return False
    if isinstance(span, trace.NonRecordingSpan):  # Not sampled.
        return True
    return bool(span.is_recording()) and getattr(span, "kind", None) is trace.SpanKind.SERVER


def _makes_spans(app: Any) -> bool:
    """Return whether an application, or a middleware around it, makes server spans."""
    seen: set[int] = set()
    while app is not None and id(app) not in seen:
        seen.add(id(app))
        if (type(app).__module__, type(app).__name__) in _MAKERS:
            return True
        native = getattr(app, "_telemetry", None)
        if isinstance(native, dict) and native.get("tracing"):  # FastAPI's own telemetry.
            return True
        app = getattr(app, "app", None)
    return False


def _name_of(method: str) -> str:
    return "HTTP" if method == catalog.OTHER_METHOD else method


def _type_of(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
