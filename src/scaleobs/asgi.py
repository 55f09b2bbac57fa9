"""ASGI told in the words of `exchange`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Unpack

from scaleobs import logs, routes
from scaleobs.answers import Answer, Answers
from scaleobs.exchange import Exchange, is_first_to_see
from scaleobs.health import Report
from scaleobs.observer import Observer
from scaleobs.settings import Arguments

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


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
        self._endpoints = self.observer.answers.endpoints
        self._routing_app = routes.routing_app(app)
        routes.watch_framework(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        kind = scope["type"]
        if kind == "http":
            self.observer.request_seen()
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
        context = self._context(scope)
        exchange = Exchange(
            self.observer.recorder,
            method=scope["method"],
            path=scope["path"],
            client=_client(scope),
            context=context,
            find_route=routes.finder(scope, self._routing_app),
        )
        has_trailers = False
        is_complete = False

        async def watched_receive() -> Message:
            message = await receive()
            # Servers say this too when an answer is complete, perhaps before its last `send` has returned.
            if message["type"] == "http.disconnect" and not is_complete:
                exchange.client_gone()
            return message

        async def watched_send(message: Message) -> None:
            nonlocal has_trailers, is_complete
            kind = message["type"]
            is_complete = is_complete or _is_last(message, has_trailers=has_trailers)
            try:
                await send(message)
            except OSError:  # What a server says of a client that is gone (ASGI 2.4).
                exchange.client_gone()
                raise
            if kind == "http.response.start":
                exchange.response_started(message["status"])
                has_trailers = bool(message.get("trailers"))
            elif is_complete:
                exchange.finished()

        token = logs.request_context.set(context)
        try:
            await self.app(scope, watched_receive, watched_send)
        except BaseException as error:
            exchange.left(error)
            raise
        else:
            exchange.left()
        finally:
            logs.forget_request(token)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        context = self._context(scope)
        find_route = routes.finder(scope, self._routing_app)
        is_open = False

        def close(code: int) -> None:
            nonlocal is_open
            if is_open:
                is_open = False
                self.observer.recorder.websocket_closed(
                    find_route,
                    path=scope["path"],
                    code=code,
                    client=_client(scope),
                    **context,
                )

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
                self.observer.storage.opened("websocket")
            elif message["type"] == "websocket.close":
                close(message.get("code", 1000))

        token = logs.request_context.set(context)
        try:
            await self.app(scope, watched_receive, watched_send)
        finally:
            close(1006)
            logs.forget_request(token)

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
        path = scope["path"]
        if path in self._endpoints:
            return self._endpoints[path]
        root = scope.get("root_path")
        return self._endpoints.get(path[len(root) :]) if root and path.startswith(root) else None

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


async def _deliver(answer: Answer, scope: Scope, send: Send) -> None:
    length = str(len(answer.body))
    headers = [(name.lower().encode(), value.encode()) for name, value in [*answer.headers, ("Content-Length", length)]]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else answer.body})


def _is_last(message: Message, *, has_trailers: bool) -> bool:
    kind = message["type"]
    if kind == "http.response.body":
        return not message.get("more_body", False) and not has_trailers
    if kind == "http.response.trailers":
        return not message.get("more_trailers", False)
    return bool(kind == "http.response.pathsend")


def _header(scope: Scope, wanted: bytes) -> str:
    values = [value for name, value in scope.get("headers", ()) if name == wanted]
    return b", ".join(values).decode("latin-1")


def _client(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""
