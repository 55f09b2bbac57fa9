"""Facts of ASGI only."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import time

import pytest

import scaleobs
from scaleobs.logs._context import request_context
from support.exchanges import active, asgi, counted, finished, http_scope, log_lines, seconds, serve_asgi, without_id

START = {"type": "http.response.start", "status": 200, "headers": []}
MORE = {"type": "http.response.body", "body": b"x", "more_body": True}
END = {"type": "http.response.body", "body": b""}


def sending(*messages):
    """Return an application that sends these messages."""

    async def app(scope, receive, send):
        for message in messages:
            await send(message)

    return app


async def serve_lifespan(app, messages, state=None):
    """Serve a lifespan; return the scope and the messages of the application, or its error."""
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {} if state is None else state}
    pending, sent = list(messages), []

    async def receive():
        return pending.pop(0)

    async def send(message):
        sent.append(message)

    try:
        await app(scope, receive, send)
    except BaseException as error:
        return scope, sent, error
    return scope, sent, None


STARTUP, SHUTDOWN = {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}
COMPLETE, GONE = {"type": "lifespan.startup.complete"}, {"type": "lifespan.shutdown.complete"}


def test_lifespan_is_forwarded_and_followed(registry):
    """The application gets its own lifespan, with its state; readiness follows it from start to shutdown."""
    seen = []

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            seen.append(((await receive()), obs._service.lifecycle.state))
            scope["state"]["pool"] = "a pool"
            await send(COMPLETE)
            seen.append(obs._service.lifecycle.state)
            seen.append(((await receive()), obs._service.lifecycle.state))
            await send(GONE)

    app = scaleobs.instrument(app, registry=registry)
    obs = scaleobs.observer_of(app)
    state = {}
    _, sent, error = asyncio.run(serve_lifespan(app, [STARTUP, SHUTDOWN], state))

    assert [(STARTUP, "starting"), "ready", (SHUTDOWN, "stopping")] == seen
    assert ([COMPLETE, GONE], None) == (sent, error)
    assert {"pool": "a pool"} == state


def test_failed_startup_stays_failed(registry):
    """`startup.failed` reaches the server, and the probes fail even after requests."""
    failed = {"type": "lifespan.startup.failed", "message": "no database"}

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            await send(failed)

    app = scaleobs.instrument(app, registry=registry)
    _, sent, _ = asyncio.run(serve_lifespan(app, [STARTUP]))

    assert [failed] == sent
    assert 503 == asgi(app, path="/ready").status
    assert 503 == asgi(app, path="/startup").status
    assert 200 == asgi(app, path="/health").status


def test_application_without_lifespan_is_ready_at_first_request(registry):
    """An application may still refuse the lifespan scope; it is ready after the first request."""

    async def app(scope, receive, send):
        if scope["type"] != "http":
            msg = "no lifespan here"
            raise NotImplementedError(msg)

    app = scaleobs.instrument(app, registry=registry)
    _, _, error = asyncio.run(serve_lifespan(app, [STARTUP]))

    assert isinstance(error, NotImplementedError)
    assert 0 == registry.get_sample_value("service_ready")
    assert 200 == asgi(app, path="/ready").status
    assert 1 == registry.get_sample_value("service_ready")


def test_a_second_lifespan_starts_afresh(registry):
    """An application that is started again, as by test clients, is ready again."""

    async def app(scope, receive, send):
        await receive()
        assert "starting" == scaleobs.observer_of(app)._service.lifecycle.state
        await send(COMPLETE)
        await receive()
        await send(GONE)

    app = scaleobs.instrument(app, registry=registry)
    for _ in range(2):
        _, sent, error = asyncio.run(serve_lifespan(app, [STARTUP, SHUTDOWN]))

        assert ([COMPLETE, GONE], None) == (sent, error)


def test_starting_service_is_not_ready(registry):
    """A probe during start-up gets 503 with the state, and liveness 200."""

    async def app(scope, receive, send):
        await receive()
        await asyncio.sleep(0)
        seen.extend([await serve_asgi(app, http_scope(path=path)) for path in ("/ready", "/startup", "/health")])
        await send(COMPLETE)

    seen = []
    app = scaleobs.instrument(app, registry=registry)
    asyncio.run(serve_lifespan(app, [STARTUP]))

    assert [503, 503, 200] == [one.status for one in seen]
    assert [{"name": "lifecycle", "status": "DOWN", "data": {"state": "starting"}}] == seen[0].json["checks"]
    assert 200 == asgi(app, path="/ready").status


def test_client_gone_before_the_answer_is_499(registry, capsys):
    """A client that disconnects before the response counts as 499, and later errors of the application do not."""

    async def app(scope, receive, send):
        await receive()
        assert "http.disconnect" == (await receive())["type"]
        moments.append(time.perf_counter())
        await send(START)
        await send(END)

    app = scaleobs.instrument(app, registry=registry)
    moments = [time.perf_counter()]
    asgi(app, received=[{"type": "http.request"}, {"type": "http.disconnect"}])
    line = finished(capsys)[0]

    begun, left = moments

    assert {("GET", "unmatched", "499"): 1} == counted(registry)
    assert seconds(registry) <= left - begun
    assert ("info", 499) == (line["level"], line["status_code"])
    assert "truncated" not in line


def test_client_gone_while_streaming_counts_as_sent(registry, capsys):
    """A client that disconnects during the body counts under the sent status; the cancellation after it is no error."""

    async def app(scope, receive, send):
        await receive()
        await send(START)
        await receive()
        raise asyncio.CancelledError

    app = scaleobs.instrument(app, registry=registry)
    asgi(app, received=[{"type": "http.request"}, {"type": "http.disconnect"}])
    lines = log_lines(capsys)

    assert {("GET", "unmatched", "200"): 1} == counted(registry)
    assert [("request.finished", "info", True)] == [(one["event"], one["level"], one["truncated"]) for one in lines]


@pytest.mark.parametrize(("messages", "status"), [([], "499"), ([START], "200")])
def test_client_gone_by_the_error_of_a_send(messages, status, registry, capsys):
    """An `OSError` from the server's `send` means that the client disconnected (ASGI 2.4)."""

    async def serve():
        async def send(message):
            if len(left) == 0:
                raise BrokenPipeError
            left.pop()

        left = list(messages)
        with pytest.raises(BrokenPipeError):
            await app(http_scope(), asyncio.Event().wait, send)

    app = scaleobs.instrument(sending(START, END), registry=registry)
    asyncio.run(serve())

    assert {("GET", "unmatched", status): 1} == counted(registry)
    assert "info" == finished(capsys)[0]["level"]


