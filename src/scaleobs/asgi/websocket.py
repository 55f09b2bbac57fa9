"""One WebSocket, from accept to any kind of close."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from scaleobs import logs
from scaleobs.asgi.protocol import Application, Message, Receive, Scope, Send, client_of
from scaleobs.metrics.shard import WEBSOCKET
from scaleobs.recorder import Recorder

_NO_CODE = 1005
_CUT = 1006


class WebSocket:
    """
    One WebSocket, counted while it is open.

    Args:
        recorder: what hears of it.
        context: what identifies it in every log line.
        scope: as the server called, like the next two.
        receive: the server's.
        send: the server's.
    """

    def __init__(
        self, recorder: Recorder, context: dict[str, str], scope: Scope, *, receive: Receive, send: Send
    ) -> None:
        self._recorder = recorder
        self._context = context
        self._scope = scope
        self._server_receive = receive
        self._server_send = send
        self._is_open = False

    async def serve(self, app: Application) -> None:
        """Have the application serve it."""
        end: Callable[[int], None] = self._close
        token = logs.request_context.set(self._context)
        try:
            await app(self._scope, self._receive, self._send)
        except GeneratorExit:  # It is being collected, perhaps in a finalizer.
            end = self._abandon
            raise
        finally:
            end(_CUT)
            logs.forget_request(token)

    def collected(self) -> None:
        """Note that the application was collected before it closed."""
        self._close(_NO_CODE)

    async def _receive(self) -> Message:
        message = await self._server_receive()
        if message["type"] == "websocket.disconnect":
            self._close(message.get("code", _NO_CODE))
        return message

    async def _send(self, message: Message) -> None:
        await self._server_send(message)
        if message["type"] == "websocket.accept" and not self._is_open:
            self._is_open = True
            self._recorder.here.shard.open[WEBSOCKET] += 1
        elif message["type"] == "websocket.close":
            self._close(message.get("code", 1000))

    def _close(self, code: Any) -> None:
        if not self._is_open:
            return
        self._is_open = False
        self._recorder.here.shard.open[WEBSOCKET] -= 1
        try:
            route, _ = self._recorder.routes.template(self._scope)
            fields = {"route": route, "path": self._scope["path"], "code": code, "client": client_of(self._scope)}
            self._recorder.log.websocket_closed(**fields, **self._context)
        except Exception as error:
            self._recorder.fault(error)

    def _abandon(self, _: int) -> None:
        # A finalizer may run in the middle of anything, so it only leaves word; the next scrape calls `collected`.
        self._recorder.storage.abandoned.append(self)
