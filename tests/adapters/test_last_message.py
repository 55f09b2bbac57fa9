"""The last message of an ASGI response: what the server, the application or the client does while it is sent."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools

import anyio
import pytest
import trio
from anyio.lowlevel import checkpoint
from starlette.responses import StreamingResponse

import scaleobs
from support.exchanges import active, asgi, counted, finished, http_scope, log_lines

START = {"type": "http.response.start", "status": 201, "headers": []}
MORE = {"type": "http.response.body", "body": b"x", "more_body": True}
END = {"type": "http.response.body", "body": b"y"}
LAST = {
    "body": [START, END],
    "body after a part": [START, MORE, END],
    "pathsend": [START, {"type": "http.response.pathsend", "path": "/etc/hostname"}],
    "zerocopysend": [START, {"type": "http.response.zerocopysend", "file": 3}],
}
GONE = {"type": "http.disconnect"}
REQUEST = {"type": "http.request", "body": b"", "more_body": False}
OUTCOMES = ["plain", "logged", "sizes"]


class Server:
    """
    A server that reports a disconnect while it sends the last message, as hypercorn with trio and anycorn do.

    Args:
        error: raised by the last send instead.
        disconnects: whether `receive` returns the disconnect before the last `send` returns.
    """

    def __init__(self, *, error=None, disconnects=False):
        self.error, self.disconnects = error, disconnects
        self.is_over = None
        self.is_first = True

    async def receive(self):
        """Return the request, and then a disconnect at the end."""
        if self.is_first:
            self.is_first = False
            return REQUEST
        if self.is_over is None:
            self.is_over = anyio.Event()
        await self.is_over.wait()
        return GONE

    async def send(self, message):
        """Send a message; the last one takes a while."""
        await checkpoint()
        is_last = message["type"] != "http.response.start" and not message.get("more_body")
        if is_last and self.error is not None:
            raise self.error
        if is_last and self.is_over is not None:
            self.is_over.set()
        for _ in range(10 if is_last and self.disconnects else 1):
            await checkpoint()


async def watching(scope, receive, send):
    """Send the messages of the scope; a listener beside them cancels the last one if the client disconnects."""

    async def listen(cancel):
        while (await receive())["type"] != "http.disconnect":
            pass
        cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(listen, group.cancel_scope.cancel)
        await checkpoint()
        for message in scope["messages"]:
            await send(message)
        group.cancel_scope.cancel()


async def sending(scope, receive, send):
    """Send the messages of the scope."""
    for message in scope["messages"]:
        await send(message)


@pytest.fixture(params=OUTCOMES)
def observed(request, registry):
    """Return a function that instruments an application, which has served so that the plain one takes the fast path."""
    settings = {"log_format": "off" if request.param == "plain" else "json"}

    def instrumented(app):
        app = scaleobs.instrument(
            functools.partial(app), registry=registry, size_histograms=request.param == "sizes", **settings
        )
        asgi(app, messages=[START, END])
        assert (request.param != "sizes") is scaleobs.observer_of(app)._service.storage.fast_path[0]
        return app

    return instrumented


def statuses(registry):
    """Return how many requests had each status, without the first one."""
    found = {status: count for (_, _, status), count in counted(registry).items()}
    found["201"] -= 1
    assert 0 == active(registry)
    return {status: count for status, count in found.items() if count}


def run(backend, app, server, messages):
    """Serve one request on an event loop; return the error."""

    async def serve():
        try:
            await app(http_scope(messages=messages), server.receive, server.send)
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError | trio.Cancelled):
                raise
            return error
        return None

    return anyio.run(serve, backend=backend)


@pytest.mark.parametrize("messages", LAST.values(), ids=LAST)
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_listener_that_cancels_the_last_send_does_not_make_it_a_500(backend, messages, observed, registry, capsys):
    """A disconnect while the last byte is on its way ends the request with the status that was sent, untruncated."""
    app = observed(watching)
    capsys.readouterr()

    assert run(backend, app, Server(disconnects=True), messages) is None
    assert {"201": 1} == statuses(registry)
    for line in log_lines(capsys):
        assert ("request.finished", "info", 201) == (line["event"], line["level"], line["status_code"])
        assert "truncated" not in line


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_starlette_stream_is_not_a_500_if_the_server_disconnects_early(backend, observed, registry, capsys):
    """Starlette watches for a disconnect beside its stream, and cancels the last send."""

    async def app(scope, receive, send):
        scope["asgi"] = {"spec_version": "2.3"}  # With 2.4 it relies on errors of `send`.
        response = StreamingResponse(iter([b"x", b"y"]), status_code=201)
        await response(scope, receive, send)

    app = observed(app)
    capsys.readouterr()

    assert run(backend, app, Server(disconnects=True), []) is None
    assert {"201": 1} == statuses(registry)
    assert all(201 == line["status_code"] for line in finished(capsys))


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_timeout_of_the_application_cuts_the_last_send(backend, observed, registry):
    """A last send that the application cancels for another reason than a disconnect is a cut response: 500."""

    async def app(scope, receive, send):
        with anyio.CancelScope() as scope_of_sends:
            await send(START)
            if "messages" not in scope:
                scope_of_sends.cancel()
            await send(END)

    app = observed(app)

    async def serve():
        await app(http_scope(), Server().receive, Server().send)

    anyio.run(serve, backend=backend)

    assert {"500": 1} == statuses(registry)


@pytest.mark.parametrize("messages", LAST.values(), ids=LAST)
@pytest.mark.parametrize(
    ("error", "status"), [(RuntimeError("shorter than Content-Length"), "500"), (BrokenPipeError("gone"), "201")]
)
def test_last_message_that_the_server_refuses_is_counted_alike(error, status, messages, observed, registry, capsys):
    """A refused response is a 500, and one whose client is gone has the sent status, whether or not logs are on."""
    app = observed(sending)
    capsys.readouterr()

    assert error is run("asyncio", app, Server(error=error), messages)
    assert {status: 1} == statuses(registry)
    assert all([int(status)] == [line["status_code"]] for line in finished(capsys))


def test_refused_last_message_that_the_application_handles_is_a_500(observed, registry):
    """An application that catches the server's error has not answered."""

    async def app(scope, receive, send):
        try:
            await sending(scope, receive, send)
        except RuntimeError:
            return

    assert run("asyncio", observed(app), Server(error=RuntimeError("refused")), [START, END]) is None
    assert {"500": 1} == statuses(registry)


