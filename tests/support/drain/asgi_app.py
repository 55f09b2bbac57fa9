"""An ASGI application that answers, streams and echoes, with hooks of the drain; a file that servers load."""

import asyncio
import os
import time

import scaleobs

time.sleep(float(os.environ.get("IMPORT_SECONDS", "0")))


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": message["type"] + ".complete"})
            if message["type"] == "lifespan.shutdown":
                return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
        return
    await asyncio.sleep(0.01)
    headers = [(b"content-length", b"20"), (b"x-worker", b"%d" % os.getpid())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for _ in range(19):
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        if scope["path"] == "/stream":
            await asyncio.sleep(0.1)
    await send({"type": "http.response.body", "body": b"x"})


app = scaleobs.instrument(app, service="shop", log_format=os.environ.get("LOG_FORMAT", "json"))
obs = scaleobs.observer_of(app)


@obs.on_drain
async def leave():
    print("hook: async", flush=True)


@obs.on_drain
def leave_in_a_thread():
    print("hook: sync", flush=True)


@obs.on_drain
def fails():
    raise RuntimeError("no way out")


@obs.on_drain
async def hangs():
    await asyncio.sleep(60)
