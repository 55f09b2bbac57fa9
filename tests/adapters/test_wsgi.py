"""Facts of WSGI only."""

from __future__ import annotations

import gc
import io
import sys
import time
from itertools import chain
from wsgiref.util import FileWrapper
from wsgiref.validate import validator

import pytest

import scaleobs
from scaleobs._http.wsgi_exchange import WITHOUT_LENGTH
from scaleobs.logs._context import request_context
from support.exchanges import Handler, active, counted, environ, finished, log_lines, seconds, wsgi


class Body:
    """An iterable that counts its calls."""

    def __init__(self, *chunks, raises=None, close_raises=None):
        self.chunks = list(chunks)
        self.raises = raises
        self.close_raises = close_raises
        self.closed = 0

    def __iter__(self):
        yield from self.chunks
        if self.raises is not None:
            raise self.raises

    def close(self):
        """Count the call."""
        self.closed += 1
        if self.close_raises is not None:
            raise self.close_raises


def answering(body, status="200 OK"):
    """Return an application with this body."""

    def app(environ, start_response):
        start_response(status, [("Content-Type", "text/plain")])
        return body

    return app


@pytest.mark.parametrize("chunks_read", [None, 0, 1])
@pytest.mark.parametrize("raises", [None, RuntimeError("boom")])
def test_body_is_closed_exactly_once(chunks_read, raises, registry):
    """The iterable is closed once, whether it was read to its end, closed early, or raised."""
    body = Body(b"a", b"b", raises=raises)

    wsgi(scaleobs.instrument(answering(body), registry=registry), chunks_read=chunks_read)

    assert 1 == body.closed
    assert 0 == active(registry)
    assert 1 == sum(counted(registry).values())


def test_stream_is_timed_to_its_close_and_active_until_then(registry):
    """The time of a generator counts, and the request is active until its end."""

    def app(environ, start_response):
        start_response("200 OK", [])
        for _ in range(3):
            assert 1 == active(registry)
            time.sleep(0.05)
            yield b"x"

    seen = wsgi(scaleobs.instrument(app, registry=registry))

    assert (None, b"xxx") == (seen.error, seen.body)
    assert 0.14 < seconds(registry) < 5


class Listed:
    """A body that returns the iterator of a list, as Django's does, and may raise in `close()`."""

    def __iter__(self):
        return iter([b"a", b"b"])

    def close(self):
        """Raise an error."""
        raise RuntimeError("in close")


@pytest.mark.parametrize(("chunks_read", "status"), [(None, "200"), (1, "500"), (0, "500")])
def test_close_that_fails_leaves_the_status_of_a_whole_answer_alone(chunks_read, status, observe, registry):
    """An error in `close()` after the whole list was read keeps the status; before that, the response has failed."""
    wsgi(observe(answering(Listed())), chunks_read=chunks_read)

    assert {("GET", "unmatched", status): 1} == counted(registry)


class Failing:
    """An iterator that raises after its first chunk."""

    def __init__(self, error):
        self.error = error
        self.reads = 0

    def __iter__(self):
        return self

    def __next__(self):
        self.reads += 1
        if self.reads == 1:
            return b"a"
        raise self.error


@pytest.mark.parametrize("kind", [RuntimeError, OSError, KeyboardInterrupt, GeneratorExit])
def test_any_error_of_a_body_is_500(kind, observe, registry):
    """Any error of a body is a 500, also a `GeneratorExit` of the application itself."""
    error = kind()
    body = observe(answering(Failing(error)))(environ(), lambda *_: None)

    with pytest.raises(kind) as raised:
        list(body)
    body.close()

    assert error is raised.value
    assert {("GET", "unmatched", "500"): 1} == counted(registry)


def test_body_whose_reader_is_dropped_is_no_failure(observe, registry):
    """If a server drops the iterator early and closes the body, the status is the sent one."""
    body = observe(answering(Body(b"a", b"b", b"c")))(environ(), lambda *_: None)
    reading = iter(body)

    assert b"a" == next(reading)
    del reading
    body.close()
    assert {("GET", "unmatched", "200"): 1} == counted(registry)


