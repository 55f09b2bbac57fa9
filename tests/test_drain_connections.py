"""Open connections while a real server drains: WebSockets, and those that clients keep."""

from __future__ import annotations

import signal
import socket
import time

import pytest

from support import servers
from support.drain import draining
from support.drain.draining import SERVERS

pytestmark = pytest.mark.servers

HANDSHAKE = (
    b"GET /socket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


@pytest.mark.parametrize("name", ["uvicorn", "gunicorn uvicorn", "hypercorn", "granian"])
def test_websocket_goes_on(name, tmp_path):
    """An open WebSocket is served during the drain; then the server closes it."""
    command = SERVERS[name][0]
    with draining.running(command, tmp_path, SCALEOBS_DRAIN_SECONDS="2") as server:
        with socket.create_connection(("127.0.0.1", server.port), servers.LIMIT) as connection:
            connection.sendall(HANDSHAKE)
            answer = connection.recv(4096)
            server.send_signal(signal.SIGTERM)
            servers.until(lambda: server.status("/ready") == 503)
            echoes = []
            while time.monotonic() < server.signalled_at + 1.2:
                # A text frame, masked with zeros.
                connection.sendall(b"\x81\x82\0\0\0\0hi")
                echoes.append(connection.recv(4))
                time.sleep(0.1)
            # Some servers end it with a close frame, others with the connection. From Python 3.12 on hypercorn waits
            # for it without end, with or without scaleobs.
            closed = b"" if name == "hypercorn" else connection.recv(4096)
        after = server.gone_after()

    assert answer.startswith(b"HTTP/1.1 101")
    assert {b"\x81\x02hi"} == set(echoes)
    assert closed == b"" or closed.startswith(b"\x88")
    assert 2 < after


@pytest.mark.parametrize(
    "name", ["uvicorn", "uvicorn workers", "gunicorn uvicorn", "gunicorn gthread", "hypercorn", "granian"]
)
@pytest.mark.parametrize("log_format", ["json", "off"])
def test_response_ends_a_kept_connection(name, log_format, tmp_path):
    """A response ends a connection that the client would keep, and no request on it is lost."""
    command, workers, _ = SERVERS[name]
    environ = {"SCALEOBS_DRAIN_SECONDS": "1", "LOG_FORMAT": log_format}
    with draining.running(command, tmp_path, workers, **environ) as server:
        load = draining.KeptConnections(server.port)
        with load:
            servers.until(lambda: load.answered > 50)
            server.send_signal(signal.SIGTERM)
            server.gone_after()

    assert [] == load.failures
