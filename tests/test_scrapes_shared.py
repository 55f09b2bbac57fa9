"""Scrapes at the same time share pages or wait; none depends on the client of another one."""

from __future__ import annotations

import asyncio
import gc
import gzip
import itertools
import threading
import time

import pytest
from prometheus_client import Counter
from prometheus_client.core import GaugeMetricFamily

import scaleobs
from scaleobs._metrics import collectors, scrapes
from scaleobs._metrics.families import attach
from scaleobs._metrics.scrapes import WAIT, Pages, ScrapeDropped, ScrapeRefused
from support import servers
from support.exchanges import asgi, http_scope, log_lines
from support.expositions import FORMATS, OPENMETRICS, PROTOBUF, TEXT, observe, samples

MEDIA_TYPES = {TEXT: "text/plain", OPENMETRICS: "application/openmetrics-text"}
MEDIA_TYPES[PROTOBUF] = "application/vnd.google.protobuf"
every_format = pytest.mark.parametrize("content_type", FORMATS)


class Large:
    """A collector with so many samples, which counts its calls."""

    def __init__(self, size=2_000):
        self.size = size
        self.calls = 0

    def describe(self):
        return [GaugeMetricFamily("a_large_gauge", "Help.")]

    def collect(self):
        self.calls += 1
        family = GaugeMetricFamily("a_large_gauge", "Help.", labels=["number"])
        for number in range(self.size):
            family.add_metric([str(number)], number)
        yield family


@pytest.fixture(name="faults")
def _faults():
    return []


@pytest.fixture(name="pages")
def _pages(registry, faults):
    _, storage = attach(registry)
    return Pages(registry, storage, faults.append)


def begin(pages, content_type=TEXT, *, is_gzipped=False, **more):
    """Begin a scrape."""
    return pages.scrape(MEDIA_TYPES[content_type], is_gzipped=is_gzipped, **more)


def large(body, content_type=TEXT):
    """Return how many samples of the large gauge a page has."""
    return sum(name[0] == "a_large_gauge" for name in samples(body, content_type))


@every_format
@pytest.mark.parametrize("is_gzipped", [False, True])
def test_32_scrapes_at_once_are_one_page(content_type, is_gzipped, registry, pages, faults):
    """32 scrapes that come before a page is begun read the same page, each at its own pace."""
    collector = Large()
    registry.register(collector)
    begun = [begin(pages, content_type, is_gzipped=is_gzipped) for _ in range(32)]
    bodies = [[] for _ in begun]
    waiting = set(range(32))
    for turn in itertools.count():
        for number in sorted(waiting):
            if turn % (number % 5 + 1):
                continue
            piece = next(begun[number], None)
            if piece is None:
                waiting.discard(number)
            else:
                bodies[number].append(piece)
        if not waiting:
            break
    whole = {b"".join(body) for body in bodies}
    (one,) = whole

    assert 1 == collector.calls
    assert 2_000 == large(gzip.decompress(one) if is_gzipped else one, content_type)
    assert [] == faults


def test_a_scrape_shows_what_was_counted_before_it(registry, pages):
    """A scrape never joins a page that is begun: it would lack what was counted since."""
    registry.register(Large())
    _, storage = attach(registry)
    observe(storage, ("GET", "/", "200"), 0.1)
    first = begin(pages)
    pieces = [next(first)]
    observe(storage, ("GET", "/", "200"), 0.1)
    second, third = begin(pages), begin(pages)
    line = b'http_requests_total{method="GET",route="/",status_code="200"} '

    assert line + b"2\n" in b"".join(second)
    assert line + b"2\n" in b"".join(third)
    assert line + b"1\n" in b"".join([*pieces, *first])


def test_a_client_that_reads_slowly_delays_no_other(registry, pages):
    """A scrape that waits makes the pages before its own, and the slow client gets its whole page later."""
    registry.register(Large())
    slow = begin(pages)
    pieces = [next(slow) for _ in range(3)]
    fast = begin(pages)

    assert 2_000 == large(b"".join(fast))
    assert 2_000 == large(b"".join([*pieces, *slow]))


