"""What ASGI calls things, and what of them is read here, whatever an application or a server made of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from scaleobs.tracing import request_attributes

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


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
