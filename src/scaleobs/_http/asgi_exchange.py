"""One HTTP request of ASGI: receives and sends in place of the server."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from scaleobs._http.exchange import COMPLETING, ENDED, OPEN, SERVER_ERROR, STREAMING, DetailedExchange, Exchange
from scaleobs.logs import new_context
from scaleobs.tracing import request_attributes

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


def header_of(scope: Scope, key: bytes) -> str:
    """Return a header, several of one name joined, and nothing where there is none."""
    try:
        headers = scope.get("headers", ())
        if not isinstance(headers, list | tuple):  # ASGI lets it be anything that can be iterated, perhaps once.
            scope["headers"] = headers = list(headers)
        return b", ".join(value for name, value in headers if name == key).decode("latin-1")
    except Exception:  # What is wrong with them is for the application to say.
        return ""


def traceparent_of(scope: Scope) -> str:
    """Return the `traceparent` header; in a fifth of the time that `header_of` takes if there is none."""
    try:
        headers = scope["headers"]
        if type(headers) is list and b"traceparent" not in dict(headers):
            return ""
    except Exception:  # noqa: S110 - See `header_of`.
        pass
    return header_of(scope, b"traceparent")


def client_of(scope: Scope) -> str:
    """Return the address of the client, as far as the server knows."""
    try:
        return str(scope["client"][0])
    except Exception:  # A Unix socket has none.
        return ""


def attributes_of(scope: Scope, header: Callable[[str], str]) -> dict[str, str | int]:
    """Return what a span says of a request that comes in."""
    return request_attributes(
        str(scope.get("method", "GET")),  # A WebSocket has none, and begins with a GET.
        scheme=str(scope.get("scheme", "http")),
        path=scope["path"],
        client=client_of(scope),
        version=str(scope.get("http_version", "")),
        header=header,
    )


_LONGEST_CHAIN = 100
_LENGTH_OF_NAME = len(b"x-request-id")


class HTTPExchange(Exchange):
    """A request that is counted and nothing more; its `receive` and `send` stand in for the server's."""

    __slots__ = ("server_receive", "server_send")

    server_receive: Receive
    server_send: Send

    async def receive(self) -> Message:
        """Receive from the server."""
        message = await self.server_receive()
        # Servers send this after a complete answer, too, perhaps before its last `send` has returned.
        if self.stage < COMPLETING:
            try:
                if message["type"] == "http.disconnect":
                    self.client_gone()
            except Exception:  # noqa: S110 - What is wrong with it is the application's to report.
                pass
        return message

    def send(self, message: Message) -> Awaitable[None]:
        """Return what sends a message to the server when awaited."""
        try:
            kind = message["type"]
            if kind == "http.response.body":
                # To test for the key costs half of a call of get, and most last messages don't have it.
                if "more_body" in message and message["more_body"]:  # noqa: RUF019
                    self.stage = max(self.stage, STREAMING)
                    return self._send_body(message)
                if self.stage != OPEN:
                    return self._send_last(message)
                # For an answer in one piece nothing is awaited, and a coroutine here would cost a tenth.
                self.end(SERVER_ERROR if self.status is None else self.status)
            if kind == "http.response.start":
                # Servers refuse a second one.
                if self.status is None:
                    self.status = message["status"]
            elif kind == "http.response.pathsend":
                return self._send_last(message)
        except Exception:  # noqa: S110 - What is wrong with it is the server's to report.
            pass
        return self.server_send(message)

    async def _send_body(self, message: Message) -> None:
        try:
            await self.server_send(message)
        except OSError:  # What a server raises if the client is gone (ASGI 2.4).
            self.client_gone()
            raise

    async def _send_last(self, message: Message) -> None:
        self.stage = max(self.stage, COMPLETING)
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
            self.mark_abandoned()
            return
        if self.stage < COMPLETING and _comes_from(error, self.server_send):
            self.status = None  # A body would have ended it, so that this came of the start.
            self.client_gone()
        self.app_finished(error)

    def finish_abandoned(self) -> None:
        """Note that the application was collected in the middle of its answer."""
        if self.stage != ENDED:
            self.shard = self.recorder.local.shard
            self.app_finished()


class DetailedHTTPExchange(DetailedExchange, HTTPExchange):
    """
    A request that has more than its count.

    Attributes:
        received: the bytes of the request's body that the application has read, `None` if bodies are not measured.
        sent: the bytes of the response's body, if they are.
    """

    __slots__ = ("received", "sent")

    received: int | None
    sent: int

    async def receive(self) -> Message:
        """Receive from the server."""
        message = await HTTPExchange.receive(self)
        if self.received is not None:
            self.received += _body_length(message)
        return message

    def send(self, message: Message) -> Awaitable[None]:
        """Return what sends a message to the server when awaited; an answer starts with its request's id."""
        if self.received is not None:
            self.sent += _body_length(message)
        try:
            is_start = self.status is None and message["type"] == "http.response.start"
            if is_start:
                self.status = message["status"]
                if self.context is not None:
                    message = with_id(message, self.context)
        except Exception:  # What is wrong with it is the server's to report.
            is_start = False
        return self.server_send(message) if is_start else HTTPExchange.send(self, message)

    def client(self) -> str:
        """Return the address of the client, as far as the server knows."""
        try:
            return str(self.request["client"][0])
        except Exception:  # A Unix socket has none.
            return ""

    def traceparent(self) -> str:
        """Return the `traceparent` that the client sent, or nothing."""
        return header_of(self.request, b"traceparent")

    def sizes(self) -> tuple[int, int] | None:
        """Return the bytes of both bodies: of the request's what the application has read, whatever was declared."""
        return None if self.received is None else (self.received, self.sent)


def _comes_from(error: BaseException | None, send: Send) -> bool:
    """Return whether an error is an OSError of the server's `send`, or comes of one: the client is gone (ASGI 2.4)."""
    while isinstance(around := getattr(send, "__self__", None), HTTPExchange):  # Another middleware of ours.
        send = around.server_send
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


def context_of(scope: Scope) -> dict[str, Any]:
    """Return what identifies a request in the log, by `X-Request-ID` and `traceparent` where the client sent them."""
    try:
        headers = dict(scope["headers"])
        if b"x-request-id" not in headers and b"traceparent" not in headers:
            return new_context()
    except Exception:  # noqa: S110 - One that can be iterated once, or is wrong: see `header_of`.
        pass
    return new_context(header_of(scope, b"x-request-id"), header_of(scope, b"traceparent"))


def with_id(message: Message, context: dict[str, Any]) -> Message:
    """Return the start of an answer, or what accepts a WebSocket, with `X-Request-ID`, unless it has one already."""
    headers = message.get("headers", ())
    try:
        if type(headers) is not list and type(headers) is not tuple:  # It may be one that can be read once.
            message = {**message, "headers": (headers := list(headers))}
        for name, _ in headers:
            if len(name) == _LENGTH_OF_NAME and name.lower() == b"x-request-id":
                return message
    except Exception:  # What is wrong with them is for the server to say.
        return message
    message = message.copy() if type(message) is dict else dict(message)
    message["headers"] = [*headers, (b"x-request-id", context["request_id"].encode())]
    return message


def _body_length(message: Message) -> int:
    """Return how many bytes a message carries; a file that the server sends by itself is measured on disk."""
    try:
        if message["type"] == "http.response.pathsend":
            return Path(message["path"]).stat().st_size
        return len(message.get("body", b""))
    except Exception:  # What is wrong with it is for the server or the application to say.
        return 0