def test_body_that_is_no_iterator_is_read_from_its_beginning(observe, registry):
    """Two readers of one body each get the whole body."""
    body = observe(answering(Body(b"a", b"b")))(environ(), lambda *_: None)
    one, other = iter(body), iter(body)

    assert [b"a", b"a", b"b", b"b"] == [next(one), next(other), next(one), next(other)]
    body.close()
    assert {("GET", "unmatched", "200"): 1} == counted(registry)


def test_types_of_bodies_are_not_remembered_without_end(observe, registry):
    """An application that creates a class for each body grows no memory, and each body is served unchanged."""
    kinds = [type(f"Made{number}", (Body,), {}) for number in range(300)]
    sized = type("Sized", (Body,), {"__len__": lambda self: len(self.chunks)})
    app = observe(lambda environ, start_response: (start_response("200 OK", []), environ["kind"](b"a"))[1])

    for kind in (*kinds, *kinds[-2:], sized, sized):
        body = app(environ(kind=kind), lambda *_: None)
        assert hasattr(body, "__len__") is (kind is sized)
        assert [b"a"] == list(body)
        body.close()
    assert {("GET", "unmatched", "200"): 304} == counted(registry)
    assert len(WITHOUT_LENGTH) <= 100


def test_exception_in_close_after_the_last_byte_leaves_the_status(registry, capsys):
    """If `close()`, WSGI's background task, raises after a whole response, the response counts as sent."""
    error = RuntimeError("in close")
    app = scaleobs.instrument(answering(Body(b"all", close_raises=error)), registry=registry)

    seen = wsgi(app)
    lines = log_lines(capsys)

    assert error is seen.error
    assert {("GET", "unmatched", "200"): 1} == counted(registry)
    assert [("request.finished", "info"), ("background.failed", "error")] == [(x["event"], x["level"]) for x in lines]


def test_unread_body_is_counted_when_collected(registry, capsys):
    """A dropped body is counted by the next scrape, with the duration up to its drop, and the gauge is 0."""
    app = scaleobs.instrument(answering(Body(b"x")), registry=registry)

    begun = time.perf_counter()
    body = app(environ(), lambda *_: None)
    assert 1 == active(registry)
    del body
    dropped = time.perf_counter()
    gc.collect()
    time.sleep(0.1)

    assert {("GET", "unmatched", "200"): 1} == counted(registry)
    assert 0 == active(registry)
    assert seconds(registry) < dropped - begun + 0.1
    assert ["info"] == [line["level"] for line in finished(capsys)]


def test_generator_that_is_never_started_is_500(registry):
    """If nothing was sent, the request counts as 500."""

    def app(environ, start_response):
        start_response("200 OK", [])
        yield b"x"

    app = scaleobs.instrument(app, registry=registry)
    app(environ(), None)
    gc.collect()

    assert {("GET", "unmatched", "500"): 1} == counted(registry)


def test_answer_that_is_replaced_counts_under_its_last_status(registry):
    """`start_response` with `exc_info` replaces a response of which nothing was sent."""

    def app(environ, start_response):
        start_response("200 OK", [])
        try:
            raise RuntimeError  # noqa: TRY301
        except RuntimeError:
            start_response("503 Service Unavailable", [("Content-Length", "0")], sys.exc_info())
        return []

    seen = wsgi(scaleobs.instrument(app, registry=registry))

    assert (503, None) == (seen.status, seen.error)
    assert {("GET", "unmatched", "503"): 1} == counted(registry)


def test_start_response_takes_keywords(registry):
    """Calls that a server allows beyond PEP 3333 are still allowed."""

    def app(environ, start_response):
        start_response(status="202 Accepted", headers=[], exc_info=None)
        return []

    seen = wsgi(scaleobs.instrument(app, registry=registry))

    assert (202, None) == (seen.status, seen.error)
    assert {("GET", "unmatched", "202"): 1} == counted(registry)


