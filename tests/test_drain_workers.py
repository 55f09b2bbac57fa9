"""Who else drains, as it stands in the ledgers, the header that ends a connection, and the setting."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest

from scaleobs import _workers as group
from scaleobs._http.asgi import last_on_connection
from scaleobs._lifecycle import drain as workers
from scaleobs.settings import Settings, SettingsError
from support import servers

# A worker: joins the group of its parent, says that it does, and drains or not until it is told to end.
WORKER = """
import sys
from scaleobs import _workers as group
from scaleobs._lifecycle import drain as workers
from scaleobs._workers import group as membership
from scaleobs._workers import recognition
recognition.root = membership.root = lambda: recognition.Root("gunicorn", {pid}, recognition.started({pid}), 0)
group.join().ledger.own()
workers.mark()[0] = {mark}
print("joined", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def mine(monkeypatch, tmp_path):
    """Make this process a worker of its parent, with the number that says that it drains."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    parent = os.getpid()
    root = group.Root("gunicorn", parent, group.recognition.started(parent), 0)
    monkeypatch.setattr(group.group, "root", lambda: root)
    monkeypatch.setattr(group.group, "_mine", None)
    group.join().ledger.own()
    return workers.mark()


def worker(mark):
    """Start another worker of the same group."""
    source = WORKER.format(pid=os.getpid(), mark=mark)
    process = subprocess.Popen([sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert "joined\n" == process.stdout.readline()
    return process


def end(process):
    """Have it end."""
    process.stdin.close()
    process.wait(servers.LIMIT)
    process.stdout.close()


def test_every_living_worker_has_to_drain(mine):
    """A worker that serves keeps the instance in; one that drains doesn't, and neither does a dead one."""
    assert workers.all_others_drain()

    serving = worker("0.0")
    assert not workers.all_others_drain()

    end(serving)
    assert workers.all_others_drain()

    draining = worker("__import__('os').getpid()")
    assert workers.all_others_drain()

    # Who takes over the ledger of a worker that drained, with its number, doesn't drain itself.
    end(draining)
    heir = worker(f"{draining.pid}")
    assert not workers.all_others_drain()
    end(heir)


def test_worker_that_has_not_joined_yet_counts_as_one_that_serves(mine):
    """A younger child of the same parent that isn't in the group yet is a worker that loads the application."""
    loading = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert not workers.all_others_drain()
    finally:
        loading.stdin.close()
        loading.wait(servers.LIMIT)
    assert workers.all_others_drain()


@pytest.mark.parametrize(
    ("version", "sent", "seen"),
    [
        ("1.1", [(b"a", b"b")], [(b"a", b"b"), (b"connection", b"close")]),
        ("1.0", iter([(b"Connection", b"keep-alive")]), [(b"connection", b"close")]),
        ("2", [(b"a", b"b")], [(b"a", b"b")]),
    ],
)
def test_answer_ends_its_connection(version, sent, seen):
    """An answer over HTTP/1 says that its connection closes, and says it once; HTTP/2 knows no such header."""
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
    """What isn't a number of seconds is refused, with the fix."""
    with pytest.raises(SettingsError, match=r"drain_seconds is .*0 turns the drain off"):
        Settings.read({"drain_seconds": value}, {})


def test_seconds_come_from_the_environment():
    """`SCALEOBS_DRAIN_SECONDS` is the setting's variable; the default is 5."""
    assert 5 == Settings.read({}, {}).drain_seconds
    assert 2.5 == Settings.read({}, {"SCALEOBS_DRAIN_SECONDS": "2.5"}).drain_seconds
