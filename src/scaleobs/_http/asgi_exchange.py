"""One HTTP request of ASGI: receives and sends in place of the server."""

from __future__ import annotations

import asyncio
import inspect
import os
import sys
from bisect import bisect_left
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import Any

from scaleobs._http.exchange import COMPLETING, ENDED, OPEN, SERVER_ERROR, DetailedExchange, Exchange
from scaleobs._metrics.child import HTTP
from scaleobs._tracing import request_attributes
from scaleobs.logs._context import RequestIds
from scaleobs.logs._exceptions import led_to, traceback_of

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]
"""An ASGI application. Any, since applications annotate their parameters in several ways."""


def header_of(scope: Scope, key: bytes) -> str:
    """Return a header, with repeated ones joined by commas; empty without one."""
    try:
        headers = scope.get("headers", ())
        if not isinstance(headers, list | tuple):  # ASGI allows any iterable, perhaps a generator.
            scope["headers"] = headers = list(headers)
        return b", ".join(value for name, value in headers if name == key).decode("latin-1")
    except Exception:  # The application reports malformed headers.
        return ""


def traceparent_of(scope: Scope) -> str:
    """Return the `traceparent` header; without one, five times as fast as `header_of`."""
    try:
        headers = scope["headers"]
        if type(headers) is list and b"traceparent" not in dict(headers):
            return ""
    except Exception:  # noqa: S110 - See `header_of`.
        pass
    return header_of(scope, b"traceparent")


def client_of(scope: Scope) -> str:
    """Return the address of the client; empty without one."""
    try:
        return str(scope["client"][0])
    except Exception:  # A Unix socket has none.
        return ""


def attributes_of(scope: Scope, header: Callable[[str], str]) -> dict[str, str | int]:
    """Return the attributes of the server span of a request."""
    return request_attributes(
        str(scope.get("method", "GET")),  # A WebSocket begins with a GET.
        scheme=str(scope.get("scheme", "http")),
        path=scope["path"],
        client=client_of(scope),
        version=str(scope.get("http_version", "")),
        header=header,
    )


_FILE_ERRORS = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
_FILENAME = vars(OSError)["filename"]

_LONGEST_CHAIN = 100


def _mark_as_coroutine_function(function: Any) -> None:
    """Mark a function that returns an awaitable, so that asgiref's adapters accept it without a warning."""
    if sys.version_info >= (3, 12):
        inspect.markcoroutinefunction(function)
    else:
        function._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined] # noqa: SLF001


