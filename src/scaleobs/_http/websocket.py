"""
One WebSocket of ASGI, from its handshake to any kind of close.

A handshake that is answered by HTTP is a request, with the method GET: refused, denied, or failed before it was
accepted. An accepted WebSocket is counted when it closes.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any

from scaleobs._http import closed_websocket
from scaleobs._http.asgi_exchange import (
    ASGIApp,
    Handshake,
    Message,
    Receive,
    Scope,
    Send,
    body_length,
    client_of,
    with_id,
)
from scaleobs._http.exchange import COMPLETING, ENDED, OPEN
from scaleobs._http.recorder import Recorder
from scaleobs._metrics.child import WEBSOCKET
from scaleobs._tracing import RequestSpan
from scaleobs.logs._context import forget_request, request_context
from scaleobs.logs._handled import take_handled

_NORMAL, _NO_CODE, _ABNORMAL = 1000, 1005, 1006
_REFUSED = 403
"""The status of a handshake that is closed instead of accepted (ASGI, WebSocket)."""

_START, _BODY = "websocket.http.response.start", "websocket.http.response.body"
"""The messages of a response that denies a WebSocket."""


class WebSocket:
    """
    One WebSocket: counted while it is open and when it closes, with a span until then.

    What the application raises afterwards has failed in the background, as with HTTP: it is no error of the span. After
    the client has closed it, it is not logged either, since frameworks raise an exception for that.

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
        self._is_accepting = self._is_open = False
        self._opened: float | None = None
        self._abandoned: float | None = None
        self._sent_code: int | None = None
        self._handshake = handshake = Handshake()
        handshake.recorder = recorder
        handshake.request = scope
        handshake.shard = recorder.local.shard
        handshake.server_receive, handshake.server_send = receive, send
        handshake.stage = OPEN
        handshake.path = self._path
        handshake.client_disconnected = False
        handshake.status = handshake.pending_log_fields = None
        handshake.received, handshake.sent = 0 if recorder.storage.has_sizes else None, 0
        handshake.context, handshake.span = context, span
        handshake.begun = perf_counter()

    async def serve(self, app: ASGIApp, entered: Any = None) -> None:
        """Call the application, and afterwards make its span no longer the current one, by `entered`."""
        token = None if self._context is None else request_context.set(self._context)
        try:
            await app(self._scope, self._receive, self._send)
        except GeneratorExit:  # Garbage collection, perhaps in a finalizer: the next scrape ends it.
            entered = None
            self._abandoned = perf_counter()
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
                forget_request(token)

    def finish_abandoned(self) -> None:
        """The application was collected before it closed the WebSocket."""
        if self._abandoned is not None:  # Without this, its duration would include the time until that scrape.
            waited = perf_counter() - self._abandoned
            self._handshake.begun += waited
            self._opened = None if self._opened is None else self._opened + waited
        self._app_finished(_NO_CODE)

    async def _receive(self) -> Message:
        message = await self._server_receive()
        try:
            if message["type"] == "websocket.disconnect":
                self._disconnected(message.get("code"))
        except Exception:  # noqa: S110 - The application reports a malformed message.
            pass
        return message

    def _disconnected(self, code: object) -> None:
        if self._is_accepting:  # The accept was sent, but the server's `send` has not returned yet.
            self._open()
        if self._opened is not None:
            self._close(_number(code, _NO_CODE))
        elif self._handshake.stage == COMPLETING:
            self._handshake.finished()
        else:
            self._handshake.client_gone()

    async def _send(self, message: Message) -> None:
        try:
            kind, code, has_more = message["type"], message.get("code"), message.get("more_body")
            if kind == "websocket.accept" and self._opened is None and self._context is not None:
                message = with_id(message, self._recorder.ids, self._context)
            elif kind == _START:
                message = self._with_status(message)
        except Exception:  # The server reports a malformed message.
            kind = code = has_more = None
        if self._opened is not None:
            await self._send_to_open(message, _sent_number(code) if kind == "websocket.close" else None)
        elif self._handshake.stage == ENDED:
            await self._server_send(message)
        elif kind == "websocket.accept":
            await self._accept(message)
        elif kind == "websocket.close" and self._handshake.status is None:
            await self._refuse(message)
        elif kind in (_START, _BODY):
            await self._deny(message, is_start=kind == _START, is_last=kind == _BODY and not has_more)
        else:
            await self._server_send(message)

    def _with_status(self, message: Message) -> Message:
        """Keep the status of a denial, and return its start with `X-Request-ID`."""
        handshake = self._handshake
        if self._opened is not None or handshake.stage == ENDED or handshake.status is not None:
            return message
        handshake.status = message["status"]
        return message if self._context is None else with_id(message, self._recorder.ids, self._context)

    async def _accept(self, message: Message) -> None:
        self._is_accepting = True
        try:
            await self._server_send(message)
            self._open()
        except OSError:  # Servers raise it if the client disconnected (ASGI 2.4).
            self._handshake.client_gone()
            raise
        finally:
            self._is_accepting = False

    async def _refuse(self, message: Message) -> None:
        handshake = self._handshake
        handshake.status, handshake.stage = _REFUSED, COMPLETING
        try:
            await self._server_send(message)
        except BaseException as error:
            if handshake.stage != ENDED:
                handshake.status, handshake.stage = None, OPEN
                if issubclass(type(error), OSError):
                    handshake.client_gone()
            raise
        handshake.finished()

    async def _deny(self, message: Message, *, is_start: bool, is_last: bool) -> None:
        """Send a part of a response that denies the WebSocket."""
        handshake = self._handshake
        if is_last:
            handshake.stage = COMPLETING
        handshake.sent += body_length(message)
        try:
            await self._server_send(message)
        except BaseException as error:
            if handshake.stage != ENDED:
                handshake.stage = OPEN
                if is_start:  # It was not sent.
                    handshake.status = None
                if issubclass(type(error), OSError):
                    handshake.client_gone()
            raise
        if is_last:
            handshake.finished()

    async def _send_to_open(self, message: Message, close_code: int | None) -> None:
        if self._is_open and close_code is not None:
            # Before the server sends it: the answer of the client may be received first.
            self._sent_code = close_code
        try:
            await self._server_send(message)
        except BaseException as error:
            if close_code is not None:
                self._sent_code = None
            if issubclass(type(error), OSError):
                self._close(_ABNORMAL)
            raise
        if close_code is not None:
            self._close(close_code)

    def _open(self) -> None:
        if self._opened is None and self._handshake.stage != ENDED:
            self._handshake.stage = ENDED
            self._opened = perf_counter()
            self._is_open = True
            self._recorder.local.shard.open[WEBSOCKET] += 1

    def _app_finished(self, code: int, error: BaseException | None = None) -> None:
        """The application returned or raised."""
        if self._opened is None:
            self._handshake.app_finished(error)
        elif self._is_open:
            self._close(code, error)
        elif error is not None and self._sent_code is not None:
            closed_websocket.failed_later(self._recorder, self._scope, self._context, error)

    def _close(self, code: int, error: BaseException | None = None) -> None:
        """Count the WebSocket and write its line; a code that the application has sent replaces another one."""
        if not self._is_open or self._opened is None:
            return
        self._is_open = False
        recorder, sent_code = self._recorder, self._sent_code
        recorder.local.shard.open[WEBSOCKET] -= 1
        is_sent, code = sent_code is not None, code if sent_code is None else sent_code
        handled = take_handled(self._context, is_failed=code in closed_websocket.FAILURES)
        error = handled[1] if error is None and handled is not None else error
        fields = {**(self._context or {}), "path": self._path, "code": code, "client": client_of(self._scope)}
        seconds = perf_counter() - self._opened
        closed_websocket.count(recorder, self._scope, seconds, fields=fields, error=error, is_sent=is_sent)
        closed_websocket.end_span(self._span, recorder, self._scope, error)


def _number(code: object, default: int) -> int:
    return int(code) if isinstance(code, int) else default


def _sent_number(code: Any) -> int:
    """Return the code that a server sends for this one: some convert a text."""
    try:
        return int(code)
    except Exception:  # Missing, or any other object.
        return _NORMAL
