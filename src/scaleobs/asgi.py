"""ASGI told in the words of `exchange`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from time import perf_counter
from typing import Any, Unpack

from scaleobs import logs
from scaleobs.accesslog import AccessLine
from scaleobs.answers import Answer, Answers
from scaleobs.exchange import COMPLETING, ENDED, OPEN, SERVER_ERROR, Exchange, ToldExchange, is_first_to_see
from scaleobs.health import Report
from scaleobs.metrics.storage import Storage
from scaleobs.observer import Observer
from scaleobs.settings import Arguments

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_LONGEST_CHAIN = 100
_MOST_ROOTS = 16

_HELD_SECONDS = 0.002
"""How long a page may hold the event loop, plus the millisecond that a piece of it takes."""


class _Watched(Exchange):
    """A request whose messages are watched on their way."""

    __slots__ = ("server_receive", "server_send")

    server_receive: Receive
    server_send: Send

    async def receive(self) -> Message:
        message = await self.server_receive()
        # Servers say this too when an answer is complete, perhaps before its last `send` has returned.
        if self.stage == OPEN:
            try:
                if message["type"] == "http.disconnect":
                    self.client_gone()
            except Exception:  # noqa: S110 - What is wrong with it is for the application to say.
                pass
        return message

    def send(self, message: Message) -> Awaitable[None]:
        try:
            kind = message["type"]
            if kind == "http.response.body":
                # A look for the key costs half of a call of get, and most last messages don't have it.
                if "more_body" in message and message["more_body"]:  # noqa: RUF019
                    return self._send_body(message)
                return self._send_last(message)
            if kind == "http.response.start":
                # Servers refuse a second one.
                if self.status is None:
                    self.status = message["status"]
            elif kind == "http.response.pathsend":
                return self._send_last(message)
        except Exception:  # noqa: S110 - What is wrong with it is for the server to say.
            pass
        return self.server_send(message)

    async def _send_body(self, message: Message) -> None:
        try:
            await self.server_send(message)
        except OSError:  # What a server says of a client that is gone (ASGI 2.4).
            self.client_gone()
            raise

    async def _send_last(self, message: Message) -> None:
        if self.stage == OPEN:
            self.stage = COMPLETING
        try:
            await self.server_send(message)
        except OSError:
            self.client_gone()
            raise
        if self.stage == COMPLETING:
            self.end(SERVER_ERROR if self.status is None else self.status)

    def raised(self, error: BaseException) -> None:
        """Note what the application raised."""
        if isinstance(error, GeneratorExit):  # It is being collected, perhaps in a finalizer.
            self.abandon()
            return
        if self.stage == OPEN and _comes_from(error, self.server_send):
            self.status = None  # A body would have ended it, so that this came of the start.
            self.client_gone()
        self.left(error)

    def collected(self) -> None:
        """Note that the application was collected in the middle of its answer."""
        if self.stage != ENDED:
            self.shard = self.recorder.here.shard
            self.left()


class _Told(ToldExchange, _Watched):
    """A request of which more is wanted."""

    __slots__ = ("line",)

    def traceparent(self) -> str:
        return _header(self.request, b"traceparent")


class _Measured(_Told):
    """A request whose bodies are measured, too."""

    __slots__ = ("received", "sent")

    received: int
    sent: int

    async def receive(self) -> Message:
        message = await super().receive()
        self.received += _body_length(message)
        return message

    def send(self, message: Message) -> Awaitable[None]:
        self.sent += _body_length(message)
        return super().send(message)

    def sizes(self) -> tuple[int, int]:
        declared = _header(self.request, b"content-length")
        return (int(declared) if declared.isdecimal() else self.received), self.sent


class ASGIMiddleware:
    """
    Observes an ASGI application, and answers the four endpoints in front of it.

    What the application receives, sends and raises stays as it is.

    Args:
        app: the application.
        observer: what it is observed by; made from the settings where it is not given.
        settings: as for `instrument`.
    """

    def __init__(self, app: Application, *, observer: Observer | None = None, **settings: Unpack[Arguments]) -> None:
        self.app = app
        self.observer = Observer(**settings) if observer is None else observer
        self._recorder = self.observer.recorder_for(app, method="method")
        self._endpoints = dict(self.observer.answers.endpoints)
        self.serve = self._serving()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        await self.serve(scope, receive, send)

    def _serving(self) -> Application:
        """Return the function that serves; calling it costs a fifth less than calling an object."""
        app, observer, recorder, endpoints = self.app, self.observer, self._recorder, self._endpoints
        here = recorder.here

        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            if not observer.is_plain or scope["type"] != "http" or scope["path"] in endpoints:
                await self._serve_other(scope, receive, send)
                return
            shard = here.shard
            shard.opened += 1
            exchange = _Watched()
            exchange.recorder = recorder
            exchange.request = scope
            exchange.shard = shard
            exchange.server_receive = receive
            exchange.server_send = send
            exchange.stage = OPEN
            exchange.status = None
            exchange.begun = perf_counter()
            try:
                await app(scope, exchange.receive, exchange.send)
            except BaseException as error:
                exchange.raised(error)
                raise
            if exchange.stage != ENDED:
                exchange.left()

        serve.app = app  # type: ignore[attr-defined] # Who looks for a middleware goes from one `app` to the next.
        return serve

    async def _serve_other(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve what is not an HTTP request that is counted and nothing more."""
        kind = scope["type"]
        if kind == "http":
            self.observer.request_seen(_header(scope, b"traceparent"))
            endpoint = self._endpoint(scope)
            if endpoint is not None:
                await _deliver(await self._answer(endpoint, scope), scope, send)
            elif is_first_to_see(scope, self.observer.storage):
                await self._http(scope, receive, send)
            else:
                await self.app(scope, receive, send)
        elif kind == "websocket" and is_first_to_see(scope, self.observer.storage):
            await self._websocket(scope, receive, send)
        elif kind == "lifespan":
            await self._lifespan(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        shard = self._recorder.here.shard
        shard.opened += 1
        exchange = _Told()
        if self.observer.storage.has_sizes:
            exchange = _Measured()
            exchange.received = exchange.sent = 0
        exchange.recorder = self._recorder
        exchange.request = scope
        exchange.shard = shard
        exchange.server_receive = receive
        exchange.server_send = send
        exchange.stage = OPEN
        exchange.status = exchange.line = None
        exchange.begun = perf_counter()
        token = None
        if self._recorder.log.writes_lines:
            context = self._context(scope)
            address = {"method": scope.get("method", ""), "path": scope["path"], "client": _client(scope)}
            exchange.line = AccessLine(self._recorder.log, context, **address)
            token = logs.request_context.set(context)
        try:
            await self.app(scope, exchange.receive, exchange.send)
        except BaseException as error:
            exchange.raised(error)
            raise
        else:
            exchange.left()
        finally:
            if token is not None:
                logs.forget_request(token)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        context = self._context(scope)
        is_open = False

        def close(code: int) -> None:
            nonlocal is_open
            if is_open:
                is_open = False
                self._recorder.here.shard.websockets -= 1
                self._tell_of_websocket(scope, code, context)

        async def watched_receive() -> Message:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                close(message.get("code", 1005))
            return message

        async def watched_send(message: Message) -> None:
            nonlocal is_open
            await send(message)
            if message["type"] == "websocket.accept" and not is_open:
                is_open = True
                self._recorder.here.shard.websockets += 1
            elif message["type"] == "websocket.close":
                close(message.get("code", 1000))

        end: Callable[[int], None] = close
        token = logs.request_context.set(context)
        try:
            await self.app(scope, watched_receive, watched_send)
        except GeneratorExit:  # It is being collected, perhaps in a finalizer.
            end = _Collected(close, self.observer.storage).leave_word
            raise
        finally:
            end(1006)
            logs.forget_request(token)

    def _tell_of_websocket(self, scope: Scope, code: int, context: dict[str, str]) -> None:
        try:
            route, _ = self._recorder.routes.template(scope)
            fields = {"route": route, "path": scope["path"], "code": code, "client": _client(scope)}
            self._recorder.log.websocket_closed(**fields, **context)
        except Exception as error:
            self._recorder.fault(error)

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        lifecycle = self.observer.lifecycle
        self.observer.begin_starting()

        async def watched_receive() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                lifecycle.lifespan_stopping()
            return message

        async def watched_send(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                lifecycle.lifespan_started()
            elif message["type"] == "lifespan.startup.failed":
                lifecycle.lifespan_failed()
            await send(message)

        try:
            await self.app(scope, watched_receive, watched_send)
        finally:
            lifecycle.lifespan_left()

    def _endpoint(self, scope: Scope) -> str | None:
        # A server under a prefix, or a mount, is under the same one for ever: it is learnt from the first request.
        # Of a mount whose path has parameters, clients make up as many as they like.
        root, known = scope.get("root_path"), self.observer.answers.endpoints
        if root and len(self._endpoints) <= _MOST_ROOTS * len(known):
            self._endpoints.update({root + path: kind for path, kind in known.items()})
        return self._endpoints.get(scope["path"])

    async def _answer(self, endpoint: str, scope: Scope) -> Answer:
        if scope["method"] not in ("GET", "HEAD"):
            return Answers.not_allowed()
        if endpoint == "metrics":
            return self.observer.metrics(
                accept=_header(scope, b"accept"),
                accept_encoding=_header(scope, b"accept-encoding"),
                query=scope.get("query_string", b"").decode("latin-1"),
            )
        report = Report(is_up=True) if endpoint == "live" else await self.observer.checks.report_async(endpoint)
        return self.observer.probe(endpoint, report)

    def _context(self, scope: Scope) -> dict[str, str]:
        return self.observer.request_context(_header(scope, b"x-request-id"), _header(scope, b"traceparent"))


class _Collected:
    """A WebSocket whose application was collected before it closed; the next scrape notes it, as for `Exchange`."""

    def __init__(self, close: Callable[[int], None], storage: Storage) -> None:
        self._close = close
        self._storage = storage
        self._code = 1005

    def leave_word(self, code: int) -> None:
        self._code = code
        self._storage.abandoned.append(self)

    def collected(self) -> None:
        self._close(self._code)


async def _deliver(answer: Answer, scope: Scope, send: Send) -> None:
    headers = answer.headers
    if answer.rest is None:
        headers = [*headers, ("Content-Length", str(len(answer.body)))]
    encoded = [(name.lower().encode(), value.encode()) for name, value in headers]
    await send({"type": "http.response.start", "status": answer.status, "headers": encoded})
    if scope["method"] == "HEAD":
        await send({"type": "http.response.body", "body": b""})
        return
    if answer.rest is None:
        await send({"type": "http.response.body", "body": answer.body})
        return
    await send({"type": "http.response.body", "body": answer.body, "more_body": True})
    held_since = perf_counter()
    for piece in answer.rest:
        if piece:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        if perf_counter() - held_since > _HELD_SECONDS:
            await _let_others_run()
            held_since = perf_counter()
    await send({"type": "http.response.body", "body": b""})


async def _let_others_run() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:  # Another event loop than asyncio's, such as trio's: the next `send` gives way.
        return
    await asyncio.sleep(0)


def _comes_from(error: BaseException | None, send: Send) -> bool:
    """Return whether an error is an OSError of the server's `send`, or comes of one: the client is gone (ASGI 2.4)."""
    code = getattr(getattr(send, "__func__", send), "__code__", None)
    seen = 0
    while error is not None and code is not None and seen < _LONGEST_CHAIN:
        frames = error.__traceback__ if isinstance(error, OSError) else None
        while frames is not None:
            if frames.tb_frame.f_code is code:
                return True
            frames = frames.tb_next
        error, seen = error.__cause__ or error.__context__, seen + 1
    return False


def _body_length(message: Message) -> int:
    """Return how many bytes a message carries; a file that the server sends by itself is measured on disk."""
    try:
        if message["type"] == "http.response.pathsend":
            return Path(message["path"]).stat().st_size
        return len(message.get("body", b""))
    except Exception:  # What is wrong with it is for the server or the application to say.
        return 0


def _header(scope: Scope, wanted: bytes) -> str:
    try:
        headers = scope.get("headers", ())
        if not isinstance(headers, list | tuple):  # ASGI lets it be anything that can be iterated, perhaps once.
            scope["headers"] = headers = list(headers)
        return b", ".join(value for name, value in headers if name == wanted).decode("latin-1")
    except Exception:  # What is wrong with them is for the application to say.
        return ""


def _client(scope: Scope) -> str:
    try:
        return str(scope["client"][0])
    except Exception:  # A Unix socket has none.
        return ""