def test_write_callable_works(registry):
    """`write` is the server's own function."""

    def app(environ, start_response):
        write = start_response("200 OK", [])
        write(b"written ")
        return [b"and returned"]

    seen = wsgi(scaleobs.instrument(app, registry=registry))

    assert b"written and returned" == seen.body
    assert {("GET", "unmatched", "200"): 1} == counted(registry)


def test_length_is_kept(registry):
    """A body with a length keeps it, since servers derive Content-Length from it; a body without a length has none."""
    sized = wsgi(scaleobs.instrument(answering([b"hello"]), registry=registry))
    streamed = wsgi(scaleobs.instrument(answering(iter([b"hello"])), registry=registry))

    assert "5" == sized.headers["content-length"]
    assert "content-length" not in streamed.headers


class SendfileHandler(Handler):
    """A server that sends a file itself if it recognises its own wrapper."""

    sent: list[str] = []  # noqa: RUF012 - Read by the test.

    def sendfile(self):
        """Send the content of the wrapper."""
        type(self).sent.append(type(self.result).__name__)
        self.write(self.result.filelike.read())
        return True


def test_file_wrapper_reaches_the_server_as_it_is(registry):
    """The server recognises its own file wrapper and sends the file itself; the request ends at its close."""
    file = io.BytesIO(b"the file")

    def app(environ, start_response):
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](file)

    SendfileHandler.sent.clear()
    seen = wsgi(scaleobs.instrument(app, registry=registry), handler=SendfileHandler)

    assert ["FileWrapper"] == SendfileHandler.sent
    assert (b"the file", True) == (seen.body, file.closed)
    assert {("GET", "unmatched", "200"): 1} == counted(registry)
    assert 0 == active(registry)


def test_unclosed_file_wrapper_is_counted_when_collected(registry):
    """The same holds for the server's file wrapper."""

    def app(environ, start_response):
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](io.BytesIO(b"x"))

    app = scaleobs.instrument(app, registry=registry)
    app(environ(**{"wsgi.file_wrapper": FileWrapper}), lambda *_: None)
    gc.collect()

    assert {("GET", "unmatched", "200"): 1} == counted(registry)
    assert 0 == active(registry)


@pytest.mark.parametrize("path", ["/", "/health", "/ready", "/metrics"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_protocol_is_kept_on_both_sides(path, method, registry):
    """The standard library's validator finds no error, neither before nor behind our middleware."""

    def hello(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
        return [b"hello" if environ["REQUEST_METHOD"] != "HEAD" else b""]

    app = validator(scaleobs.instrument(validator(hello), registry=registry))
    seen = wsgi(app, method, path)

    assert seen.error is None
    assert (405 if method == "POST" and path != "/" else 200) == seen.status


def test_request_is_known_while_its_body_is_made(registry):
    """Lines that a generator logs have the id of the request; lines after its close do not."""
    ids = []

    def app(environ, start_response):
        start_response("200 OK", [])
        ids.append(request_context.get())
        yield b"x"
        ids.append(request_context.get())

    wsgi(scaleobs.instrument(app, registry=registry), headers=[("X-Request-ID", "r1")])

    assert [{"request_id": "r1"}] * 2 == ids
    assert request_context.get() is None


@pytest.mark.parametrize("log_format", ["json", "off"])
@pytest.mark.parametrize(
    "read",
    [
        lambda body: b"".join(body) + b"".join(body),
        lambda body: next(iter(body)) + b"".join(body),
        lambda body: b"".join(b"".join(chunks) for chunks in [chain(*[iter(body)] * 2)]),
    ],
    ids=["twice", "from its beginning", "on"],
)
def test_body_that_can_be_read_again(read, log_format, registry):
    """A body that is not its own iterator starts again with each iterator, as without us."""
    app = scaleobs.instrument(answering(Body(b"a", b"b")), registry=registry, log_format=log_format)
    for _ in range(2):
        body = app(environ(), lambda *_: None)

        assert read(Body(b"a", b"b")) == read(body)
        body.close()
    assert {("GET", "unmatched", "200"): 2} == counted(registry)
