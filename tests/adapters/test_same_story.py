"""One table of requests through ASGI and WSGI: equal samples, equal log lines."""

from __future__ import annotations

from dataclasses import dataclass, field
from http import HTTPStatus

import pytest
from prometheus_client import CollectorRegistry

import scaleobs
from support.exchanges import active, asgi, counted, log_lines, wsgi


class BoomError(Exception):
    """The error of the applications."""


@dataclass(frozen=True)
class Story:
    """The steps of an application, and the expected counts and lines."""

    name: str
    steps: tuple
    status: str
    level: str = "info"
    method: str = "GET"
    path: str = "/anything/7"
    raises: type[BaseException] | None = None
    more: dict = field(default_factory=dict)
    counted_method: str = ""


STORIES = [
    Story("a plain answer", (200, b"hello"), "200"),
    Story("an empty body", (204,), "204"),
    Story("a streamed body", (200, b"a", b"b", b"", b"c"), "200"),
    Story("HEAD", (200,), "200", method="HEAD"),
    Story("a client's error", (404, b"no"), "404"),
    Story("a server's error", (500, b"oh"), "500", level="error"),
    Story("unavailable", (503,), "503", level="error"),
    Story("an unusual status", (599,), "599", level="error"),
    Story("a redirect", (307,), "307"),
    Story("a status enum", (HTTPStatus.NOT_FOUND, b"no"), "404"),
    Story("an exception before the answer", (BoomError,), "500", level="error", raises=BoomError),
    Story(
        "an exception after the start",
        (200, BoomError),
        "500",
        level="error",
        raises=BoomError,
        more={"sent_status": 200},
    ),
    Story(
        "an exception in the middle",
        (200, b"a", b"b", BoomError),
        "500",
        level="error",
        raises=BoomError,
        more={"sent_status": 200},
    ),
    Story("a server's error that raises too", (500, b"a", BoomError), "500", level="error", raises=BoomError),
    Story("an exception that is no Exception", (SystemExit,), "500", level="error", raises=SystemExit),
    Story("nothing is answered", (), "500", level="error", raises=AssertionError),
    Story("a client that leaves", (200, b"a", "the client leaves"), "200"),
    Story("an unknown method", (200, b"x"), "200", method="BREW", counted_method="_OTHER"),
    Story("a method in lower case", (200, b"x"), "200", method="get", counted_method="_OTHER"),
    Story("a hostile path", (404,), "404", path="/\udcff\x00\n{}\u2028"),
]


def as_asgi(steps):
    """Return the steps as an ASGI application."""

    async def app(scope, receive, send):
        await receive()
        is_open = False
        for step in steps:
            if isinstance(step, int):
                await send({"type": "http.response.start", "status": step, "headers": []})
                is_open = True
            elif isinstance(step, bytes):
                await send({"type": "http.response.body", "body": step, "more_body": True})
            elif isinstance(step, str):
                assert (await receive())["type"] == "http.disconnect"
                return
            else:
                raise step
        if is_open:
            await send({"type": "http.response.body"})

    return app


def as_late_wsgi(steps):
    """Return the steps as a WSGI application, a generator that does nothing before its first chunk is requested."""

    def app(environ, start_response):
        for step in steps:
            if isinstance(step, int):
                start_response(f"{int(step)} {'OK'}", [])
            elif isinstance(step, bytes):
                yield step
            elif isinstance(step, str):
                yield b"never read"
            else:
                raise step
        if steps:
            yield b""

    return app


def as_wsgi(steps):
    """Return the steps as a WSGI application that runs everything up to the first chunk in its call."""
    begins = next((at for at, step in enumerate(steps) if isinstance(step, bytes | str)), len(steps))
    rest = as_late_wsgi(steps[begins:])

    def app(environ, start_response):
        list(as_late_wsgi(steps[:begins])(environ, start_response))
        return rest(environ, start_response)

    return app


def play(story, protocol, registry):
    """Serve the story once, and return the response or error that reached the server."""
    if protocol == "asgi":
        app = scaleobs.instrument(as_asgi(story.steps), registry=registry)
        received = [{"type": "http.request"}, {"type": "http.disconnect"}]
        return asgi(app, story.method, story.path, received=received)
    server = as_wsgi(story.steps) if protocol == "wsgi" else as_late_wsgi(story.steps)
    app = scaleobs.instrument(server, registry=registry)
    chunks_read = 1 if "the client leaves" in story.steps else None
    return wsgi(app, story.method, story.path, chunks_read=chunks_read)


@pytest.mark.parametrize("protocol", ["asgi", "wsgi", "late wsgi"])
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
def test_story_has_same_samples_and_line_in_each_protocol(story, protocol, capsys):
    """A request counts once, with the same labels and one equal line in both protocols."""
    registry = CollectorRegistry()

    seen = play(story, protocol, registry)
    counts = counted(registry)
    lines = log_lines(capsys)

    if story.steps and story.raises is not None:
        assert isinstance(seen.error, story.raises)
    assert {(story.counted_method or story.method, "unmatched", story.status): 1} == counts
    assert active(registry) == 0
    assert registry.get_sample_value("scaleobs_internal_faults_total") == 0
    assert ["request.finished"] == [line["event"] for line in lines]
    line = lines[0]
    has_exception = bool(story.steps) and story.raises is not None
    assert has_exception is ("exception" in line)
    assert {
        "level": story.level,
        "method": story.method,
        "route": "unmatched",
        "path": story.path,
        "status_code": int(story.status),
        "client": "10.0.0.7",
        "service": "service",
        "logger": "scaleobs",
        **story.more,
    } == {key: value for key, value in line.items() if key not in SKIPPED}
    assert 0 <= line["duration_seconds"] < 5


SKIPPED = (
    *("timestamp", "event", "request_id", "duration_seconds", "version", "exception"),
    "truncated",  # Only ASGI reports a disconnect.
)


@pytest.mark.parametrize("protocol", ["asgi", "wsgi", "late wsgi"])
def test_exception_is_the_very_same_object(protocol, registry):
    """An error of the application reaches the server as the same object."""
    error = BoomError("mine")

    seen = play(Story("", (200, b"a", error), "500"), protocol, registry)

    assert error is seen.error


@pytest.mark.parametrize("protocol", ["asgi", "wsgi", "late wsgi"])
def test_same_headers_identify_a_request(protocol, registry, capsys):
    """`X-Request-ID` and `traceparent` mean the same in both protocols, and a hostile id is replaced."""
    trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    good = [("X-Request-ID", "abc-1.2_3"), ("traceparent", f"00-{trace}-{span}-01")]
    bad = [("X-Request-ID", 'x"\r\n{}' + "y" * 10_000), ("traceparent", f"00-{'0' * 32}-{span}-01")]
    app = scaleobs.instrument((as_asgi if protocol == "asgi" else as_wsgi)((200,)), registry=registry)
    serve = asgi if protocol == "asgi" else wsgi

    serve(app, headers=good)
    serve(app, headers=bad)
    first, second = log_lines(capsys)

    assert ("abc-1.2_3", trace, span) == (first["request_id"], first["trace_id"], first["span_id"])
    assert 32 == len(second["request_id"])
    assert "trace_id" not in second