def test_a_client_that_disconnects_breaks_no_other(registry, pages, faults):
    """Scrapes that end early, in line or within a page, change nothing for others; their pages are freed."""
    collector = Large()
    registry.register(collector)
    first = begin(pages)
    while not collector.calls:
        next(first)
    shared, gone, other = begin(pages), begin(pages), begin(pages, OPENMETRICS)
    del first
    next(gone)
    next(gone)
    del gone, other
    gc.collect()

    assert 2_000 == large(b"".join(shared))
    assert 2 == collector.calls
    assert [] == faults
    assert 2_000 == large(b"".join(begin(pages)))


def test_scrapes_of_other_formats_and_names_wait_in_line(registry, pages):
    """Each scrape has its own format, encoding and names, and one page is made after the other."""
    collector = Large()
    registry.register(collector)
    Counter("a_counter", "Help.", registry=registry).inc()
    kinds = [
        (content_type, is_gzipped, names)
        for content_type in FORMATS
        for is_gzipped in (False, True)
        for names in ((), ("a_counter_total",))
    ]
    for chunk in (kinds[:6], kinds[6:]):
        begun = [begin(pages, kind[0], is_gzipped=kind[1], names=kind[2]) for kind in chunk]
        # The last one first.
        bodies = [b"".join(scrape) for scrape in reversed(begun)][::-1]
        for (content_type, is_gzipped, names), body in zip(chunk, bodies, strict=True):
            found = samples(gzip.decompress(body) if is_gzipped else body, content_type)
            assert ({"a_counter_total"} == {name[0] for name in found}) is bool(names)
            assert (0 if names else 2_000) == sum(name[0] == "a_large_gauge" for name in found)
    assert 6 == collector.calls


