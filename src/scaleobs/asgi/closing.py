"""Ends connections one by one while the process drains, so that none carries a request when the server stops."""

from __future__ import annotations

import contextlib

from scaleobs.asgi.protocol import Message, Scope, Send


def closing(scope: Scope, send: Send) -> Send:
    """
    Return a `send` whose answer is the last one on its connection (RFC 9112, section 9.6); HTTP/2 has other means.

    A client that keeps its connection would stay with this process for as long as it is there, whatever readiness says,
    and lose the request that is on its way when the server closes the connection.
    """
    if not scope.get("http_version", "").startswith("1"):
        return send

    async def send_last(message: Message) -> None:
        with contextlib.suppress(Exception):  # What is wrong with it is for the server to say.
            if message["type"] == "http.response.start":
                headers = [one for one in message.get("headers", ()) if bytes(one[0]).lower() != b"connection"]
                message = {**message, "headers": [*headers, (b"connection", b"close")]}
        await send(message)

    return send_last
