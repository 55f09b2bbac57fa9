"""A reader of stdout that is slower than the lines: they wait within a budget, and those that are lost are reported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from support import servers

PROGRAM = """
import asyncio, json, sys, time, types
import scaleobs
from scaleobs.logs import _sink

slept = 0.0

def sleep(seconds):
    global slept
    slept += seconds
    time.sleep(seconds)

_sink.time = types.SimpleNamespace(sleep=sleep, monotonic=time.monotonic)
scaleobs.configure_logging(service="shop", log_format="json")
log = scaleobs.get_logger("shop")
number, begun = 0, time.monotonic()

def step():
    global number
    log.info("x" * 400, number=number)
    number += 1
    return time.monotonic() - begun < 5

async def serve():
    while step():
        await asyncio.sleep(0.002)

KIND
report = {"slept": slept, "seconds": time.monotonic() - begun, "count": number, **_sink.lines_written()}
sys.stderr.write(json.dumps(report) + chr(10))
sys.stderr.flush()
sys.stdin.readline()
log.info("last")
"""

KINDS = {
    "an event loop": "asyncio.run(serve())",
    "a service": "app = scaleobs.instrument(lambda environ, start: [])\nwhile step(): time.sleep(0.002)",
    "a script": "while step(): time.sleep(0.002)",
}
"""What a process of each kind runs."""


def reports_of(kind):
    """Return what a process reports whose reader is slow, and its lines."""
    command = [sys.executable, "-c", PROGRAM.replace("KIND", KINDS[kind])]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:
        os.set_blocking(process.stderr.fileno(), False)
        found, err, deadline = b"", b"", time.monotonic() + servers.LIMIT
        while not err.endswith(b"\n") and time.monotonic() < deadline:
            found += os.read(process.stdout.fileno(), 4096)
            time.sleep(0.5)  # The reader is slow.
            err += process.stderr.read() or b""
        out, _ = process.communicate(b"\n", timeout=servers.LIMIT)
    return json.loads(err), [json.loads(line) for line in (found + out).splitlines()]


@pytest.mark.parametrize("kind", ["an event loop", "a service"])
def test_lines_of_a_service_wait_within_a_budget(kind):
    """They wait for 100 ms, and for 10 ms more in a second; the number of all lost lines is in the log."""
    report, lines = reports_of(kind)
    numbers = [line["number"] for line in lines if "number" in line]
    lost = sum(line["lines"] for line in lines if line["event"] == "log.lines_lost")

    assert report["slept"] <= 0.15 + 0.01 * report["seconds"]
    assert 0 < report["lost"]
    assert sorted(set(numbers)) == numbers
    assert report["count"] - len(numbers) <= lost <= report["lost"]
    assert "last" == lines[-1]["event"] or "log.lines_lost" == lines[-1]["event"]


def test_lines_of_a_script_wait_for_a_reader_that_reads():
    """A script is slowed down by its reader, and loses no line."""
    report, lines = reports_of("a script")

    assert (0, report["count"]) == (report["lost"], report["info"])
    assert list(range(report["count"])) == [line["number"] for line in lines if "number" in line]
