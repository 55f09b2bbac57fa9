"""A sibling: another worker, as its ledger shows it."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scaleobs._workers import Ledger, Sibling
from scaleobs._workers.kinds import Kind, Rule
from scaleobs._workers.ledger import entries_of, read_header

# A worker that has an entry of nearly every kind; for each line that it reads it scrapes itself, and prints how many
# entries of its sibling it has indexed since it began, and some of what the page shows.
WORKER = """
import asyncio, json, sys
sys.path.insert(0, {tests!r})
import prometheus_client, scaleobs
from support.expositions import OPENMETRICS, page, samples
from scaleobs._workers import group, recognition, sibling
from scaleobs._metrics import runtime as loops

recognition.find_root = group.find_root = lambda: recognition.Root("gunicorn", {pid}, recognition.start_ticks({pid}), 0)
prometheus_client.Counter("orders", "Orders.").inc(2)

def app(environ, start_response):
    start_response("200 OK", [])
    return [b""]

async def main():
    loops.watch(print)

indexed, parse = [], sibling.parse_entries

def parse_entries(*arguments):
    found = parse(*arguments)
    indexed.extend(found)
    return found

sibling.parse_entries = parse_entries
app = scaleobs.instrument(app, log_format="off")
for _ in range(3):
    app({{"REQUEST_METHOD": "GET", "PATH_INFO": "/"}}, lambda *_: None).close()
asyncio.run(main())
print("joined", flush=True)
while sys.stdin.readline():
    shown = {{name: value for (name, _), value in samples(page(None, OPENMETRICS), OPENMETRICS).items()}}
    print(json.dumps([len(indexed), shown["orders_total"], shown["scaleobs_workers"]]), flush=True)
"""


class Seen:
    """A view that keeps the keys of all entries."""

    def __init__(self):
        self.keys = []

    def add(self, entries):
        self.keys += [(kind, entry.key) for kind, some in entries.items() for entry in some]


class Owner:
    """An owner of a view."""


@pytest.fixture
def ledger(tmp_path):
    ledger = Ledger(tmp_path / "0.ledger")
    ledger.open(b"")
    ledger.set_owner()
    return ledger


def test_slots_of_one_entry(tmp_path):
    """They are the current ones, and those of a copy if that is shown instead."""
    ledger = Ledger(tmp_path / "0.ledger")
    ledger.open(b"")
    ledger.slots(Kind.DURATION, b"before", 5)
    slots = ledger.slots(Kind.LINES, b"some", 3)
    ledger.slots(Kind.PULSE, b"after", 1)
    slots[0], slots[2] = 1.5, -2
    other = Sibling(ledger.path)
    other.read()
    entry = other.find(Kind.LINES, b"some", 3)
    first = other.read_slots(entry).tolist()
    slots[1] = 7
    second = other.read_slots(entry).tolist()
    other.show_copy(ledger.read())
    slots[1] = 8
    copied = other.read_slots(entry).tolist()

    assert (Kind.LINES, b"some") == (entry.kind, entry.key)
    assert [1.5, 0, -2] == first
    assert [1.5, 7, -2] == second
    assert [1.5, 7, -2] == copied


def test_entry_of_a_truncated_file(tmp_path):
    """Missing slots are 0."""
    ledger = Ledger(tmp_path / "0.ledger")
    ledger.open(b"")
    ledger.slots(Kind.DURATION, b"some", 2)[0] = 1
    other = Sibling(ledger.path)
    other.read()
    os.truncate(ledger.path, 0)

    assert [0, 0] == other.read_slots(other.find(Kind.DURATION, b"some", 2)).tolist()


@pytest.mark.parametrize("kind", Kind)
def test_entry_is_found_by_its_rule(kind, ledger):
    """It is found by kind, key and length; one of the living only as long as its worker lives."""
    ledger.slots(kind, b"other", 2)
    ledger.slots(kind, b"some", 3)
    ledger.slots(kind, b"some", 2)[1] = 5
    other = Sibling(ledger.path)
    other.read()
    found = []
    for other.is_living in (True, False):
        entry = other.find(kind, b"some", 2)
        found.append(entry and other.read_slots(entry).tolist())
    other.is_living = True
    another = next(each for each in Kind if each is not kind)

    assert [[0, 5], None if kind.rule is Rule.LIVING else [0, 5]] == found
    assert [None] * 3 == [other.find(another, b"some", 2), other.find(kind, b"none", 2), other.find(kind, b"some", 4)]


@pytest.mark.parametrize("kind", Kind)
def test_siblings_write_shared_kinds_only(kind, ledger):
    """A sibling can write slots of a shared kind, which the owner reads, and no others."""
    slots = ledger.slots(kind, b"some", 3)
    other = Sibling(ledger.path)
    other.read()
    other.is_living = True
    entry = other.find(kind, b"some", 3)
    if kind.rule is Rule.SHARED:
        other.write(entry, 5.0, 7.0)
    else:
        with pytest.raises(ValueError, match=f"only the owner of a ledger writes {kind.name}"):
            other.write(entry, 5.0, 7.0)

    assert ([5, 7, 0] if kind.rule is Rule.SHARED else [0, 0, 0]) == slots.tolist()


def test_view_has_each_entry_once(ledger):
    """It has the entries indexed before its creation, and later ones, in the order of the ledger."""
    other, owners = Sibling(ledger.path), [Owner(), Owner()]
    ledger.slots(Kind.LINES, b"first", 1)
    other.read()
    one = other.view(owners[0], Seen)
    ledger.slots(Kind.LINES, b"second", 1)
    ledger.slots(Kind.PULSE, b"third", 1)
    other.read_new()
    later = other.view(owners[1], Seen)
    ledger.slots(Kind.LINES, b"fourth", 1)
    for read in (other.refresh, other.read, other.read_new):
        read()

    assert one is other.view(owners[0], Seen)
    assert one is not later
    assert sorted(one.keys) == sorted(later.keys)
    assert [b"first", b"second", b"fourth"] == [key for kind, key in one.keys if kind == Kind.LINES]
    assert [b"third"] == [key for kind, key in one.keys if kind != Kind.LINES]


def test_view_is_deleted_with_its_owner(ledger):
    """A storage that is deleted leaves no view."""
    other, owner = Sibling(ledger.path), Owner()
    other.view(owner, Seen)
    before = len(other._views)
    del owner
    gc.collect()

    assert (1, 0) == (before, len(other._views))


def test_scrape_indexes_each_entry_once(tmp_path):
    """A page parses each entry of a sibling once, for all its families; the next page parses none again."""
    source = WORKER.format(tests=str(Path(__file__).parent.parent), pid=os.getpid())
    environ = {**os.environ, "SCALEOBS_WORKERS_DIR": str(tmp_path)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environ}
    workers = [subprocess.Popen([sys.executable, "-c", source], **pipes) for _ in range(2)]
    lines = [worker.stdout.readline() for worker in workers]
    pages = []
    for _ in range(2):
        workers[0].stdin.write("page\n")
        workers[0].stdin.flush()
        pages.append(json.loads(workers[0].stdout.readline()))
    ledgers = [path.read_bytes() for path in tmp_path.rglob("*.ledger")]
    (entries,) = [len(entries_of(data)) for data in ledgers if read_header(data)[1] == workers[1].pid]
    for worker in workers:
        worker.communicate()

    assert ["joined\n"] * 2 == lines
    assert entries >= 12
    assert [[entries, 4, 2]] * 2 == pages
