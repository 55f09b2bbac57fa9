"""
Which files of scaleobs are entered on the way through it, in order: run as a program, it prints them as JSON.

A file is entered if one of its functions is called while none of it is running; it is left when the last one returns or
waits.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import scaleobs

_ROOT = f"{Path(scaleobs.__file__).parent}/"


class Recorder:
    """Records the files that are entered by this thread as long as it is open."""

    def __init__(self):
        self.files = []
        self._running = {}

    def __enter__(self):
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_):
        sys.setprofile(None)

    def _note(self, frame, event, _):
        path = frame.f_code.co_filename
        if event not in ("call", "return") or not path.startswith(_ROOT) or self._is_import(frame):
            return
        name = path.removeprefix(_ROOT)
        if event == "return":
            self._running[name] = max(0, self._running.get(name, 0) - 1)
            return
        if not self._running.get(name) and name not in self.files[-1:]:
            self.files.append(name)
        self._running[name] = self._running.get(name, 0) + 1

    @staticmethod
    def _is_import(frame):
        """Return whether a module, or a class in it, is being defined: that happens once in a process."""
        while frame is not None:
            if frame.f_code.co_name == "<module>" and frame.f_code.co_filename.startswith(_ROOT):
                return True
            frame = frame.f_back
        return False


def recorded(run):
    """Return the files that a function enters."""
    with Recorder() as recorder:
        run()
    return recorder.files


def of_asgi():
    """Return the paths of a first request, a steady one, and a probe."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x"})

    from support.exchanges import http_scope

    app = scaleobs.instrument(app, service="shop", log_format="json")
    loop = asyncio.new_event_loop()

    async def nothing(_=None):
        return {"type": "http.request"}

    return _paths(lambda path: loop.run_until_complete(app(http_scope(path=path), nothing, nothing)))


def of_wsgi():
    """Return the same for WSGI."""

    def app(environ, start_response):
        start_response("200 OK", [])
        return [b"x"]

    from wsgiref.util import setup_testing_defaults

    app = scaleobs.instrument(app, service="shop", log_format="json")

    def request(path):
        environ = {"PATH_INFO": path}
        setup_testing_defaults(environ)
        body = app(environ, lambda *_: None)
        list(body)
        if hasattr(body, "close"):
            body.close()

    return _paths(request)


def _paths(request):
    first = recorded(lambda: request("/x"))
    for path in (*["/x"] * 30, "/ready"):  # The first twenty requests without a template are examined.
        request(path)
    return {"first": first, "steady": recorded(lambda: request("/x")), "probe": recorded(lambda: request("/ready"))}


def of_rendering():
    """Return the path of `scaleobs rules`."""
    from click.testing import CliRunner

    from scaleobs._cli.commands import scaleobs as command

    arguments = ["rules", "--service", "orders", "--slo", "availability=99.9"]
    return {"rendering": recorded(lambda: CliRunner().invoke(command, arguments, catch_exceptions=False))}


if __name__ == "__main__":
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # What the service logs.
    json.dump({"asgi": of_asgi, "wsgi": of_wsgi, "rendering": of_rendering}[sys.argv[1]](), answer)
