"""One request to the management port."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from email.message import Message
from http.server import BaseHTTPRequestHandler

from scaleobs._http.endpoints import Answer

Respond = Callable[[str, str, Message], Answer]
"""From the method, the path with its query, and the headers to the answer."""


class Handler(BaseHTTPRequestHandler):
    """
    Reads a request and writes its answer, after which the connection ends.

    Connections aren't kept, so that no client holds a thread while it asks nothing.
    """

    timeout = 5
    """Seconds that a client may take to send, or to read on."""

    respond: Respond

    def _answer(self) -> None:
        answer = self.respond(self.command, self.path, self.headers)
        self.send_response(answer.status)
        for name, value in answer.headers:
            self.send_header(name, value)
        if answer.rest is None:
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            for piece in itertools.chain([answer.body], answer.rest or ()):
                self.wfile.write(piece)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _answer  # noqa: N815

    def version_string(self) -> str:
        """Return what stands in the header `Server`: no versions."""
        return "scaleobs"

    def log_message(self, *_: object) -> None:
        """Write nothing: probes come every few seconds."""
