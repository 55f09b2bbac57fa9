"""One server span per request, by the stable HTTP conventions of OpenTelemetry, where somebody has set a provider."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, MutableMapping
from typing import Any

from scaleobs import catalog
from scaleobs.tracing.current import is_configured
from scaleobs.tracing.w3c import SAMPLED, Span, parse_traceparent, parse_tracestate

_SCHEMA = "https://opentelemetry.io/schemas/1.26.0"
_SERVER_ERROR = 500
_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}

Attributes = dict[str, str | int]
Header = Callable[[str], str]
"""From the name of a header to its value, several joined by commas, and nothing where there is none."""

_MAKERS = {
    ("opentelemetry.instrumentation.asgi", "OpenTelemetryMiddleware"),
    ("starlette.middleware.opentelemetry", "OpenTelemetryMiddleware"),
}
"""Middlewares that make a server span whatever is around them."""

_MARKS = {"fastapi.telemetry": None, "starlette.opentelemetry": True}
"""By these keys of a scope two frameworks see that the request has its span, where they are mounted inside."""


def mark(scope: MutableMapping[str, Any]) -> None:
    """Have frameworks that are mounted inside see that the request has its span."""
    for key, value in _MARKS.items():
        if key.partition(".")[0] in sys.modules:
            scope.setdefault(key, value)


class RequestSpan:
    """
    The span of one request: one of ours, or one that another instrumentation has begun and will end.

    Attributes:
        ids: what lines and exemplars say of it.
    """

    __slots__ = ("_ended", "_span", "_within", "ids")

    def __init__(self, span: Any, *, within: Any = None, is_ours: bool = True) -> None:
        context = span.get_span_context()
        sampled = bool(context.trace_flags & SAMPLED)
        self.ids = Span(f"{context.trace_id:032x}", f"{context.span_id:016x}", sampled)
        self._span = span if is_ours else None
        self._within = within
        self._ended = 0

    def enter(self) -> Any:
        """Make it the current span, and return what `leave` wants; `None` where it is current already."""
        return None if self._within is None else sys.modules["opentelemetry.context"].attach(self._within)

    @staticmethod
    def leave(token: Any) -> None:
        """End what `enter` began, in the same context."""
        if token is not None:
            sys.modules["opentelemetry.context"].detach(token)

    def ended(self, method: str, route: str, status: int, sent: int) -> None:
        """
        Note the end of the request; one that failed waits for what the application may raise.

        Args:
            method: as it is counted.
            route: as it is counted; one that is unmatched is not told.
            status: as it is counted.
            sent: what the client was told, which may be 200 for an answer that was cut.
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

    def left(self, error: BaseException | None) -> None:
        """Note that the application has left, with what it raised; to be called after `ended`."""
        span = self._span
        if span is None:
            return
        if error is not None:
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
        app: the application; where it makes server spans itself, or something around it does, there are none of ours.

    Attributes:
        are_inside: whether the application makes its own, so that ids are known only while it runs.
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._provider: Any = None
        self._tracer: Any = None
        self.are_inside = False

    def begin(self, header: Header, attributes: Callable[[], Attributes]) -> RequestSpan | None:
        """
        Return the span of a request, begun now or by whoever is around us, and `None` where nobody has set a provider.

        Args:
            header: reads the request's headers.
            attributes: returns what is known of the request before it is answered, which samplers see.
        """
        if not is_configured():
            return None
        from opentelemetry import context, propagate, trace

        if self._tracer is None or trace.get_tracer_provider() is not self._provider:
            from importlib.metadata import version

            self._provider = trace.get_tracer_provider()
            self._tracer = self._provider.get_tracer("scaleobs", version("scaleobs"), schema_url=_SCHEMA)
            self.are_inside = _makes_spans(self._app)
        around = trace.get_current_span()
        if _is_of_this_request(around, trace):
            return RequestSpan(around, is_ours=False)
        if self.are_inside:
            return None
        now = context.get_current()
        if not around.is_recording():  # What a server's connection or thread has kept of another request.
            now = trace.set_span_in_context(trace.INVALID_SPAN, now)
        parent = propagate.extract(header, now, getter=_Headers())  # type: ignore[arg-type]
        known = attributes()
        name = _name_of(str(known["http.request.method"]))
        span = self._tracer.start_span(name, context=parent, kind=trace.SpanKind.SERVER, attributes=known)
        if not span.get_span_context().is_valid:  # The SDK is turned off.
            return None
        return RequestSpan(span, within=trace.set_span_in_context(span, parent))


class _Headers:
    """Reads headers for OpenTelemetry's propagators, and keeps invalid trace context from them."""

    @staticmethod
    def get(header: Header, key: str) -> list[str] | None:
        value = header(key)
        if key == "traceparent" and parse_traceparent(value) is None:
            return None
        if key == "tracestate":  # OpenTelemetry discards all members where two have the same key.
            value = ",".join("=".join(member) for member in parse_tracestate(value).items())
        return [value] if value else None

    @staticmethod
    def keys(_header: Header) -> list[str]:
        return []


def request_attributes(method: str, *, scheme: str, path: str, client: str, version: str, header: Header) -> Attributes:
    """
    Return what a span says of a request that comes in. The query is left out: it carries tokens.

    Args:
        method: as the client sent it.
        scheme: `http` or `https`; `ws` or `wss` of a WebSocket.
        path: without the query.
        client: its address, empty where that isn't known.
        version: of HTTP, such as `1.1`.
        header: reads the request's headers.
    """
    known = method if method in catalog.METHODS else catalog.OTHER_METHOD
    attributes: Attributes = {"http.request.method": known, "url.scheme": scheme, "url.path": path}
    if known != method:
        attributes["http.request.method_original"] = method
    host, colon, port = header("host").rpartition(":")
    if not colon or not port.isdecimal():  # None is given, or what stands there is the end of an IPv6 address.
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
    """Return whether a current span is the server span of this request: not ended, nor the client's, nor a caller's."""
    context = span.get_span_context()
    if not context.is_valid or context.is_remote:
        return False
    if isinstance(span, trace.NonRecordingSpan):  # Not sampled.
        return True
    return bool(span.is_recording()) and getattr(span, "kind", None) is trace.SpanKind.SERVER


def _makes_spans(app: Any) -> bool:
    """Return whether an application, or a middleware on the way to it, makes a server span of its own."""
    seen: set[int] = set()
    while app is not None and id(app) not in seen:
        seen.add(id(app))
        if (type(app).__module__, type(app).__name__) in _MAKERS:
            return True
        native = getattr(app, "_telemetry", None)
        if isinstance(native, dict) and native.get("tracing"):  # FastAPI, in place of whose middleware we don't stand.
            return True
        app = getattr(app, "app", None)
    return False


def _name_of(method: str) -> str:
    return "HTTP" if method == catalog.OTHER_METHOD else method


def _type_of(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
