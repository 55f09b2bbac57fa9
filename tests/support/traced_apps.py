"""What is traced in tests of spans."""

from __future__ import annotations

from opentelemetry import trace

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = ("traceparent", f"00-{TRACE}-{PARENT}-01")
OPENMETRICS = [("accept", "application/openmetrics-text; version=1.0.0")]


def route(request):
    """Return the template that a path stands for."""
    path = request.get("path") or request["PATH_INFO"]
    return "/items/{id}" if path.startswith("/items/") else None


async def asgi_app(scope, receive, send):
    """Answer with the status that ends the path, or raise."""
    last = scope["path"].rpartition("/")[2]
    scope.get("seen", []).append(trace.get_current_span())
    if last == "raise":
        raise ValueError("no such thing")
    await send({"type": "http.response.start", "status": int(last) if last.isdecimal() else 200, "headers": []})
    if last == "cut":
        raise ValueError("no such thing")
    await send({"type": "http.response.body", "body": b""})


def wsgi_app(environ, start_response):
    """Do the same."""
    last = environ["PATH_INFO"].rpartition("/")[2]
    environ.get("seen", []).append(trace.get_current_span())
    if last == "raise":
        raise ValueError("no such thing")
    start_response(f"{last if last.isdecimal() else 200} X", [])
    if last == "cut":
        return cut()
    return [b""]


def cut():
    """Fail in the middle of an answer."""
    yield b""
    raise ValueError("no such thing")


def ids(span):
    """Return the ids of a span as they are written."""
    return f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"
