"""Which siblings drain, by their ledgers; the header that ends a connection; the setting."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest

from scaleobs._http.asgi import last_on_connection
from scaleobs._lifecycle.drain import all_siblings_drain, drain_slot
from scaleobs._workers import Root, group, join_group
from scaleobs._workers.recognition import start_ticks
from scaleobs.settings import Settings, SettingsError
from support import servers

# A worker: joins the group of its parent, and drains or not until its input ends.
WORKER = """
import sys
from scaleobs._lifecycle.drain import drain_slot
from scaleobs._workers import group, join_group, recognition
recognition.find_root = group.find_root = lambda: recognition.Root("gunicorn", {pid}, recognition.start_ticks({pid}), 0)
join_group().ledger.set_owner()
drain_slot()[0] = {number}
print("joined", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def slot(monkeypatch, tmp_path):
    """Make this process a worker of its parent, and return its slot of the drain."""
    monkeypatch.setenv("SCALEOBS_WORKERS_DIR", str(tmp_path))
    parent = os.getpid()
    root = Root("gunicorn", parent, start_ticks(parent), 0)
    monkeypatch.setattr(group, "find_root", lambda: root)
    monkeypatch.setattr(group, "_process_group", None)
    join_group().ledger.set_owner()
    return drain_slot()


def worker(number):
    """Start another worker of the same group."""
    source = WORKER.format(pid=os.getpid(), number=number)
    process = subprocess.Popen([sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert "joined\n" == process.stdout.readline()
    return process


def end(process):
    """End a worker."""
    process.stdin.close()
    process.wait(servers.LIMIT)
    process.stdout.close()


def test_every_living_worker_has_to_drain(slot):
    """The instance stays ready as long as one living worker doesn't drain."""
    assert all_siblings_drain()

    serving = worker("0.0")
    assert not all_siblings_drain()

    end(serving)
    assert all_siblings_drain()

    draining = worker("__import__('os').getpid()")
    assert all_siblings_drain()

    # A worker that takes over the ledger of one that drained, with its number, doesn't drain itself.
    end(draining)
    heir = worker(f"{draining.pid}")
    assert not all_siblings_drain()
    end(heir)


def test_worker_that_has_not_joined_yet_counts_as_one_that_serves(slot):
    """A younger child of the same parent that isn't in the group yet is a worker that still loads the application."""
    loading = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert not all_siblings_drain()
    finally:
        loading.stdin.close()
        loading.wait(servers.LIMIT)
    assert all_siblings_drain()


@pytest.mark.parametrize(
    ("version", "sent", "seen"),
    [
        ("1.1", [(b"a", b"b")], [(b"a", b"b"), (b"connection", b"close")]),
        ("1.0", iter([(b"Connection", b"keep-alive")]), [(b"connection", b"close")]),
        ("2", [(b"a", b"b")], [(b"a", b"b")]),
    ],
)
def test_answer_ends_its_connection(version, sent, seen):
    """A response over HTTP/1 has one header that closes its connection; HTTP/2 has no such header."""
    messages = []

    async def send(message):
        messages.append(message)

    async def answer():
        last = last_on_connection({"type": "http", "http_version": version}, send)
        await last({"type": "http.response.start", "status": 200, "headers": sent})
        await last({"type": "http.response.body", "body": b"x"})

    asyncio.run(answer())

    start, body = messages

    assert {"type": "http.response.start", "status": 200, "headers": seen} == start
    assert {"type": "http.response.body", "body": b"x"} == body


@pytest.mark.parametrize("value", [-1, "soon", None, True, float("nan"), 1e9])
def test_seconds_that_cannot_be_used(value):
    """A value that isn't a number of seconds is refused, with the fix."""
    with pytest.raises(SettingsError, match=r"drain_seconds is .*0 turns the drain off"):
        Settings.read({"drain_seconds": value}, {})


def test_seconds_come_from_the_environment():
    """`SCALEOBS_DRAIN_SECONDS` is the setting's variable; the default is 5."""
    assert 5 == Settings.read({}, {}).drain_seconds
    assert 2.5 == Settings.read({}, {"SCALEOBS_DRAIN_SECONDS": "2.5"}).drain_seconds
