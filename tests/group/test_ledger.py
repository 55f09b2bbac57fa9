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

OFTEN = """
import scaleobs._workers.group
scaleobs._workers.group._COPY_SECONDS = 0
scaleobs._workers.group._COPIES_PER_SCRAPE = 100
"""
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


FAULTS = "scaleobs_internal_faults_total"


def owner(path):
    """Return the pid in the header of a ledger."""
    return struct.unpack_from("=8sQQ", path.read_bytes())[2]


def counted(shop, number):
    """Send requests until this many workers have counted some and copies have all; return how many were sent."""
    sent, workers = 0, set()
    while len(workers) < number:
        workers |= shop.send([f"/hello/{one}" for one in range(100)], each=5)
        sent += 100
    shop.until(lambda page: sent == page.total("http_requests_total"))
    shop.scrape()
    return sent


def reports(shop):
    """Return how often a damaged file was logged."""
    lines = "".join((shop.folder / name).read_text() for name in ("stdout", "stderr"))
    return lines.count("is damaged")


def damage_each(shop, kinds, paths, workers):
    """Damage each file in another way; return the pages of all workers after each, and the faults that each caused."""
    pages, faults = [shop.scrape()], {}
    for kind, path in zip(kinds, paths, strict=False):
        before = max(page.total(FAULTS) for page in pages)
        DAMAGES[kind](path)
        # A page does not count the faults of its own scrape: each worker answers once, and then another page is read.
        pages += [*shop.scrapes(2 * workers, workers=workers), shop.scrape()]
        faults[kind] = max(page.total(FAULTS) for page in pages) - before
    return pages, faults


def scale(shop, number, workers):
    """Let gunicorn start or end one worker after another, from one number of workers to another."""
    step, by = (1, signal.SIGTTIN) if workers > number else (-1, signal.SIGTTOU)
    for reached in range(number + step, workers + step, step):
        os.kill(shop.root, by)
        shop.until(lambda page, reached=reached: reached == page.workers)


def test_ledgers_of_dead_workers(tmp_path):
    """
    No count in a copy is lost; each worker counts the fault once; a later worker continues the counts.

    Of several workers that have ended, each has a ledger that is damaged in another way.
    """
    living, everybody = 4, 4 + len(DAMAGES)
    with fleet.running([*COMMAND, "-w", str(everybody)], tmp_path, workers=everybody, source=OFTEN) as shop:
        scale(shop, everybody, everybody - 1)
        scale(shop, everybody - 1, everybody)
        sent = counted(shop, everybody)
        scale(shop, everybody, living)
        pids = shop.pids(living)
        dead = [path for path in shop.directory.glob("*.ledger") if owner(path) not in pids]
        pages, faults = damage_each(shop, DAMAGES, dead, living)
        seen = reports(shop)
        scale(shop, living, everybody)
        shop.send(["/hello/again"] * 100)
        last = [shop.until(lambda page: sent + 100 == page.total("http_requests_total"))]
        last += shop.scrapes(workers=everybody)

    assert {200} == {page.status for page in pages + last}
    assert {sent} == {page.total("http_requests_total") for page in pages}
    assert {sent + 100} == {page.total("http_requests_total") for page in last}
    assert {0} == {page.in_flight for page in pages + last}
    assert list(DAMAGES) == [kind for kind, number in faults.items() if 1 <= number <= living]
    assert 1 <= seen <= living  # Each worker logs the first of its faults of a kind.
    # New workers may read them, too, until one continues each.
    assert sum(faults.values()) <= last[-1].total(FAULTS) <= len(DAMAGES) * everybody


def test_ledgers_of_living_workers(tmp_path):
    """
    No count in a copy is lost; the owner repairs the ledger and continues to count.

    Each worker but one has a ledger that is damaged in another way.
    """
    kinds = [kind for kind in DAMAGES if not kind.startswith(("cut", "emptied"))]
    number = len(kinds) + 1
    with fleet.running([*COMMAND, "-w", str(number)], tmp_path, workers=number, source=OFTEN) as shop:
        sent = counted(shop, number)
        pages, faults = damage_each(shop, kinds, sorted(shop.directory.glob("*.ledger")), number)
        shop.send(["/hello/again"] * 100)
        shop.pids(number)
        last = [shop.until(lambda page: sent + 100 == page.total("http_requests_total"))]
        last += shop.scrapes(workers=number)
        seen = reports(shop)

    assert {200} == {page.status for page in pages + last}
    assert {sent} == {page.total("http_requests_total") for page in pages}
    assert {(sent + 100, 0, number)} == {
        (page.total("http_requests_total"), page.in_flight, page.workers) for page in last
    }
    assert kinds == [kind for kind, times in faults.items() if 1 <= times <= number]
    assert 1 <= seen <= number


@pytest.mark.parametrize("kind", ["cut", "emptied"])
def test_truncated_ledger_of_a_living_worker(kind, tmp_path):
    """The worker may crash at its next write beyond the end of the file; no count in a copy is lost."""
    with fleet.running(COMMAND, tmp_path, source=OFTEN) as shop:
        sent = counted(shop, 4)
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

    assert sent <= min(page.total("http_requests_total") for page in pages)
    assert {0} == {page.in_flight for page in last}
    assert 1 <= last[-1].total("scaleobs_internal_faults_total")
