"""Connections that clients keep while a real server drains that logs nothing; test_drain_servers.py has the rest."""

from __future__ import annotations

import signal

import pytest

from support import servers
from support.drain import draining
from support.drain.draining import KEEPING, SERVERS

pytestmark = pytest.mark.servers


@pytest.mark.parametrize("name", KEEPING)
def test_response_ends_a_kept_connection(name, tmp_path):
    """A response ends a connection that the client would keep, and no request on it is lost."""
    command, workers, _ = SERVERS[name]
    environ = {"SCALEOBS_DRAIN_SECONDS": "1", "LOG_FORMAT": "off"}
    with draining.running(command, tmp_path, workers, **environ) as server:
        load = draining.KeptConnections(server.port)
        with load:
            servers.until(lambda: load.answered > 50)
            server.send_signal(signal.SIGTERM)
            server.gone_after()

    assert [] == load.failures
