"""`log_messages_total` is the number of lines on stdout."""

from __future__ import annotations

import functools
import io
import json
import logging
import sys
from collections import Counter

import pytest
from prometheus_client.parser import text_string_to_metric_families

import scaleobs
from scaleobs.logs._sink import stdout
from support import servers
from support.exchanges import asgi, log_lines

SHOP = """
import logging, os, signal
import scaleobs
from fastapi import FastAPI

app = FastAPI()

@app.get("/log")
def log():
    logging.getLogger("shop").warning("by stdlib")
    scaleobs.get_logger("shop").error("by structlog")

@app.get("/die")
def die():
    os.kill(os.getpid(), signal.SIGKILL)

app = scaleobs.instrument(app, service="shop", log_level="debug")
"""


async def hello(scope, receive, send):
    """Answer."""
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"hello"})


def levels(page):
    """Return the number of lines of each level on a metrics page."""
    families = text_string_to_metric_families(page)
    samples = [sample for family in families for sample in family.samples if sample.name == "log_messages_total"]
    return {sample.labels["level"]: sample.value for sample in samples}


def counted(registry):
    """Return the same of a registry."""
    names = ("debug", "info", "warning", "error", "critical")
    return {level: registry.get_sample_value("log_messages_total", {"level": level}) for level in names}


def test_every_line_is_counted(registry, capsys):
    """Lines of structlog, stdlib logging and scaleobs itself are counted by their level; dropped lines are not."""
    app = scaleobs.instrument(functools.partial(hello), registry=registry, log_format="json")
    before = counted(registry)
    scaleobs.get_logger().debug("not written")
    scaleobs.get_logger().exception("error")
    scaleobs.get_logger().warn("warning")
    logging.getLogger("x").log(35, "between warning and error")
    logging.getLogger("x").critical("critical")
    asgi(app)
    lines = log_lines(capsys)
    after = counted(registry)

    assert {"debug": 0, "info": 1, "warning": 2, "error": 1, "critical": 1} == {
        level: after[level] - before[level] for level in after
    }
    assert 5 == len(lines)


@pytest.mark.parametrize("is_forked", [False, True])
def test_lost_line_is_a_fault(is_forked, registry, monkeypatch):
    """A line that can't be written is counted as a fault and not as a line, also by a process that was just forked."""
    scaleobs.instrument(functools.partial(hello), registry=registry, log_format="json")
    logging.getLogger("x").warning("not lost")
    if is_forked:
        stdout.reset()
    before = sum(counted(registry).values())
    monkeypatch.setattr(sys, "stdout", None)
    logging.getLogger("x").warning("lost")
    monkeypatch.setattr(sys, "stdout", io.StringIO())

    assert before == sum(counted(registry).values())
    assert 1 == registry.get_sample_value("scaleobs_internal_faults_total")


@pytest.mark.servers
@pytest.mark.parametrize("workers", [1, 3])
def test_lines_of_all_workers(workers, tmp_path):
    """The sum over the workers is the number of lines on stdout, also those of a killed worker."""
    (tmp_path / "shop.py").write_text(SHOP)
    port = servers.free_port()
    command = [str(servers.BIN / "uvicorn"), "shop:app", "--port", str(port), "--workers", str(workers)]
    with servers.running(command, port, tmp_path) as end:
        for _ in range(60):
            servers.get(port, "/log")
        if workers > 1:
            with pytest.raises(ConnectionError):
                servers.get(port, "/die")
            for _ in range(30):
                servers.get(port, "/log")
        page = servers.get(port, "/metrics")[1].decode()
        out, _ = end()
    requests = 60 if workers == 1 else 90
    stated = levels(page)
    written = Counter(json.loads(line)["level"] for line in out.splitlines() if line.startswith("{"))

    assert (requests, requests) == (stated["warning"], stated["error"])
    assert (requests, requests) == (written["warning"], written["error"])
    assert stated["info"] >= requests
