"""One WebSocket, from its handshake to any kind of close."""

from __future__ import annotations

from typing import Any

from scaleobs import logs
from scaleobs._http.asgi_exchange import Application, Message, Receive, Scope, Send, client_of, with_id
from scaleobs._http.recorder import Recorder
from scaleobs._metrics.child import WEBSOCKET
from scaleobs.tracing import RequestSpan

_NO_CODE = 1005
_ABNORMAL = 1006

_SWITCHED, _REFUSED, _FAILED = 101, 403, 500
"""What a handshake is answered with (ASGI, WebSocket): accepted, closed instead, and the application raised."""


class WebSocket:
    """
    One WebSocket: counted while it is open, one line when it closes, one span until the application has left.

    Args:
        recorder: what hears of it.
        context: what identifies it in every log line, or `None` where requests have none.
        span: its server span, or `None` where nobody traces.
        scope: as the server called, like the next two.
        receive: the server's.
        send: the server's.
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

    async def serve(self, app: Application, entered: Any = None) -> None:
        """Have the application serve it, and then end what `entered` began: that its span is the current one."""
        token = None if self._context is None else logs.request_context.set(self._context)
        try:
            await app(self._scope, self._receive, self._send)
        except GeneratorExit:  # It is being collected, perhaps in a finalizer, which may run in the middle of anything.
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
        """Note that the application was collected before it closed; the next scrape says so."""
        self._app_finished(_NO_CODE)

    async def _receive(self) -> Message:
        message = await self._server_receive()
        if message["type"] == "websocket.disconnect":
            self._close(message.get("code", _NO_CODE))
        return message

    async def _send(self, message: Message) -> None:
        kind = message.get("type")  # Where there is none, it is for the server to say.
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
        """Note that the application has left, with what it raised."""
        self._close(code, error)
        span, self._span = self._span, None
        if span is None:
            return
        try:
            status = _FAILED if error is not None else _SWITCHED if self._is_accepted else _REFUSED
            route, _ = self._recorder.routes.template(self._scope)
            sent = _SWITCHED if self._is_accepted else status
            span.ended("GET", route, status, sent)
            span.left(error)
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
