"""One WebSocket, from its handshake to any kind of close."""

from __future__ import annotations

from typing import Any

from scaleobs import logs
from scaleobs._http.asgi_exchange import ASGIApp, Message, Receive, Scope, Send, client_of, with_id
from scaleobs._http.recorder import Recorder
from scaleobs._metrics.child import WEBSOCKET
from scaleobs._tracing import RequestSpan

_NO_CODE = 1005
_ABNORMAL = 1006

_SWITCHED, _REFUSED, _FAILED = 101, 403, 500
"""The status of a handshake (ASGI, WebSocket): accepted; closed instead; the application raised."""


class WebSocket:
    """
    One WebSocket: counted while it is open, logged when it closes, with a span until the application has finished.

    Args:
        recorder: counts it.
        context: its ids in every log line, or `None` if requests have no lines.
        span: its server span, or `None` without tracing.
        scope: from the server, as are the next two.
        receive: receives from the server.
        send: sends to the server.
    """

    def __init__(
        self,
        recorder: Recorder,
        context: dict[str, Any] | None,
        span: RequestSpan | None,
        *,
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        self._recorder = recorder
        self._context = context
        self._span = span
        self._scope = scope
        self._path = scope["path"]
        self._server_receive = receive
        self._server_send = send
        self._is_accepted = self._is_open = False

    async def serve(self, app: ASGIApp, entered: Any = None) -> None:
        """Call the application, and afterwards make its span no longer the current one, by `entered`."""
        token = None if self._context is None else logs.request_context.set(self._context)
        try:
            await app(self._scope, self._receive, self._send)
        except GeneratorExit:  # Garbage collection, perhaps in a finalizer: the next scrape ends it.
            entered = None
            self._recorder.storage.abandoned.append(self)
            raise
        except BaseException as error:
            self._app_finished(_ABNORMAL, error)
            raise
        else:
            self._app_finished(_ABNORMAL)
        finally:
            RequestSpan.leave(entered)
            if token is not None:
                logs.forget_request(token)

    def finish_abandoned(self) -> None:
        """The application was collected before it closed the WebSocket."""
        self._app_finished(_NO_CODE)

    async def _receive(self) -> Message:
        message = await self._server_receive()
        if message["type"] == "websocket.disconnect":
            self._close(message.get("code", _NO_CODE))
        return message

    async def _send(self, message: Message) -> None:
        kind = message.get("type")  # The server reports a message without one.
        is_first = kind == "websocket.accept" and not self._is_accepted
        if is_first and self._context is not None:
            message = with_id(message, self._context)
        await self._server_send(message)
        if is_first:
            self._is_accepted = self._is_open = True
            self._recorder.local.shard.open[WEBSOCKET] += 1
        elif kind == "websocket.close":
            self._close(message.get("code", 1000))

    def _app_finished(self, code: int, error: BaseException | None = None) -> None:
        """The application returned or raised."""
        self._close(code, error)
        span, self._span = self._span, None
        if span is None:
            return
        try:
            status = _FAILED if error is not None else _SWITCHED if self._is_accepted else _REFUSED
            route, _ = self._recorder.routes.template(self._scope)
            sent = _SWITCHED if self._is_accepted else status
            span.response_ended("GET", route, status, sent)
            span.app_finished(error)
        except Exception as fault:
            self._recorder.fault(fault)

    def _close(self, code: Any, error: BaseException | None = None) -> None:
        if not self._is_open:
            return
        self._is_open = False
        self._recorder.local.shard.open[WEBSOCKET] -= 1
        try:
            route, _ = self._recorder.routes.template(self._scope)
            fields = {"route": route, "path": self._path, "code": code, "client": client_of(self._scope)}
            self._recorder.log.websocket_closed({**(self._context or {}), **fields}, error)
        except Exception as fault:
            self._recorder.fault(fault)