def test_last_message_is_counted_when_it_is_sent(observed, registry):
    """While the last message is on its way the request is open; afterwards it is counted, however long the task."""
    seen = []

    class Watching(Server):
        async def send(self, message):
            seen.append(active(registry))
            await super().send(message)

    async def app(scope, receive, send):
        await sending(scope, receive, send)
        seen.append(active(registry))

    app = observed(app)
    del seen[:]

    assert run("asyncio", app, Watching(), [START, END]) is None
    assert [1, 1, 0] == seen


@pytest.mark.parametrize("error", [(FileNotFoundError,), (IsADirectoryError,), (OSError, errno.EMFILE, "", "/x")])
@pytest.mark.parametrize("messages", [LAST["pathsend"], LAST["zerocopysend"]], ids=["pathsend", "zerocopysend"])
def test_file_that_the_server_can_not_send_is_a_500(messages, error, observed, registry, capsys):
    """An error of the file is an error of the service, unlike other ones that the operating system reports."""
    app = observed(sending)
    kind, *arguments = error
    error = kind(*arguments)
    capsys.readouterr()

    assert error is run("asyncio", app, Server(error=error), messages)
    assert {"500": 1} == statuses(registry)
    assert all(500 == line["status_code"] and line["exception"] for line in finished(capsys))


class Refusing(Server):
    """A server that refuses the start of a response if a header is malformed, as hypercorn does."""

    def __init__(self):
        super().__init__()
        self.starts = []

    async def send(self, message):
        """Refuse the start, or a second one."""
        if message["type"] == "http.response.start":
            if not all(isinstance(value, bytes) for _, value in message["headers"]):
                raise TypeError("a header")
            if self.starts:
                raise RuntimeError("started twice")
            self.starts.append(message)
        await super().send(message)


@pytest.mark.parametrize("is_first_refused", [True, False])
def test_start_that_the_server_refuses_is_not_what_the_client_sees(is_first_refused, observed, registry, capsys):
    """An application replaces a start that the server has refused; one that was sent can't be replaced."""
    header = (b"name", "text" if is_first_refused else b"bytes")
    first, second = {**START, "status": 202, "headers": [header]}, {**START, "status": 503}

    async def app(scope, receive, send):
        for message in scope["messages"]:
            with contextlib.suppress(TypeError, RuntimeError):
                await send(message)

    server, app = Refusing(), observed(app)
    capsys.readouterr()

    assert run("asyncio", app, server, [first, second, END]) is None
    assert {str(server.starts[0]["status"]): 1} == statuses(registry)
    for line in finished(capsys):
        assert line["status_code"] == server.starts[0]["status"]
        assert (b"x-request-id", line["request_id"].encode()) in server.starts[0]["headers"]


@pytest.mark.parametrize("kind", ["push", "early_hint", "trailers"])
@pytest.mark.parametrize("before", [[START], [START, MORE]])
def test_client_gone_during_another_message_counts_as_sent(before, kind, observed, registry):
    """After the start of the response, a disconnected client leaves the sent status at any message."""
    app = observed(sending)

    class Gone(Server):
        async def send(self, message):
            if message["type"].endswith(kind):
                raise ConnectionResetError

    error = run("asyncio", app, Gone(), [*before, {"type": f"http.response.{kind}"}])

    assert isinstance(error, ConnectionResetError)
    assert {"201": 1} == statuses(registry)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_client_gone_at_the_start_inside_a_task_group_is_499(backend, observed, registry):
    """The server's error is found in the group that a task group makes of it, too."""

    async def app(scope, receive, send):
        async with anyio.create_task_group() as group:
            for message in scope["messages"]:
                group.start_soon(send, message)

    class Gone(Server):
        async def send(self, message):
            raise ConnectionResetError

    app = observed(app)
    error = run(backend, app, Gone(), [START])

    assert isinstance(error, BaseExceptionGroup)
    assert {"499": 1} == statuses(registry)


def test_size_of_a_file_that_is_sent_without_a_copy(registry, tmp_path):
    """The size of a response includes the part of a file that `zerocopysend` sends."""
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    parts = [{"offset": 4, "more_body": True}, {"offset": 0, "count": 3, "more_body": True}, {"count": 99}, {}]

    async def app(scope, receive, send):
        await send(START)
        with path.open("rb") as file:
            for part in parts:
                await send({"type": "http.response.zerocopysend", "file": file, "more_body": True, **part})
            await send({"type": "http.response.zerocopysend", "file": file.fileno()})

    asgi(scaleobs.instrument(app, registry=registry, size_histograms=True))
    labels = {"method": "GET", "route": "unmatched"}
    total = sum(
        sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name == "http_response_size_bytes_sum" and labels.items() <= sample.labels.items()
    )

    assert 6 + 3 + 10 + 10 + 10 == total