def test_scrapes_of_many_threads(registry, pages, faults):
    """Threads that scrape at once share pages, and each page is whole."""
    collector = Large(5_000)
    registry.register(collector)
    barrier, bodies = threading.Barrier(16), []

    def scrape(content_type):
        barrier.wait()
        bodies.append((content_type, b"".join(begin(pages, content_type))))

    threads = [threading.Thread(target=scrape, args=(FORMATS[number % 2],)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [5_000] * 16 == [large(body, content_type) for content_type, body in bodies]
    assert 16 > collector.calls
    assert [] == faults


def test_beyond_the_bound_a_scrape_receives_503(registry):
    """Beyond `MAX_SCRAPES` the answer is 503 with Retry-After, and 200 again when some have ended."""

    async def application(scope, receive, send):
        """Never called."""

    app = scaleobs.instrument(application, registry=registry)
    pages = scaleobs.observer_of(app)._service.answers._pages
    begun = [begin(pages) for _ in range(scrapes.MAX_SCRAPES)]
    refused = asgi(app, path="/metrics")

    assert (503, "1") == (refused.status, refused.headers["retry-after"])
    assert b"Too many scrapes" in refused.body
    assert 200 == asgi(app, path="/health").status
    assert b"scaleobs_workers" in b"".join(begun.pop())
    assert 200 == asgi(app, path="/metrics").status


def test_beyond_the_bound_of_pages_a_scrape_receives_503(pages):
    """A client that invents names fills the line of pages, not the memory."""
    begun = [begin(pages, names=[f"name{number}"]) for number in range(scrapes.MAX_PAGES)]

    assert begin(pages) is None
    assert b"" == b"".join(begun[0])
    assert begin(pages) is not None


def test_clients_that_read_nothing_make_room(monkeypatch, registry, pages):
    """If all places are taken, the scrape that has been silent for the longest time is ended, if that is long."""
    registry.register(Large())
    begun = [begin(pages) for _ in range(scrapes.MAX_SCRAPES)]
    next(begun[0])

    assert begin(pages) is None
    monkeypatch.setattr(scrapes, "SILENT_SECONDS", 0.0)
    assert 2_000 == large(b"".join(begin(pages)))
    with pytest.raises(ScrapeDropped):
        list(begun[1])
    assert 2_000 == large(b"".join(begun[2]))


@pytest.mark.parametrize("threads", [3, 4, 8])
def test_scrapes_that_take_long_leave_a_thread(threads, monkeypatch, registry, pages):
    """If scrapes have all other threads for long, one more is refused, also one that waits already; before, none is."""
    registry.register(Large())
    limit = max(3, threads - 1)
    begun = [begin(pages, threads=threads)]
    pieces = [next(begun[0])]
    begun += [begin(pages, threads=threads) for _ in range(limit)]
    assert begin(pages, threads=threads) is not None
    monkeypatch.setattr(scrapes, "PATIENCE_SECONDS", 0.0)

    assert begin(pages, threads=threads) is None
    with pytest.raises(ScrapeRefused):
        list(begun[1])
    assert [2_000] * limit == [large(b"".join(one)) for one in ([*pieces, *begun[0]], *begun[2:])]
    assert begin(pages, threads=threads) is not None


class Hanging:
    """A collector that returns when it may."""

    def __init__(self):
        self.may_return, self.is_called = threading.Event(), threading.Event()

    def describe(self):
        return []

    def collect(self):
        self.is_called.set()
        assert self.may_return.wait(servers.LIMIT)
        yield GaugeMetricFamily("late", "Help.", value=1)


@every_format
@pytest.mark.parametrize("is_gzipped", [False, True])
def test_a_collector_that_hangs_is_missing_from_later_scrapes(
    content_type, is_gzipped, monkeypatch, registry, pages, faults
):
    """While a collector hangs, scrapes have everything else, and the fault is counted; then they have all again."""
    monkeypatch.setattr(collectors, "HANGS_SECONDS", 0.05)
    hanging = Hanging()
    registry.register(hanging)
    registry.register(Large())
    stuck = []
    shared = [begin(pages, content_type, is_gzipped=is_gzipped) for _ in range(2)]
    thread = threading.Thread(target=lambda: stuck.append(b"".join(shared[0])))
    thread.start()

    def decoded(scrape):
        body = b"".join(scrape)
        return {name[0] for name in samples(gzip.decompress(body) if is_gzipped else body, content_type)}

    try:
        assert hanging.is_called.wait(servers.LIMIT)
        # A page that was shared with the one that hangs ends, well-formed, with what it has.
        assert "scaleobs_workers" in decoded(shared[1])
        for _ in range(3):
            found = decoded(begin(pages, content_type, is_gzipped=is_gzipped))
            assert "late" not in found
            assert {"scaleobs_workers", "a_large_gauge", "process_open_fds"} <= found
        assert [collectors.CollectorHangsError] == list(map(type, faults))
    finally:
        hanging.may_return.set()
        thread.join(servers.LIMIT)

    assert "late" in decoded(begin(pages, content_type, is_gzipped=is_gzipped))
    assert {"late", "a_large_gauge"} <= decoded(stuck)


def test_an_event_loop_never_waits_for_a_thread(registry, pages):
    """While another thread makes the page, a scrape on an event loop receives `WAIT` at once."""
    hanging = Hanging()
    registry.register(hanging)
    blocked = begin(pages)
    thread = threading.Thread(target=lambda: list(blocked))
    thread.start()
    try:
        assert hanging.is_called.wait(servers.LIMIT)
        on_loop = begin(pages, may_block=False)
        begun = time.monotonic()
        assert WAIT is next(on_loop)
        assert 1 > time.monotonic() - begun
    finally:
        hanging.may_return.set()
        thread.join(servers.LIMIT)

    assert b"late 1" in b"".join(on_loop)


class Raising:
    """A collector that raises an error of the given kind, once."""

    def __init__(self, error):
        self.error = error

    def describe(self):
        return []

    def collect(self):
        yield GaugeMetricFamily("before", "Help.", value=1)
        error, self.error = self.error, None
        if error is not None:
            raise error


@every_format
def test_a_collector_that_raises_takes_no_other_with_it(content_type, registry, pages, faults):
    """The families of other collectors, also of later ones, are on the page, and all are on the next one."""
    registry.register(Raising(RuntimeError("no cache")))
    registry.register(Large())
    first, second = begin(pages, content_type), begin(pages, content_type)
    found = {name[0] for name in samples(b"".join(first), content_type)}

    assert {"before", "a_large_gauge"} <= found
    assert b"".join(second)
    assert ["no cache"] == list(map(str, faults))
    assert 2_000 == large(b"".join(begin(pages, content_type)), content_type)


def test_a_greenlet_that_is_killed_breaks_no_other(registry, pages):
    """An error that belongs to the thread of one scrape ends its page; the others get what it has, well-formed."""
    registry.register(Raising(SystemExit()))
    registry.register(Large())
    killed, other = begin(pages, OPENMETRICS), begin(pages, OPENMETRICS)
    with pytest.raises(SystemExit):
        list(killed)

    assert "scaleobs_workers" in {name[0] for name in samples(b"".join(other), OPENMETRICS)}
    assert 2_000 == large(b"".join(begin(pages, OPENMETRICS)), OPENMETRICS)


def test_one_hanging_collector_is_logged_once(monkeypatch, registry, capsys):
    """The fault is logged and counted once, however many pages lack the collector."""
    monkeypatch.setattr(collectors, "HANGS_SECONDS", 0.05)

    async def application(scope, receive, send):
        """Never called."""

    app = scaleobs.instrument(application, registry=registry)
    hanging = Hanging()
    registry.register(hanging)
    thread = threading.Thread(target=lambda: asgi(app, path="/metrics"))
    thread.start()
    try:
        assert hanging.is_called.wait(servers.LIMIT)
        assert [200] * 3 == [asgi(app, path="/metrics").status for _ in range(3)]
    finally:
        hanging.may_return.set()
        thread.join(servers.LIMIT)
    kinds = [line["kind"] for line in log_lines(capsys) if line["event"] == "scaleobs.fault"]

    assert 1 == len(kinds)
    assert kinds[0].startswith("CollectorHangsError at ")
    assert 1 == registry.get_sample_value("scaleobs_internal_faults_total")


def test_a_task_that_is_cancelled_breaks_no_other(registry):
    """Of scrapes on one event loop, one is cancelled while it sends; the others have whole pages."""

    async def application(scope, receive, send):
        """Never called."""

    app = scaleobs.instrument(application, registry=registry)
    collector = Large()
    registry.register(collector)

    async def scrape(body, stop_after=None):
        async def send(message):
            body.append(message.get("body", b""))
            if stop_after is not None and len(body) > stop_after:
                await asyncio.Event().wait()
            await asyncio.sleep(0)

        await app(http_scope(path="/metrics"), None, send)

    async def all_scrapes():
        bodies = [[] for _ in range(12)]
        tasks = [asyncio.create_task(scrape(body, 2 if number == 1 else None)) for number, body in enumerate(bodies)]
        await asyncio.wait(tasks, timeout=servers.LIMIT, return_when=asyncio.FIRST_COMPLETED)
        tasks[1].cancel()
        await asyncio.wait(tasks, timeout=servers.LIMIT)
        return bodies, [task.cancelled() for task in tasks]

    bodies, cancelled = asyncio.run(all_scrapes())

    assert [1] == [number for number, one in enumerate(cancelled) if one]
    assert [2_000] * 11 == [large(b"".join(body)) for number, body in enumerate(bodies) if number != 1]
    assert 3 > collector.calls
