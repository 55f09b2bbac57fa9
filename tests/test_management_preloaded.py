"""The management port of workers that were forked from a process with the application."""

from __future__ import annotations

import re

import pytest

from support import servers

APP = """
import scaleobs

def answer(environ, start_response):
    start_response("200 OK", [("content-length", "2")])
    return [b"ok"]

app = scaleobs.instrument(answer, management_port={port})
"""


@pytest.mark.servers
@pytest.mark.parametrize("kind", ["sync", "gthread"])
def test_no_fault_in_the_fork(kind, tmp_path):
    """The port opens in the fork, before gunicorn has made the worker; nothing is reported."""
    port, management = servers.free_port(), servers.free_port()
    (tmp_path / "shop.py").write_text(APP.format(port=management))
    command = [str(servers.BIN / "gunicorn"), "-w", "2", "-k", kind, "-b", f"127.0.0.1:{port}", "--preload", "shop:app"]
    with servers.running(command, port, tmp_path) as end:
        servers.until_workers(management, 2)
        page = servers.get(management, "/metrics")[1].decode()
        logged = "".join(end())

    assert ["0.0"] == re.findall(r"^scaleobs_internal_faults_total (\S+)$", page, re.MULTILINE)
    assert "scaleobs.fault" not in logged
