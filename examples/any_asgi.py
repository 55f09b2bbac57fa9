"""
Any ASGI callable: serve what instrument returns.

Run: uvicorn any_asgi:app
Try: /
"""

import scaleobs


async def hello(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"hello\n"})


app = scaleobs.instrument(hello, service="hello")
