"""Damaged ledgers of living and dead workers: earlier counts are shown."""

from __future__ import annotations

import os
import random
import signal
import struct

import pytest

from scaleobs._metrics.child import DURATION
from scaleobs._workers.ledger import entries_of, numbers_of
from support.group import fleet

pytestmark = pytest.mark.servers

OFTEN = "import scaleobs._workers.group\nscaleobs._workers.group._COPY_SECONDS = 0\n"
COMMAND = [*fleet.GUNICORN, "--threads", "4", "wsgi_shop:app"]


def overwritten(start, data):
    """Return a function that overwrites a part of a file."""

    def damage(path):
        with path.open("r+b") as file:
            file.seek(start)
            file.write(data)

    return damage


def cut(length):
    """Return a function that truncates a file to `length` bytes."""
    return lambda path: os.truncate(path, length)


DAMAGES = {
    "middle ff": overwritten(200, b"\xff" * 2000),
    "middle zeros": overwritten(200, bytes(2000)),
    "middle random": overwritten(100, random.Random(3).randbytes(2000)),
    "numbers": lambda path: overwritten(numbers_at(path), bytes(104))(path),
    "header": overwritten(0, b"\xff" * 32),
    "header zeros": overwritten(0, bytes(32)),
    "length": overwritten(8, struct.pack("=Q", 64)),
    "cut": cut(500),
    "cut to an odd length": cut(401),
    "emptied": cut(0),
}


def numbers_at(path):
    """Return the offset of the buckets of a label set with requests."""
    data = path.read_bytes()
    numbers = numbers_of(data)
    counted = (one.start for one in entries_of(data) if one.kind == DURATION and any(numbers[one.start : one.end]))
    return next(counted) * 8


def owner(path):
    """Return the pid in the header of a ledger."""
    return struct.unpack_from("=8sQQ", path.read_bytes())[2]


def counted(shop, number):
    """Send requests, and wait until copies have all of them."""
    shop.send([f"/hello/{one}" for one in range(number)])
    shop.until(lambda page: number == page.total("http_requests_total"))
    shop.scrape()


def reports(shop):
    """Return how often a damaged file was logged."""
    lines = "".join((shop.folder / name).read_text() for name in ("stdout", "stderr"))
    return lines.count("is damaged")


@pytest.mark.parametrize("kind", DAMAGES)
def test_ledger_of_a_dead_worker(kind, tmp_path):
    """No count in a copy is lost; each worker logs the fault at most once; a later worker continues the counts."""
    with fleet.running(COMMAND, tmp_path, source=OFTEN) as shop:
        root, directory = shop.root, shop.directory
        os.kill(root, signal.SIGTTOU)
        shop.until(lambda page: 3 == page.workers)
        os.kill(root, signal.SIGTTIN)
        shop.until(lambda page: 4 == page.workers)
        counted(shop, 300)
        os.kill(root, signal.SIGTTOU)
        shop.until(lambda page: 3 == page.workers)
        living = shop.pids(3)
        (dead,) = (path for path in directory.glob("*.ledger") if owner(path) not in living)
        DAMAGES[kind](dead)
        pages = shop.scrapes(workers=3)
        seen = reports(shop)
        os.kill(root, signal.SIGTTIN)
        shop.until(lambda page: 4 == page.workers)
        shop.send(["/hello/again"] * 100)
        last = [shop.until(lambda page: 400 == page.total("http_requests_total")), *shop.scrapes(workers=4)]

    assert {200} == {page.status for page in pages + last}
    assert {300} == {page.total("http_requests_total") for page in pages}
    assert {400} == {page.total("http_requests_total") for page in last}
    assert {0} == {page.in_flight for page in pages + last}
    assert 1 <= seen <= 3
    assert 1 <= last[-1].total("scaleobs_internal_faults_total") <= 4


@pytest.mark.parametrize("kind", [kind for kind in DAMAGES if not kind.startswith(("cut", "emptied"))])
def test_ledger_of_a_living_worker(kind, tmp_path):
    """No count in a copy is lost; the owner repairs the ledger and continues to count."""
    with fleet.running(COMMAND, tmp_path, source=OFTEN) as shop:
        counted(shop, 300)
        DAMAGES[kind](min(shop.directory.glob("*.ledger")))
        pages = shop.scrapes(24, workers=4)
        shop.send(["/hello/again"] * 100)
        shop.pids()
        last = [shop.until(lambda page: 400 == page.total("http_requests_total")), *shop.scrapes(workers=4)]
        seen = reports(shop)

    assert {200} == {page.status for page in pages + last}
    assert {300} == {page.total("http_requests_total") for page in pages}
    assert {(400, 0, 4)} == {(page.total("http_requests_total"), page.in_flight, page.workers) for page in last}
    assert 1 <= seen <= 4
    assert 1 <= last[-1].total("scaleobs_internal_faults_total") <= 4


@pytest.mark.parametrize("kind", ["cut", "emptied"])
def test_truncated_ledger_of_a_living_worker(kind, tmp_path):
    """The worker may crash at its next write beyond the end of the file; no count in a copy is lost."""
    with fleet.running(COMMAND, tmp_path, source=OFTEN) as shop:
        counted(shop, 300)
        path = min(shop.directory.glob("*.ledger"))
        with shop.watched() as pages:
            DAMAGES[kind](path)
            for _ in range(100):
                # A request that crashes the worker is sent again.
                shop.fetch("/hello/again")
            shop.until(lambda page: 4 == page.workers)
            shop.pids()
            before = shop.scrape().total("http_requests_total")
            shop.send(["/hello/after"] * 100)
            shop.until(lambda page: before + 100 == page.total("http_requests_total"))
        last = shop.scrapes()

    assert 300 <= min(page.total("http_requests_total") for page in pages)
    assert {0} == {page.in_flight for page in last}
    assert 1 <= last[-1].total("scaleobs_internal_faults_total")
