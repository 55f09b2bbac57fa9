"""The CPU seconds of a group: those of a worker that is killed stay, as of the last scrape."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from scaleobs._metrics import process
from scaleobs._workers import Root, recognition
from scaleobs._workers import group as membership
from scaleobs._workers.kinds import Kind
from support import servers

# A worker that uses CPU, and stays until it is killed.
WORKER = """
import sys, time
from scaleobs._workers import Root, join
from scaleobs._workers import group as membership
from scaleobs._workers import recognition
from scaleobs._metrics import process
membership.root = lambda: Root("gunicorn", {pid}, recognition.started({pid}), 0)
process.join(join())
join().ledger.own()
while time.process_time() < {seconds}:
    pass
print("joined", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def mine(monkeypatch, tmp_path):
    """Make this process a worker."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    group = membership.Group(Root("gunicorn", os.getpid(), recognition.started(os.getpid()), 0))
    group.ledger.own()
    return group


def worker(seconds):
    """Start a worker that has used so many seconds."""
    command = [sys.executable, "-c", WORKER.format(pid=os.getpid(), seconds=seconds)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert "joined\n" == process.stdout.readline()
    return process


def kill(process):
    """Kill a worker, which notes nothing any more."""
    process.kill()
    process.communicate(timeout=servers.LIMIT)


@pytest.mark.servers
def test_killed_worker(mine):
    """What it had used at the last scrape is counted for good, and once, also if another one goes on in its place."""
    counted = process._Processes(mine)
    try:

        def others():
            """Return what the others have used."""
            mine.others()
            return process._value(counted.families()["process_cpu_seconds"]) - counted._current[0]

        one = worker(1.5)
        alive = others()
        path = next(sibling.path for sibling in mine.others())
        kill(one)
        dead = others()
        heir = worker(0.1)
        (sibling,) = mine.others()
        after = others()
        kill(heir)
        last = others()
    finally:
        counted.leave()

    assert path == sibling.path
    assert alive > 1.4  # In whole ticks.
    assert dead == pytest.approx(alive)
    assert alive < after < alive + 1.4
    assert last == pytest.approx(after)


def test_sibling_writes_nothing_but_what_is_shared(mine):
    """A scrape leaves what the owner counts as it is."""
    counted = process._Processes(mine)
    try:
        one = worker(0.1)
        (sibling,) = mine.others()
        length = 2 * counted._length
        before = sibling.part(sibling.find(Kind.PROCESS, b"process", length)).tolist()
        counted.families()
        after = sibling.part(sibling.find(Kind.PROCESS, b"process", length)).tolist()
        seen = sibling.part(sibling.find(Kind.CPU, b"process", 1))[0]
        kill(one)
    finally:
        counted.leave()

    assert before == after
    assert seen > 0
