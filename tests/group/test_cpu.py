"""The CPU seconds of a group: those of a killed worker stay, as of the last scrape."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from scaleobs._metrics import process
from scaleobs._workers import Group, Root
from scaleobs._workers.kinds import Kind
from scaleobs._workers.recognition import start_ticks
from support import servers

# A worker that uses CPU, and stays until it is killed.
WORKER = """
import sys, time
from scaleobs._workers import Root, group, join_group, recognition
from scaleobs._metrics import process
group.find_root = lambda: Root("gunicorn", {pid}, recognition.start_ticks({pid}), 0)
process.join(join_group())
join_group().ledger.set_owner()
while time.process_time() < {seconds}:
    pass
print("joined", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def own_group(monkeypatch, tmp_path):
    """Make this process a worker."""
    monkeypatch.setenv("SCALEOBS_WORKERS_DIR", str(tmp_path))
    group = Group(Root("gunicorn", os.getpid(), start_ticks(os.getpid()), 0))
    group.ledger.set_owner()
    return group


def worker(seconds):
    """Start a worker that has used so many seconds."""
    command = [sys.executable, "-c", WORKER.format(pid=os.getpid(), seconds=seconds)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert "joined\n" == process.stdout.readline()
    return process


def kill(process):
    """Kill a worker, which writes nothing any more."""
    process.kill()
    process.communicate(timeout=servers.LIMIT)


@pytest.mark.servers
def test_killed_worker(own_group):
    """Its CPU seconds at the last scrape count for good, and once, also if a new worker takes over its ledger."""
    counted = process._Processes(own_group)
    try:

        def of_siblings():
            """Return the CPU seconds of the siblings."""
            own_group.siblings()
            return process._value(counted.families()["process_cpu_seconds"]) - counted._current[0]

        one = worker(1.5)
        alive = of_siblings()
        path = next(sibling.path for sibling in own_group.siblings())
        kill(one)
        dead = of_siblings()
        heir = worker(0.1)
        (sibling,) = own_group.siblings()
        after = of_siblings()
        kill(heir)
        last = of_siblings()
    finally:
        counted.leave()

    assert path == sibling.path
    assert alive > 1.4  # In whole ticks.
    assert dead == pytest.approx(alive)
    assert alive < after < alive + 1.4
    assert last == pytest.approx(after)


def test_sibling_writes_nothing_but_what_is_shared(own_group):
    """A scrape doesn't change slots that only the owner writes."""
    counted = process._Processes(own_group)
    try:
        one = worker(0.1)
        (sibling,) = own_group.siblings()
        length = 2 * counted._length
        before = sibling.read_slots(sibling.find(Kind.PROCESS, b"process", length)).tolist()
        counted.families()
        after = sibling.read_slots(sibling.find(Kind.PROCESS, b"process", length)).tolist()
        seen = sibling.read_slots(sibling.find(Kind.CPU, b"process", 1))[0]
        kill(one)
    finally:
        counted.leave()

    assert before == after
    assert seen > 0
