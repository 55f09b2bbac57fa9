"""The ASGI middleware: serves a connection, or answers an endpoint."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from time import perf_counter
from typing import Any, Unpack

from scaleobs._http.answer import Answer
from scaleobs._http.asgi_exchange import (
    ASGIApp,
    DetailedHTTPExchange,
    HTTPExchange,
    Message,
    Receive,
    Scope,
    Send,
    attributes_of,
    context_of,
    header_of,
    traceparent_of,
)
from scaleobs._http.exchange import ENDED, OPEN
from scaleobs._http.websocket import WebSocket
from scaleobs._management import PortError
from scaleobs._metrics import runtime
from scaleobs._metrics.scrapes import WAIT, ScrapeDropped
from scaleobs._routes import around
from scaleobs._tracing import RequestSpan, mark
from scaleobs._trio import running_trio
from scaleobs.logs._context import forget_request, request_context
from scaleobs.observer import Observer
from scaleobs.settings import Arguments

_MAX_ROOTS = 16


class ASGIMiddleware:
    """
    Observes an ASGI application, and answers the four endpoints in front of it.

    The application receives, sends and raises the same as without it. Apart from the observer, all state of a request
    is in its exchange.

    Args:
        app: the application.
        observer: by default, a new one with the settings.
        settings: as for `instrument`.
    """

    def __init__(self, app: ASGIApp, *, observer: Observer | None = None, **settings: Unpack[Arguments]) -> None:
        self.observer: Observer = Observer(**settings) if observer is None else observer
        self._service = self.observer._service
        self._recorder = self._service.recorder_for(app, method="method")
        self.app: ASGIApp = around(self._recorder.routes, app)
        self._endpoints = dict(self._service.answers.endpoints)
        self._roots: set[str | None] = set()
        self.serve: ASGIApp = self._logged_fast_path() if self._recorder.log.writes_lines else self._fast_path()
        self._service.on_loaded(has_lifespan=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        await self.serve(scope, receive, send)

    def _fast_path(self) -> ASGIApp:
        """Return the function that serves; a call of it costs a fifth less than a call of an object."""
        app, recorder, endpoints, roots = self.app, self._recorder, self._endpoints, self._roots
        local, storage = recorder.local, recorder.storage
        fast_path, unexamined = storage.fast_path, storage.unexamined

        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            if (
                not fast_path[0]
                or scope["type"] != "http"
                or scope["path"] in endpoints
                or (roots and scope.get("root_path") not in roots)
                or (unexamined and storage.examine(traceparent_of(scope)))
            ):
                await self._serve_other(scope, receive, send)
                return
            shard = local.shard
            shard.open[0] += 1
            exchange = HTTPExchange()
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
                exchange.app_finished()

        def memory_changed() -> None:
            nonlocal fast_path
            fast_path = storage.fast_path

        recorder.on_memory_changed = memory_changed
        serve.app = app  # type: ignore[attr-defined] # Other tools follow `app` to find a middleware.
        return serve

    def _logged_fast_path(self) -> ASGIApp:
        """Return the same for requests with a line."""
        app, recorder, endpoints, roots = self.app, self._recorder, self._endpoints, self._roots
        local, storage, ids = recorder.local, recorder.storage, recorder.ids
        fast_path = storage.fast_path
        # A call of a bound method from a local name costs half of one through its attributes.
        begin, end = request_context.set, request_context.reset

        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            if (
                not fast_path[0]
                or scope["type"] != "http"
                or scope["path"] in endpoints
                or (roots and scope.get("root_path") not in roots)
            ):
                await self._serve_other(scope, receive, send)
                return
            shard = local.shard
            shard.open[0] += 1
            exchange = DetailedHTTPExchange()
            exchange.recorder = recorder
            exchange.request = scope
            exchange.shard = shard
            exchange.server_receive = receive
            exchange.server_send = send
            exchange.stage = OPEN
            exchange.path = scope["path"]
            exchange.client_disconnected = False
            exchange.status = exchange.pending_log_fields = exchange.span = exchange.received = None
            exchange.begun = perf_counter()
            exchange.context = context = context_of(scope, ids)
            if "trace_id" in context and storage.awaits_trace:
                storage.enable_exemplars()
            token = begin(context)
            try:
                await app(scope, exchange.receive, exchange.send)
            except BaseException as error:
                exchange.raised(error)
                raise
            else:
                exchange.app_finished()
            finally:
                try:  # noqa: SIM105
                    end(token)
                except ValueError:  # See `forget_request`, whose call would cost as much.
                    pass

        def memory_changed() -> None:
            nonlocal fast_path
            fast_path = storage.fast_path

        recorder.on_memory_changed = memory_changed
        serve.app = app  # type: ignore[attr-defined]
        return serve

    async def _serve_other(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve everything that does not take the fast path."""
        kind = scope["type"]
        loop = asyncio._get_running_loop()  # noqa: SLF001
        is_watched = runtime.watched is not None and runtime.watched() is loop
        if not is_watched and not runtime.watch(self._service.fault):
            self._recorder.reports.loop_unknown()
        if kind in {"http", "websocket"}:
            self._service.on_first_traffic()
        if kind == "http":
            endpoint = self._endpoint(scope)
            if endpoint is not None:
                await deliver(await self._answer(endpoint, scope), scope, send)
                return
            if self._service.drain.is_begun:
                send = last_on_connection(scope, send)
            self._service.choose_path(header_of(scope, b"traceparent"))
            claim = self._recorder.claim(scope)
            if claim is None:
                await self.app(scope, receive, send)
                return
            with claim:
                await self._http(scope, receive, send)
        elif kind == "websocket" and self._recorder.claim(scope):
            context = context_of(scope, self._recorder.ids) if self._recorder.log.writes_lines else None
            span, entered = self._begin_span(scope, context)
            connection = WebSocket(self._recorder, context, span, scope=scope, receive=receive, send=send)
            await connection.serve(self.app, entered)
        elif kind == "lifespan":
            await self._lifespan(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        recorder = self._recorder
        shard = recorder.local.shard
        shard.open[0] += 1
        exchange = DetailedHTTPExchange()
        exchange.received, exchange.sent = 0 if recorder.storage.has_sizes else None, 0
        exchange.recorder = recorder
        exchange.request = scope
        exchange.shard = shard
        exchange.server_receive = receive
        exchange.server_send = send
        exchange.stage = OPEN
        exchange.path = scope["path"]
        exchange.client_disconnected = False
        exchange.status = exchange.pending_log_fields = exchange.context = exchange.span = None
        exchange.begun = perf_counter()
        token = entered = None
        if recorder.log.writes_lines:
            exchange.context = context_of(scope, recorder.ids)
            token = request_context.set(exchange.context)
        if not recorder.storage.fast_path[0]:
            exchange.span, entered = self._begin_span(scope, exchange.context)
        try:
            await self.app(scope, exchange.receive, exchange.send)
        except BaseException as error:
            exchange.raised(error)
            if issubclass(type(error), GeneratorExit):  # It is collected in another context than the one it entered.
                entered = None
            raise
        else:
            exchange.app_finished()
        finally:
            if exchange.span is not None:
                exchange.span.leave(entered)
            if token is not None:
                forget_request(token)

    def _begin_span(self, scope: Scope, context: dict[str, Any] | None) -> tuple[RequestSpan | None, Any]:
        """Begin the server span of a request if it has one; return it, and the token that ends its being current."""

        def header(name: str) -> str:
            return header_of(scope, name.lower().encode("latin-1"))

        span = entered = None
        try:
            span = self._recorder.spans.begin(header, partial(attributes_of, scope, header))
            if span is not None:
                if context is not None:
                    context.update(trace_id=span.ids.trace_id, span_id=span.ids.span_id)
                mark(scope)
                entered = span.enter()
        except Exception as error:
            self._recorder.fault(error)
        return span, entered

    async def _lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        on_lifespan = self._service.on_lifespan
        try:
            on_lifespan("opened")
        except PortError as error:
            on_lifespan("failed")
            await receive()
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return

        async def observed_receive() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                on_lifespan("stopping")
            return message

        async def observed_send(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                on_lifespan("started")
            elif message["type"] == "lifespan.startup.failed":
                on_lifespan("failed")
            elif message["type"].startswith("lifespan.shutdown."):
                on_lifespan("stopped")
            await send(message)

        try:
            await self.app(scope, observed_receive, observed_send)
        finally:
            on_lifespan("left")

    def _endpoint(self, scope: Scope) -> str | None:
        # The path may start with a prefix of the server or of a mount. If a mount's path has parameters, clients can
        # invent any number of prefixes.
        root, path = scope.get("root_path") or "", scope["path"]
        if root in self._roots or len(self._roots) >= _MAX_ROOTS:
            return self._endpoints.get(path)
        if root:
            self._roots.update((None, "", root))
            for path_below, kind in self._service.answers.endpoints.items():
                self._endpoints.setdefault(root + path_below, kind)
        return self._endpoints.get(path)

    async def _answer(self, endpoint: str, scope: Scope) -> Answer:
        def header(name: str) -> str:
            return header_of(scope, name.encode())

        answers, method, report = self._service.answers, scope["method"], None
        if answers.needs_report(endpoint, method):
            report = await self._service.checks.report_async(endpoint)
        query = scope.get("query_string", b"").decode("latin-1")
        return answers.answer(endpoint, method, header, query=query, report=report, may_block=False)


def last_on_connection(scope: Scope, send: Send) -> Send:
    """
    Return a `send` whose response is the last one on its connection (RFC 9112, section 9.6); HTTP/2 has other means.

    A client that reuses its connection would send requests to this process even if it is not ready, and lose the
    request that it sends while the server closes the connection.
    """
    if not scope.get("http_version", "").startswith("1"):
        return send

    async def send_last(message: Message) -> None:
        with contextlib.suppress(Exception):  # The server reports a malformed message.
            if message["type"] == "http.response.start":
                headers = [one for one in message.get("headers", ()) if bytes(one[0]).lower() != b"connection"]
                message = {**message, "headers": [*headers, (b"connection", b"close")]}
        await send(message)

    return send_last


_BLOCKED_SECONDS = 0.002
"""How long all pages together may block the event loop, plus about one millisecond for a piece."""

_WAIT_SECONDS = 0.005

_delivered: set[object] = set()
"""The long answers that are sent now."""


async def deliver(answer: Answer, scope: Scope, send: Send) -> None:
    """Send an answer; between the pieces of a long one, other tasks of the event loop run."""
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
    own = object()
    _delivered.add(own)
    try:
        blocked_since = perf_counter()
        for piece in answer.rest:
            if piece:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            if piece is WAIT:
                await _yield_to_loop(_WAIT_SECONDS)
                blocked_since = perf_counter()
            elif perf_counter() - blocked_since > _BLOCKED_SECONDS / len(_delivered):
                await _yield_to_loop()
                blocked_since = perf_counter()
    except ScrapeDropped:  # The server closes the connection, since the response is not complete.
        return
    finally:
        _delivered.discard(own)
    await send({"type": "http.response.body", "body": b""})


async def _yield_to_loop(seconds: float = 0.0) -> None:
    if asyncio._get_running_loop() is not None:  # noqa: SLF001
        await asyncio.sleep(seconds)
        return
    trio = running_trio()
    if trio is not None:
        await trio.sleep(seconds)