def test_disconnect_after_the_answer_changes_nothing(registry, capsys):
    """Servers send `http.disconnect` after a complete response, too: that is no truncation."""

    async def app(scope, receive, send):
        await receive()
        await send(START)
        await send(END)
        await receive()

    app = scaleobs.instrument(app, registry=registry)
    asgi(app, received=[{"type": "http.request"}, {"type": "http.disconnect"}])

    assert {("GET", "unmatched", "200"): 1} == counted(registry)
    assert "truncated" not in finished(capsys)[0]


def test_cancelled_request_is_500_and_raised_on(registry, capsys):
    """A request that the server cancels, with the client connected, counts as 500; the cancellation is passed on."""

    async def app(scope, receive, send):
        await asyncio.Event().wait()

    async def cancel():
        task = asyncio.create_task(app(http_scope(), None, None))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert 1 == active(registry)
        task.cancel("shutting down")
        with pytest.raises(asyncio.CancelledError, match="shutting down"):
            await task

    app = scaleobs.instrument(app, registry=registry)
    asyncio.run(cancel())

    assert {("GET", "unmatched", "500"): 1} == counted(registry)
    assert 0 == active(registry)
    assert "error" == finished(capsys)[0]["level"]


def test_background_task_is_not_in_the_duration(registry, capsys):
    """The duration ends with the last body message; an exception after it is logged once and keeps the status."""
    error = RuntimeError("in the background")

    async def app(scope, receive, send):
        await send(START)
        await send(END)
        moments.append(time.perf_counter())
        assert 0 == active(registry)
        raise error

    app = scaleobs.instrument(app, registry=registry)
    moments = [time.perf_counter()]
    seen = asgi(app)
    begun, ended = moments
    lines = log_lines(capsys)
    logging.getLogger("uvicorn.error").error("Exception in ASGI application", exc_info=seen.error)

    assert "exception" not in log_lines(capsys)[0]
    assert error is seen.error
    assert {("GET", "unmatched", "200"): 1} == counted(registry)
    assert seconds(registry) <= ended - begun
    assert [("request.finished", "info"), ("background.failed", "error")] == [(x["event"], x["level"]) for x in lines]
    assert ["exception" in line for line in lines] == [False, True]
    assert lines[0]["request_id"] == lines[1]["request_id"]


