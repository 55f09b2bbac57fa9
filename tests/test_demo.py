"""The demo as a person starts it: with and without a Prometheus, stopped early, and asked for what can't be."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from scaleobs.cli.sampling import quantile
from scaleobs.cli.stack import LOOPBACK, StackError, get, running, wait_until

SCALEOBS = Path(sys.executable).with_name("scaleobs")


def demo(*arguments, **environment):
    return subprocess.run(
        [SCALEOBS, "demo", *arguments],
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
        env={**os.environ, "COLUMNS": "120", **environment},
    )


@pytest.mark.servers
def test_alert_fires_and_resolves(tool):
    """
    The fault is told by the alert, the repair by its resolution, and every request that was sent is counted.
    """
    tool("prometheus")
    tool("alertmanager")
    done = demo()

    assert "" == done.stderr
    assert 0 == done.returncode
    assert re.search(r"HighErrorRate fired \d+ s after the fault", done.stdout)
    assert re.search(r"HighErrorRate resolved \d+ s after the repair", done.stdout)
    assert "/ready DOWN" in done.stdout
    said = re.search(r"The demo sent (\d+) requests; (\d+) were counted, (\d+) of them failed\.", done.stdout)
    sent, counted, failed = map(int, said.groups())
    assert sent == counted
    assert 0 < failed < sent
    firing = set(re.findall(r"Prometheus: (\w+) is firing", done.stdout))
    assert {"HighErrorRate", "ServiceNotReady"} <= firing
    assert firing <= {"HighErrorRate", "ServiceNotReady", "HighRouteErrorRate", "ErrorLogBurst"}
    directory = Path(re.search(r"The files are in (\S+):", done.stdout)[1])
    assert {"rules.yml", "orders.json", "orders.log"} <= {path.name for path in directory.iterdir()}


@pytest.mark.servers
def test_without_a_prometheus_everything_but_alerts_is_shown():
    """
    Where there is no Prometheus the demo says how to get one, and shows the rest.
    """
    done = demo(PATH="/nowhere")

    assert (0, "") == (done.returncode, done.stderr)
    assert "apt install prometheus prometheus-alertmanager" in done.stdout
    assert "/ready DOWN" in done.stdout
    assert "No alert was evaluated: there was no Prometheus." in done.stdout


def test_port_in_use_is_said():
    """
    A port that somebody listens on is refused in one sentence.
    """
    with socket.socket() as taken:
        taken.bind((LOOPBACK, 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = demo("--port", str(port))

    assert 1 == done.returncode
    assert done.stderr == f"Error: Port {port} is in use: stop what listens there, or give --port another one.\n"


HALF_AN_ANSWER = """
import http.client, os, signal, sys
from scaleobs.cli import demo

class Socket:
    def makefile(self, _mode):
        os.kill(os.getpid(), {number})
        sum(range(1000))  # The handler of a signal runs between two instructions.

def run(*_, **__):
    http.client.HTTPResponse(Socket())

demo._Demo.run = run
demo.demo([])
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_while_it_asks_it_says_nothing_of_it(number, code):
    """
    An answer that is half made when the signal comes raises once it is collected, as Python 3.13 says aloud.
    """
    command = [sys.executable, "-c", HALF_AN_ANSWER.format(number=int(number))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)

    assert code == done.returncode
    assert "" == done.stderr


@pytest.mark.servers
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_early_it_leaves_no_process(number, code):
    """
    An interrupted demo ends what it started, and says where its files are.
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
        with process:  # Also where it has not ended.
            pass

    assert code == process.returncode
    assert "" == err
    assert children
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    assert "Traceback" not in out


def test_program_that_does_not_start_is_quoted(tmp_path):
    """
    A program that ends at once is named with the last thing it said.
    """
    command = [sys.executable, "-c", "raise SystemExit('no such option')"]

    with (
        pytest.raises(StackError, match=r"odd did not start; it said: no such option"),
        running("odd", lambda _port: command, ready="/", directory=tmp_path),
    ):
        pass


def test_waiting_ends():
    """
    A condition that never holds is given up with its name.
    """
    with pytest.raises(StackError, match=r"the moon rises: not within 0.1 s\."):
        wait_until(lambda: False, seconds=0.1, what="the moon rises")


def test_no_answer_is_status_zero():
    """
    An address where nobody listens has no status.
    """
    assert (0, b"") == get(f"http://{LOOPBACK}:1/")


@pytest.mark.parametrize(
    ("wanted", "buckets", "expected"),
    [
        (0.5, {}, None),
        (0.5, {1.0: 0, float("inf"): 0}, None),
        (0.5, {1.0: 10, float("inf"): 10}, 0.5),
        (0.5, {1.0: 0, 2.0: 10, float("inf"): 10}, 1.5),
        (0.99, {1.0: 5, float("inf"): 10}, 1.0),
    ],
)
def test_quantile_is_the_one_of_prometheus(wanted, buckets, expected):
    """
    Quantiles are linear within a bucket, and end at the last bound that is known.
    """
    assert expected == quantile(wanted, buckets)
