"""Many workers of one service, each of which counts in its own file: one of them, or all for a scrape."""

from __future__ import annotations

import atexit
import json
import mmap
import os
import random
import shutil
import socket
import tempfile
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from operator import add
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from benchmarks.subjects import Subject, floor, pages

FLOOR, OURS, PEER = "floor", "scaleobs", "prometheus_client"
IN_GROUP = {OURS: "scaleobs, one of many", PEER: "prometheus_client, one of many"}

_ALONE = {OURS: "scaleobs, metrics alone", PEER: "prometheus_client, cached"}
_PAGES = {OURS: "scaleobs, text", PEER: "prometheus_client, text"}
_CELLS = floor.BUCKETS + 1
_MEMORY = Path("/dev/shm")  # noqa: S108 - Files of the group that is measured, in a directory of its own.

_first = os.getpid()
"""The process of the subject, from which the other workers are forked."""

Observations = Sequence[tuple[pages.Labels, float]]


class Crowd(NamedTuple):
    """Workers that count, of which this process is one, and its page."""

    observe: Callable[[], None]
    scrape: Callable[[], list[bytes]]


def prepare(module: ModuleType, name: str) -> Subject:
    """Return a subject around the null application of a protocol, ready to serve."""
    for alone, in_group in IN_GROUP.items():
        if name == in_group:
            _JOIN[alone](_place())
            name = alone
    return module.prepare("null", _ALONE.get(name, name))


def crowd(name: str, workers: int, first: Observations, news: Observations) -> Crowd:
    """
    Return this number of workers, which all have counts, and count again on a signal.

    The others live as long as this process, and wait while it is scraped. Each counts in its own order.
    """
    place = _place()
    ends: list[socket.socket] = []
    for number in range(1, workers):
        ends.append(_forked(ends, lambda number=number: _member(name, place, number, first).observe, news))
    own = _member(name, place, 0, first)

    def observe() -> None:
        for end in ends:
            end.send(b"?")
        own.observe(news)
        for end in ends:
            end.recv(1)

    for end in ends:
        end.recv(1)
    return Crowd(observe, own.scrape)


def _member(name: str, place: Path, number: int, first: Observations) -> pages.Page:
    """Return one of the workers, which has counted for the first time."""
    if name == FLOOR:
        page = _floor(place / f"{number}.numbers")
    else:
        _JOIN[name](place)
        page = pages.PAGES[_PAGES[name]]()
    shuffled = list(first)
    random.Random(number).shuffle(shuffled)  # noqa: S311 - The same in every run.
    page.observe(shuffled)
    if name == PEER:
        return _of_all(place, page)
    return _as_of_old(place, page) if name == OURS else page


def _forked(
    ends: list[socket.socket], enter: Callable[[], Callable[[Observations], None]], news: Observations
) -> socket.socket:
    """Return the parent's end of a worker that counts at each byte, confirms it, and ends with its parent."""
    ours, its = socket.socketpair()
    if os.fork():
        its.close()
        return ours
    try:
        for end in (*ends, ours):
            end.close()
        observe = enter()
        its.send(b"!")
        while its.recv(1):
            observe(news)
            its.send(b"!")
    finally:
        os._exit(0)


def _place() -> Path:
    """Return a directory in memory, which is removed with this process."""
    place = Path(tempfile.mkdtemp(prefix="benchmark-", dir=_MEMORY if _MEMORY.is_dir() else None))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    return place


def _join_ours(place: Path) -> None:
    """Make this process a worker of a recognised server, whose root is the first process of this subject."""
    from scaleobs._metrics import families
    from scaleobs._workers import Group, Root, group, recognition
    from scaleobs._workers.recognition import start_ticks

    group.directory_of = lambda _root: place  # type: ignore[assignment]
    root = Root("gunicorn", _first, start_ticks(_first), 0)
    joined = Group(root)
    recognition.find_root = lambda: root
    families.join_group = lambda _on_error=None: joined  # type: ignore[assignment]


def _as_of_old(place: Path, page: pages.Page) -> pages.Page:
    """Return a function that scrapes after scaleobs's copies of ledgers were made to look old."""

    def observe(observations: Observations) -> None:
        page.observe(observations)
        for copy in place.glob("*.copy"):
            os.utime(copy, (0, 0))

    return pages.Page(observe, page.scrape)


def _join_peer(place: Path) -> None:
    """Have prometheus_client count in files, as its variable does where it is set before the import."""
    from prometheus_client import values

    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(place)
    values.ValueClass = values.MultiProcessValue()  # type: ignore[misc]


_JOIN = {OURS: _join_ours, PEER: _join_peer}


def _of_all(place: Path, page: pages.Page) -> pages.Page:
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.multiprocess import MultiProcessCollector

    def scrape() -> list[bytes]:
        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=str(place))
        return [generate_latest(registry)]

    return pages.Page(page.observe, scrape)


def _floor(path: Path) -> pages.Page:
    """
    Return the least that counts in a file: only the numbers, and their labels in a second file.

    The labels of each number are read at the first scrape, when everything has been counted once.
    """
    table = floor.Table()
    cells: dict[pages.Labels, memoryview] = {}
    orders: dict[Path, list[pages.Labels]] = {}

    def observe(observations: Observations) -> None:
        if not cells:
            labels = [one for one, _ in observations]
            path.write_bytes(bytes(8 * _CELLS * len(labels)))
            path.with_suffix(".labels").write_text(json.dumps(labels))
            with path.open("r+b") as file:
                numbers = memoryview(mmap.mmap(file.fileno(), 0)).cast("d")
            cells.update(zip(labels, _cut(numbers), strict=True))
        for one, seconds in observations:
            cells[one][bisect_left(floor.BOUNDS, seconds)] += 1
            cells[one][-1] += seconds

    def scrape() -> list[bytes]:
        totals: dict[pages.Labels, list[float]] = {}
        for each in path.parent.glob("*.numbers"):
            order = orders.get(each)
            if order is None:
                labels = json.loads(each.with_suffix(".labels").read_text())
                order = orders[each] = [(method, route, status) for method, route, status in labels]
            for one, numbers in zip(order, _cut(array("d", each.read_bytes()).tolist()), strict=True):
                known = totals.get(one)
                totals[one] = numbers if known is None else list(map(add, known, numbers))
        for one in totals.keys() - table.labels.keys():
            table.add(one, one)
        table.series = totals
        return [table.text()]

    return pages.Page(observe, scrape)


def _cut(numbers: Sequence[float] | memoryview) -> Iterator[Sequence[float] | memoryview]:
    return (numbers[start : start + _CELLS] for start in range(0, len(numbers), _CELLS))
