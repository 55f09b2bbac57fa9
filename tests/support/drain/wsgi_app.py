"""A WSGI application that answers and streams, with hooks of the drain; a file that servers load."""

import os
import time

import scaleobs

time.sleep(float(os.environ.get("IMPORT_SECONDS", "0")))


def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "20"), ("X-Worker", str(os.getpid()))])
    if environ["PATH_INFO"] == "/stream":
        return streamed()
    time.sleep(0.01)
    return [b"x" * 20]


def streamed():
    for _ in range(19):
        yield b"x"
        time.sleep(0.1)
    yield b"x"


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
def hangs():
    time.sleep(60)
