"""The event loops of a group: their lag and threads, also if a worker is killed, and the pulses."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time

import pytest
from prometheus_client import CollectorRegistry

from scaleobs import catalog
from scaleobs._metrics import runtime as loops
from scaleobs._metrics.runtime import Runtime, runtime
from scaleobs._workers import Root, group, join_group
from scaleobs._workers.ledger import FullError
from scaleobs._workers.recognition import start_ticks
from support import servers
from support.event_loops import begun, measurements, service, until
from support.expositions import page, samples

LAG = "event_loop_lag_seconds"

# A worker: joins the group of its parent, runs a loop or not, and stays until its input ends.
WORKER = """
import asyncio, sys
from concurrent.futures import ThreadPoolExecutor
from scaleobs._workers import group, join_group, recognition
from scaleobs._metrics import runtime as loops
from scaleobs._metrics.runtime import runtime
recognition.find_root = group.find_root = lambda: recognition.Root("gunicorn", {pid}, recognition.start_ticks({pid}), 0)

def stay():
    print("joined", flush=True)
    sys.stdin.read()

async def main():
    loops.watch(print)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(3))
    while len(runtime.exposed_families()) < 4:
        await asyncio.sleep(0.01)
    await asyncio.to_thread(stay)

runtime.join(join_group())
join_group().ledger.set_owner()
if {has_loop}:
    asyncio.run(main())
else:
    stay()
"""


@pytest.fixture
def joined(monkeypatch, tmp_path):
    """Make this process a worker of its parent."""
    monkeypatch.setenv("SCALEOBS_WORKERS_DIR", str(tmp_path))
    parent = os.getpid()
    root = Root("gunicorn", parent, start_ticks(parent), 0)
    monkeypatch.setattr(group, "find_root", lambda: root)
    monkeypatch.setattr(group, "_process_group", None)
    runtime.forked()  # Drops measurements of other tests in this process.
    joined = join_group()
    joined.ledger.set_owner()
    return joined


def worker(*, has_loop=True):
    """Start another worker of the same group."""
    source = WORKER.format(pid=os.getpid(), has_loop=has_loop)
    process = subprocess.Popen([sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert "joined\n" == process.stdout.readline()
    return process


def end(process):
    """End a worker."""
    process.stdin.close()
    process.wait(servers.LIMIT)
    process.stdout.close()


def numbers_of(group):
    """Return the numbers of a scrape: the measurements of all loops, and the threads of their default executors."""
    group.siblings()
    found = {sample.name: sample.value for _, family in runtime.families() for sample in family.samples}
    return {
        "looks": found.get(f"{LAG}_count"),
        "threads": [found.get(f"thread_pool_{name}") for name in ("busy", "size")],
    }


@pytest.mark.servers
def test_workers_that_end(joined):
    """Measurements of ended workers stay and their threads go, also if a new worker takes over the ledger."""
    runtime.join(joined)
    one, other = worker(), worker()
    servers.until(lambda: numbers_of(joined)["threads"] == [2, 6])
    both = numbers_of(joined)
    end(one)
    left = numbers_of(joined)
    heir = worker(has_loop=False)
    after = numbers_of(joined)
    end(other)
    last = numbers_of(joined)
    end(heir)
    measurements = [one["looks"] for one in (both, left, after, last)]

    assert measurements[0] >= 2
    assert sorted(measurements) == measurements
    assert [[1, 3], [1, 3], [None, None]] == [one["threads"] for one in (left, after, last)]


def test_pulses(joined):
    """The pulses are those of all living workers, including this one; 0 if no loop has run since its start."""
    runtime.join(joined)
    begin = time.monotonic()
    one, idle = worker(), worker(has_loop=False)
    both = runtime.pulses()
    servers.until(lambda: runtime.pulses()[one.pid] > both[one.pid])
    end(one)
    left = runtime.pulses()
    # It takes over the ledger of the one that has ended, with its pulse.
    heir = worker(has_loop=False)
    after = runtime.pulses()
    for process in (idle, heir):
        end(process)

    assert {os.getpid(): 0, idle.pid: 0} == {pid: pulse for pid, pulse in both.items() if pid != one.pid}
    assert begin < both[one.pid] < time.monotonic()
    assert {os.getpid(): 0, idle.pid: 0} == left
    assert {os.getpid(): 0, idle.pid: 0, heir.pid: 0} == after


@pytest.mark.usefixtures("often")
def test_pulse_of_a_process_alone(registry):
    """A process without a group returns the time of its loop's last run, and 0 before the first run."""
    before = runtime.pulses()

    async def main():
        await begun(service(registry))
        first = runtime.pulses()
        await until(lambda: measurements(registry))
        return first

    begin = time.monotonic()
    first = asyncio.run(main())

    assert {os.getpid(): 0} == before
    assert [os.getpid()] * 2 == [*first, *runtime.pulses()]
    assert begin <= first[os.getpid()] < runtime.pulses()[os.getpid()] <= time.monotonic()


@pytest.mark.parametrize("joins_first", [True, False])
def test_loop_and_group(joins_first, joined, monkeypatch):
    """Measurements count once, whether loop or group was first, and are added to those of the previous owner."""
    monkeypatch.setattr(loops, "LAG_INTERVAL", 0.01)
    before = Runtime()
    before.join(joined)
    registry = CollectorRegistry()

    async def main():
        loop = asyncio.get_running_loop()
        before.begin(loop)
        before.record(loop, at=1.0, late=7.0, pools=[1.0] * 6)
        if joins_first:
            runtime.join(joined)
        loops.watch(print)
        while numbers_of(joined)["looks"] < 2:  # noqa: ASYNC110 - There is no event for it.
            await asyncio.sleep(0.001)
        runtime.join(joined)

    asyncio.run(main())
    found = samples(page(registry))

    assert found[f"{LAG}_sum", ()] > 7
    assert 1 == found[f"{LAG}_bucket", (("le", 10.0),)] - found[f"{LAG}_bucket", (("le", 5.0),)]
    assert [] == [name for name, _ in found if name.startswith("thread_pool")]


def test_no_room(joined, monkeypatch):
    """If the ledger is full, a worker measures its loop in its own memory, and reports the error."""

    def full(*_):
        raise FullError

    troubles = []
    joined.on_error = troubles.append
    monkeypatch.setattr(joined.ledger, "slots", full)
    runtime.join(joined)

    async def main():
        loops.watch(troubles.append)

    asyncio.run(main())

    assert [FullError] == list(map(type, troubles))
    assert 0 == dict(runtime.families())[catalog.EVENT_LOOP_LAG].samples[-1].value


def test_place_is_gone(joined):
    """If the directory was removed, the numbers of this process are shown."""
    runtime.join(joined)

    async def main():
        loops.watch(print)

    asyncio.run(main())
    for path in joined.ledger.path.parent.iterdir():
        path.unlink()
    joined.ledger.path.parent.rmdir()

    assert [catalog.EVENT_LOOP_LAG] == list(dict(runtime.families()))
    assert [os.getpid()] == list(runtime.pulses())