class HTTPExchange(Exchange):
    """A request that is only counted; its `receive` and `send` replace the server's."""

    __slots__ = ("server_receive", "server_send")

    server_receive: Receive
    server_send: Send

    async def receive(self) -> Message:
        """Receive from the server."""
        message = await self.server_receive()
        # Servers send a disconnect after a complete response, too, perhaps before its last `send` has returned.
        if self.stage != ENDED:
            try:
                if message["type"] == "http.disconnect":
                    self.finished() if self.stage == COMPLETING else self.client_gone()
            except Exception:  # noqa: S110 - The application reports a malformed message.
                pass
        return message

    def send(self, message: Message) -> Awaitable[None]:
        """Return an awaitable that sends a message to the server."""
        try:
            kind = message["type"]
            if kind == "http.response.start":
                if self.status is None:
                    self.status = message["status"]
                    return self.server_send(message)
                return self._start_again(message, message["status"])
            if kind == "http.response.body" or kind == "http.response.zerocopysend":  # noqa: PLR1714 - Twice as fast.
                # A test for the key costs half of `get`, and most last messages do not have it.
                if "more_body" not in message or not message["more_body"]:
                    return self._send_last(message)
            elif kind == "http.response.pathsend":
                return self._send_last(message)
        except Exception:  # The server reports a malformed message.
            return self.server_send(message)
        return self._send_more(message)

    _mark_as_coroutine_function(send)

    async def _start_again(self, message: Message, status: Any) -> None:
        """Send another start of the response, which a server accepts only if it has not sent the first one."""
        await self.server_send(message)
        if self.stage != ENDED:
            self.status = status

    async def _send_more(self, message: Message) -> None:
        try:
            await self.server_send(message)
        except OSError as error:
            self._send_failed(error)
            raise

    def _send_failed(self, error: OSError) -> None:
        """Servers raise an OSError if the client disconnected (ASGI 2.4), or if they cannot read the file to send."""
        if not issubclass(type(error), _FILE_ERRORS) and _FILENAME.__get__(error) is None:
            self.client_gone()

    async def _send_last(self, message: Message) -> None:
        """Send the last message, and count afterwards: the server may refuse it, and no count can be taken back."""
        if self.stage == ENDED:
            await self.server_send(message)
            return
        self.stage = COMPLETING
        try:
            await self.server_send(message)
        except OSError as error:
            self._send_failed(error)
            raise
        if self.stage == ENDED:
            return
        # The body of `end`: a call of it would cost half of this coroutine.
        seconds = perf_counter() - self.begun
        self.stage = ENDED
        request = self.request
        shard = self.shard
        recorder = self.recorder
        status = self.status
        if status is None:
            status = SERVER_ERROR
        try:
            route_key = id(request.get(recorder.route_key)) if recorder.by_identity else request.get(recorder.route_key)
            child = shard.child_cache[request[recorder.method], route_key, status]
        except Exception:  # Not in the cache, or a status without a hash.
            child = recorder.child_of_request(request, status, shard)
        slots = child.slots
        slots[bisect_left(child.bounds, seconds)] += 1
        slots[child.sum_at] += seconds

    def raised(self, error: BaseException) -> None:
        """The application raised an error; calls none of its methods, which may raise."""
        if issubclass(type(error), GeneratorExit):  # Garbage collection, perhaps in a finalizer.
            self.mark_abandoned()
            return
        if self.stage == OPEN and _comes_from(error, self.server_send):
            self.status = None  # Sending the start has failed: other messages have ended the exchange.
            self.client_gone()
        self.app_finished(error)

    def finish_abandoned(self) -> None:
        """The application was collected before it completed its response."""
        if self.stage != ENDED:
            self.shard = self.recorder.local.shard
            self.app_finished()


class DetailedHTTPExchange(DetailedExchange, HTTPExchange):
    """
    A request with a line, a span, an exemplar or sizes.

    Attributes:
        received: the bytes of the request's body that the application has read; `None` if bodies are not measured.
        sent: the bytes of the response's body.
    """

    __slots__ = ("received", "sent")

    received: int | None
    sent: int

    async def receive(self) -> Message:
        """Receive from the server."""
        message = await HTTPExchange.receive(self)
        if self.received is not None:
            self.received += body_length(message)
        return message

    def send(self, message: Message) -> Awaitable[None]:
        """Return an awaitable that sends a message to the server, with `X-Request-ID` in the response's start."""
        if self.received is not None:
            self.sent += body_length(message)
        try:
            is_start = self.status is None and message["type"] == "http.response.start"
            if is_start:
                self.status = message["status"]
                if self.context is not None:
                    message = with_id(message, self.recorder.ids, self.context)
        except Exception:  # The server reports a malformed message.
            is_start = False
        return self.server_send(message) if is_start else HTTPExchange.send(self, message)

    _mark_as_coroutine_function(send)

    async def _start_again(self, message: Message, status: Any) -> None:
        if self.context is not None:
            message = with_id(message, self.recorder.ids, self.context)
        await super()._start_again(message, status)

    async def _send_last(self, message: Message) -> None:
        if self.stage != ENDED:
            self.stage = COMPLETING
        try:
            await self.server_send(message)
        except OSError as error:
            self._send_failed(error)
            raise
        self.finished()

    def client(self) -> str:
        """Return the address of the client; empty without one."""
        try:
            return str(self.request["client"][0])
        except Exception:  # A Unix socket has none.
            return ""

    def traceparent(self) -> str:
        """Return the `traceparent` header; empty without one."""
        return header_of(self.request, b"traceparent")

    def sizes(self) -> tuple[int, int] | None:
        """Return the bytes of both bodies; of the request's, those that the application has read."""
        return None if self.received is None else (self.received, self.sent)


