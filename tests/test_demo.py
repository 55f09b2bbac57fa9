"""The demo on the command line: with and without a Prometheus, stopped early, and with a port in use."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from scaleobs._cli.demo.board import quantile
from scaleobs._cli.demo.processes import LOOPBACK, ProcessError, get, running, wait_until

SCALEOBS = Path(sys.executable).with_name("scaleobs")


def begun(*arguments, **environment):
    """Start the demo."""
    return subprocess.Popen(
        [SCALEOBS, "demo", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "120", **environment},
    )


def ended(process):
    """Return what a demo wrote, and its exit code."""
    with process:
        try:
            out, err = process.communicate(timeout=150)
        finally:
            process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture(scope="module")
def demos(tool):
    """Run the demo with a Prometheus and without one, side by side: each waits most of its time."""
    tool("prometheus")
    tool("alertmanager")
    processes = {"whole": begun(), "without": begun(PATH="/nowhere")}
    return {name: ended(process) for name, process in processes.items()}


@pytest.mark.servers
def test_alert_fires_and_resolves(demos):
    """
    The alert fires after the fault and resolves after the repair, and every request is counted.
    """
    done = demos["whole"]

    assert "" == done.stderr
    assert 0 == done.returncode
    assert re.search(r"HighErrorRate fired \d+ s after the fault", done.stdout)
    assert re.search(r"HighErrorRate resolved \d+ s after the repair", done.stdout)
    assert "/ready DOWN" in done.stdout
    summary = re.search(r"The demo sent (\d+) requests; (\d+) were counted, (\d+) of them failed\.", done.stdout)
    sent, counted, failed = map(int, summary.groups())
    assert sent == counted
    assert 0 < failed < sent
    firing = set(re.findall(r"Prometheus: (\w+) is firing", done.stdout))
    assert {"HighErrorRate", "ServiceNotReady"} <= firing
    assert firing <= {"HighErrorRate", "ServiceNotReady", "HighRouteErrorRate", "ErrorLogBurst"}
    directory = Path(re.search(r"The files are in (\S+):", done.stdout)[1])
    assert {"rules.yml", "orders.json", "orders.log"} <= {path.name for path in directory.iterdir()}


@pytest.mark.servers
def test_without_a_prometheus_everything_but_alerts_is_shown(demos):
    """
    Without a Prometheus, the demo prints how to install one, and shows the rest.
    """
    done = demos["without"]

    assert (0, "") == (done.returncode, done.stderr)
    assert "apt install prometheus prometheus-alertmanager" in done.stdout
    assert "/ready DOWN" in done.stdout
    assert "No alert was evaluated: there was no Prometheus." in done.stdout


def test_port_in_use_is_an_error():
    """
    One sentence has the port and the fix.
    """
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = ended(begun("--port", str(port)))

    assert 1 == done.returncode
    assert (
        done.stderr == f"Error: Port {port} is in use: stop the program that listens there, or give another --port.\n"
    )


HALF_AN_ANSWER = """
import http.client, os, signal, sys
from scaleobs._cli.demo import command

class Socket:
    def makefile(self, _mode):
        os.kill(os.getpid(), {number})
        sum(range(1000))  # The handler of a signal runs between two instructions.

def run(*_, **__):
    http.client.HTTPResponse(Socket())

command._Demo.run = run
command.demo([])
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_during_a_request_it_prints_nothing(number, code):
    """
    A response that the signal interrupts raises in its finalizer, which Python 3.13 prints.
    """
    command = [sys.executable, "-c", HALF_AN_ANSWER.format(number=int(number))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    assert code == done.returncode
    assert "" == done.stderr


@pytest.mark.servers
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_early_it_leaves_no_process(number, code):
    """
    An interrupted demo stops its programs, and prints the directory of its files.
    """
    process = subprocess.Popen(
        [SCALEOBS, "demo", "--forever"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PATH": "/nowhere", "COLUMNS": "120"},
    )
    try:
        for line in process.stdout:
            if "The service takes orders" in line:
                break
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
        with process:  # Also if it has not ended.
            pass

    assert code == process.returncode
    assert "" == err
    assert children
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    assert "Traceback" not in out


def test_program_that_does_not_start_is_quoted(tmp_path):
    """
    The error has the program's name and the last line of its output.
    """
    command = [sys.executable, "-c", "raise SystemExit('no such option')"]

    with (
        pytest.raises(ProcessError, match=r"odd did not start; the last line of its output: no such option"),
        running("odd", lambda _port: command, ready="/", directory=tmp_path),
    ):
        pass


def test_waiting_ends():
    """
    The error names the condition that was never true.
    """
    with pytest.raises(ProcessError, match=r"the moon rises: not within 0.1 s\."):
        wait_until(lambda: False, seconds=0.1, what="the moon rises")


def test_no_answer_is_status_zero():
    """
    A port without a listener gives no status.
    """
    assert (0, b"") == get(f"http://{LOOPBACK}:1/")


@pytest.mark.parametrize(
    ("q", "buckets", "expected"),
    [
        (0.5, {}, None),
        (0.5, {1.0: 0, float("inf"): 0}, None),
        (0.5, {1.0: 10, float("inf"): 10}, 0.5),
        (0.5, {1.0: 0, 2.0: 10, float("inf"): 10}, 1.5),
        (0.99, {1.0: 5, float("inf"): 10}, 1.0),
    ],
)
def test_quantile_is_the_one_of_prometheus(q, buckets, expected):
    """
    Quantiles are linear within a bucket, and at most the last finite bound.
    """
    assert expected == quantile(q, buckets)
