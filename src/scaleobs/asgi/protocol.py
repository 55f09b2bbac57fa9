"""What ASGI calls things, and what of them is read here, whatever an application or a server made of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from scaleobs.logs import new_context
from scaleobs.tracing import request_attributes

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_LENGTH_OF_NAME = len(b"x-request-id")


def header_of(scope: Scope, wanted: bytes) -> str:
    """Return a header, several of one name joined, and nothing where there is none."""
    try:
        headers = scope.get("headers", ())
        if not isinstance(headers, list | tuple):  # ASGI lets it be anything that can be iterated, perhaps once.
            scope["headers"] = headers = list(headers)
        return b", ".join(value for name, value in headers if name == wanted).decode("latin-1")
    except Exception:  # What is wrong with them is for the application to say.
        return ""


def traceparent_of(scope: Scope) -> str:
    """Return the `traceparent` header; in a third of the time that `header_of` takes if there is none."""
    try:
        if type(scope["headers"]) is list and all(name != b"traceparent" for name, _ in scope["headers"]):
            return ""
    except Exception:  # noqa: S110 - See `header_of`.
        pass
    return header_of(scope, b"traceparent")


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


def body_length(message: Message) -> int:
    """Return how many bytes a message carries; a file that the server sends by itself is measured on disk."""
    try:
        if message["type"] == "http.response.pathsend":
            return Path(message["path"]).stat().st_size
        return len(message.get("body", b""))
    except Exception:  # What is wrong with it is for the server or the application to say.
        return 0