class Handshake(DetailedHTTPExchange):
    """The handshake of a WebSocket; it ends if it is answered by HTTP."""

    __slots__ = ()

    def end(self, status: Any) -> None:
        """Count the handshake with this status, and log it; called once."""
        # A copy, since the application has the scope. The framework has written into it what determines the route.
        self.request = {**self.request, self.recorder.method: "GET"}
        self.shard = self.recorder.local.shard
        self.shard.open[HTTP] += 1
        super().end(status)


def _comes_from(error: BaseException, send: Send) -> bool:
    """Return whether an OSError of the server's `send` is in the chain of an error: the client is gone (ASGI 2.4)."""
    while isinstance(around := getattr(send, "__self__", None), HTTPExchange):  # Another middleware of ours.
        send = around.server_send
    code = getattr(getattr(send, "__func__", send), "__code__", None)
    pending, seen = [error], 0
    while pending and code is not None and seen < _LONGEST_CHAIN:
        one, seen = pending.pop(), seen + 1
        frames = traceback_of(one) if issubclass(type(one), OSError) else None
        while frames is not None:
            if frames.tb_frame.f_code is code:
                return True
            frames = frames.tb_next
        pending += led_to(one)
    return False


def context_of(scope: Scope, ids: RequestIds) -> dict[str, Any]:
    """Return the ids of a request in the log, from its header and `traceparent` if the client sent them."""
    try:
        headers = dict(scope["headers"])
        is_known = ids.header in headers or b"traceparent" in headers
    except Exception:  # Not a list, or malformed: see `header_of`.
        is_known = True
    if is_known:
        context = ids.new_context(header_of(scope, ids.header), header_of(scope, b"traceparent"))
    else:
        context = ids.new_context()
    if ids.is_passed_on:
        _pass_on(scope, ids.header, context["request_id"].encode())
    return context


def _pass_on(scope: Scope, header: bytes, request_id: bytes) -> None:
    """Give a request the header with its id; a malformed scope stays as it is."""
    with suppress(Exception):
        others = [(name, value) for name, value in scope["headers"] if name.lower() != header]
        scope["headers"] = [*others, (header, request_id)]


def with_id(message: Message, ids: RequestIds, context: dict[str, Any]) -> Message:
    """Return the start of a response, or the accept of a WebSocket, with the header of the id unless it has one."""
    headers, own = message.get("headers", ()), ids.header
    try:
        if type(headers) is not list and type(headers) is not tuple:  # Any iterable is allowed, perhaps a generator.
            message = {**message, "headers": (headers := list(headers))}
        for name, _ in headers:
            if len(name) == len(own) and name.lower() == own:
                return message
    except Exception:  # The server reports malformed headers.
        return message
    if not own:
        return message
    message = message.copy() if type(message) is dict else dict(message)
    message["headers"] = [*headers, (own, context["request_id"].encode())]
    return message


def body_length(message: Message) -> int:
    """Return the bytes of a message's body; of a file to send, the part of it that is sent."""
    try:
        kind = message["type"]
        if kind == "http.response.pathsend":
            return Path(message["path"]).stat().st_size
        if kind == "http.response.zerocopysend":
            return _length_of_part(message)
        return len(message.get("body", b""))
    except Exception:  # The server or the application reports a malformed message.
        return 0


def _length_of_part(message: Message) -> int:
    file = message["file"]
    descriptor = file if isinstance(file, int) else file.fileno()
    offset = message["offset"] if "offset" in message else os.lseek(descriptor, 0, os.SEEK_CUR)
    rest = max(0, os.fstat(descriptor).st_size - offset)
    return min(message["count"], rest) if "count" in message else rest