def test_stream_is_timed_to_its_end_and_active_until_then(registry):
    """The duration of a stream ends with its last chunk, and the request is active until then."""

    async def app(scope, receive, send):
        await send(START)
        for _ in range(3):
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            assert 1 == active(registry)
            await asyncio.sleep(0.05)
        await send(END)

    app = scaleobs.instrument(app, registry=registry)

    assert asgi(app).error is None
    assert 0.14 < seconds(registry) < 5


@pytest.mark.parametrize(
    "messages",
    [
        [START, {"type": "http.response.pathsend", "path": "/etc/hostname"}],
        [START, {"type": "http.response.zerocopysend", "file": 3}],
        [START, {"type": "http.response.zerocopysend", "file": 3, "more_body": False}],
        [START, {"type": "http.response.zerocopysend", "file": 3, "more_body": True}, END],
        [START, MORE, {"type": "http.response.zerocopysend", "file": 3}],
        [START, {"type": "http.response.early_hint", "links": [b"</x>"]}, MORE, END],
        [{"type": "http.response.push", "path": "/x"}, {"type": "http.response.debug", "info": {}}, START, END],
        [{"type": "http.response.start", "status": 200}, {"type": "http.response.body"}],
    ],
    ids=[
        *("pathsend", "zerocopysend", "zerocopysend, no more", "zerocopysend, more", "body and zerocopysend"),
        *("early hint", "push and debug", "least keys"),
    ],
)
def test_messages_pass_unchanged(messages, observe, registry):
    """Each message reaches the server as the same object, except for the id in the start; the last one ends it."""

    async def app(scope, receive, send):
        for message in messages:
            assert 1 == active(registry)
            await send(message)
        assert 0 == active(registry)

    seen = asgi(observe(app))

    assert seen.error is None
    starts = [message["type"] == "http.response.start" for message in messages]
    assert [start or id(message) for message, start in zip(messages, starts, strict=True)] == [
        start or id(message) for message, start in zip(seen.messages, starts, strict=True)
    ]
    assert list(map(without_id, messages)) == list(map(without_id, seen.messages))
    assert {("GET", "unmatched", "200"): 1} == counted(registry)


def test_trailers_pass_unchanged_and_are_not_timed(registry):
    """Messages after the last byte reach the server as the same objects, and are not timed."""
    trailers = {"type": "http.response.trailers", "headers": [(b"x-checksum", b"1")]}

    async def app(scope, receive, send):
        await send({**START, "trailers": True})
        await send(END)
        moments.append(time.perf_counter())
        assert 0 == active(registry)
        await send(trailers)

    moments = [time.perf_counter()]
    seen = asgi(scaleobs.instrument(app, registry=registry))
    begun, ended = moments

    assert seen.error is None
    assert trailers is seen.messages[-1]
    assert {("GET", "unmatched", "200"): 1} == counted(registry)
    assert seconds(registry) <= ended - begun


def test_headers_that_can_be_read_once_reach_the_server(registry):
    """A generator of headers is not consumed."""
    headers = iter([(b"x-a", b"1")])
    app = scaleobs.instrument(sending({"type": "http.response.start", "status": 200, "headers": headers}, END))

    seen = asgi(app).headers

    assert seen.pop("x-request-id")
    assert {"x-a": "1"} == seen


def test_unknown_scope_passes_untouched(registry):
    """An unknown type of scope, `receive` and `send` are passed on unchanged."""
    seen = []

    async def app(*arguments):
        seen.extend(arguments)

    scope, receive, send = {"type": "mqtt", "path": "/health"}, object(), object()
    asyncio.run(scaleobs.instrument(app, registry=registry)(scope, receive, send))

    assert [id(scope), id(receive), id(send)] == [id(one) for one in seen]
    assert {"type": "mqtt", "path": "/health"} == scope
    assert {} == counted(registry)


def test_application_that_is_collected_in_mid_request_is_counted(registry):
    """A dropped coroutine ends its request, in any context, without an error of ours."""

    async def app(scope, receive, send):
        await send(START)

    class Never:
        def __await__(self):
            yield

    async def send(message):
        await Never()

    app = scaleobs.instrument(app, registry=registry)
    coroutine = app(http_scope(), None, send)
    contextvars.copy_context().run(coroutine.send, None)
    coroutine.close()
    del coroutine
    gc.collect()

    assert {("GET", "unmatched", "500"): 1} == counted(registry)
    assert request_context.get() is None
