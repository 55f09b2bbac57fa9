"""The server's side of one request in ASGI and WSGI."""

from __future__ import annotations

import asyncio
import io
import json
import sys
from dataclasses import dataclass, field
from wsgiref.handlers import SimpleHandler

from prometheus_client import CollectorRegistry


@dataclass
class Seen:
    """The response of one request as the server got it."""

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    error: BaseException | None = None
    messages: list[dict] = field(default_factory=list)

    @property
    def json(self):
        """The body as an object."""
        return json.loads(self.body)


def http_scope(method="GET", path="/", *, headers=(), query=b"", **more):
    """Return the scope of an HTTP request as uvicorn writes it."""
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode("utf-8", "surrogateescape"),
        "root_path": "",
        "query_string": query,
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers],
        "client": ("10.0.0.7", 4321),
        "server": ("testserver", 80),
        "state": {},
        **more,
    }


def without_id(message):
    """Return the start of a response without the id of its request; other messages unchanged."""
    if not isinstance(message, dict) or dict.get(message, "type") != "http.response.start":
        return message
    headers = [one for one in message.get("headers", ()) if one[0] != b"x-request-id"]
    return {
        **{key: value for key, value in message.items() if key != "headers"},
        **({"headers": headers} if headers else {}),
    }


async def serve_asgi(app, scope, received=()) -> Seen:
    """Serve one connection; the application receives these messages, and a disconnect after its response."""
    seen, answered = Seen(), asyncio.Event()
    pending = list(received) or [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive():
        if pending:
            return pending.pop(0)
        await answered.wait()
        return {"type": f"{scope['type']}.disconnect"}

    async def send(message):
        seen.messages.append(message)
        if message["type"] == "http.response.start":
            seen.status = int(message["status"])
            seen.headers = {key.decode(): value.decode() for key, value in message.get("headers", ())}
        elif message["type"] == "http.response.body":
            seen.body += message.get("body", b"")
            if not message.get("more_body"):
                answered.set()
        elif message["type"] == "websocket.close":
            answered.set()

    try:
        await app(scope, receive, send)
    except BaseException as error:
        seen.error = error
    return seen


def asgi(app, method="GET", path="/", *, received=(), **scope) -> Seen:
    """Serve one ASGI request on a loop of its own."""
    return asyncio.run(serve_asgi(app, http_scope(method, path, **scope), received))


class Handler(SimpleHandler):
    """The standard library's WSGI server for one request, without a socket, which may close early."""

    chunks_read: int | None = None
    error = None

    def log_exception(self, exc_info):
        """Keep the error of the application."""
        self.error = exc_info[1]

    def handle_error(self):
        """Send a 500, unless the response was complete."""
        if self.environ is None:
            self.log_exception(sys.exc_info())
        else:
            super().handle_error()

    def finish_response(self):
        """Read as many chunks as the client reads, and close the body."""
        if self.chunks_read is None:
            super().finish_response()
            return
        try:
            for _, data in zip(range(self.chunks_read), self.result, strict=False):
                self.write(data)
        finally:
            self.close()


def environ(method="GET", path="/", *, headers=(), query="", **more):
    """Return the environ of a request."""
    named = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers}
    basics = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "SERVER_NAME": "testserver",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "10.0.0.7",
    }
    return {**basics, **named, **more}


def wsgi(app, method="GET", path="/", *, chunks_read=None, handler=Handler, **more) -> Seen:
    """Serve one WSGI request; with `chunks_read`, the client disconnects after this number of chunks."""
    out = io.BytesIO()
    server = handler(io.BytesIO(), out, sys.stderr, environ(method, path, **more), multithread=False)
    server.chunks_read = chunks_read
    server.run(app)
    head, _, body = out.getvalue().partition(b"\r\n\r\n")
    status, *headers = head.decode("latin-1").split("\r\n")
    pairs = (header.split(": ", 1) for header in headers)
    number = int(status.split()[1]) if status else None
    return Seen(number, {key.lower(): value for key, value in pairs}, body, server.error)


def counted(registry: CollectorRegistry) -> dict[tuple[str, str, str], float]:
    """Return how many requests of each method, route and status were counted, the same by counter and histogram."""
    found: dict[str, dict[tuple[str, str, str], float]] = {"total": {}, "count": {}}
    for family in registry.collect():
        for sample in family.samples:
            if sample.name in ("http_requests_total", "http_request_duration_seconds_count"):
                key = (sample.labels["method"], sample.labels["route"], sample.labels["status_code"])
                if sample.value:  # Errors of a route without errors are 0.
                    found[sample.name.rpartition("_")[2]][key] = sample.value
    assert found["total"] == found["count"]
    return found["total"]


def active(registry: CollectorRegistry, protocol: str = "http") -> float | None:
    """Return how many connections are open."""
    return registry.get_sample_value("active_connections", {"protocol": protocol})


def seconds(registry: CollectorRegistry) -> float:
    """Return the sum of the durations of all requests."""
    samples = (sample for family in registry.collect() for sample in family.samples)
    return sum(sample.value for sample in samples if sample.name == "http_request_duration_seconds_sum")


def log_lines(capsys) -> list[dict]:
    """Return the lines of stdout since the last call; each must be one JSON object."""
    return [json.loads(line) for line in capsys.readouterr().out.split("\n") if line]


def finished(capsys) -> list[dict]:
    """Return the access lines."""
    return [line for line in log_lines(capsys) if line["event"] == "request.finished"]


async def run_lifespan(app):
    """Run the lifespan of an application, from its start to its shutdown."""
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def receive():
        return messages.pop(0)

    async def send(message):
        pass

    await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send)
