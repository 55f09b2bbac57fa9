"""How an answer of ours is sent without holding the event loop."""

from __future__ import annotations

import asyncio
from time import perf_counter

from scaleobs.answers import Answer
from scaleobs.asgi.protocol import Scope, Send

_HELD_SECONDS = 0.002
"""How long a page may hold the event loop, plus the millisecond that a piece of it takes."""


async def deliver(answer: Answer, scope: Scope, send: Send) -> None:
    """Send an answer, in turns with everything else that the event loop has to do."""
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
    held_since = perf_counter()
    for piece in answer.rest:
        if piece:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        if perf_counter() - held_since > _HELD_SECONDS:
            await _let_others_run()
            held_since = perf_counter()
    await send({"type": "http.response.body", "body": b""})


async def _let_others_run() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:  # Another event loop than asyncio's, such as trio's: the next `send` gives way.
        return
    await asyncio.sleep(0)
