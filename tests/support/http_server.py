"""An HTTP server in a thread of the test process, which is silent and leaves no thread behind."""

from __future__ import annotations

import contextlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from support import servers


class _Quiet(BaseHTTPRequestHandler):
    """Writes no log; a client that is gone is no error, which would be written to the stderr of another test."""

    timeout = servers.LIMIT

    def handle(self):
        """Answer as long as the client waits."""
        with contextlib.suppress(OSError):
            super().handle()

    def log_message(self, *_):
        """Write nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # So that `server_close` waits for them.


@contextlib.contextmanager
def answering(handler, *, tls=None):
    """
    Answer requests until the block ends, and yield the port.

    All answers have ended by then: a handler that waits has to be released before.

    Args:
        handler: a subclass of `BaseHTTPRequestHandler`.
        tls: an `ssl.SSLContext`, if the server uses TLS.
    """
    with _Server(("127.0.0.1", 0), type(handler.__name__, (_Quiet, handler), {})) as server:
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
