"""A page has pieces, caches texts for the next page, and any number of pages may be read at once."""

from __future__ import annotations

import gc
import itertools
import threading
import time

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily

from scaleobs import catalog
from scaleobs._metrics import page as page_module
from scaleobs._metrics.child import Exemplar
from scaleobs._metrics.families import attach
from scaleobs._metrics.storage import Storage
from support.expositions import FORMATS, OPENMETRICS, PROTOBUF, TEXT, key, observe, page, samples, scrape

every_format = pytest.mark.parametrize("content_type", FORMATS)


def filled(registry, label_sets):
    """Return a storage with this number of label sets."""
    _, storage = attach(registry)
    storage.limit = label_sets
    for number in range(label_sets):
        observe(storage, ("GET", f"/api/v1/resource-{number}/{{item_id}}", "200"), 0.01 * number)
    return storage


@pytest.fixture
def _without_collections():
    """Disable the garbage collector, whose pauses would be measured."""
    gc.disable()
    yield
    gc.enable()


class Large:
    """A user's collector with one family of very many samples."""

    def __init__(self, size):
        self.family = GaugeMetricFamily("a_large_gauge", "Help.", labels=["number"])
        for number in range(size):
            self.family.add_metric([str(number)], number)

    def collect(self):
        """Yield the family."""
        yield self.family


@every_format
@pytest.mark.parametrize("accept_encoding", ["", "gzip"])
@pytest.mark.usefixtures("_without_collections")
def test_no_piece_takes_long(content_type, accept_encoding, registry):
    """With 100,000 of our samples and 50,000 of the user's, no piece is large or takes more than milliseconds."""
    storage = filled(registry, 6_600)
    registry.register(Large(50_000))
    longest, sizes = [], []
    for _ in range(3):
        _, pieces = scrape(
            registry, storage, accept=content_type, accept_encoding=accept_encoding, on_fault=pytest.fail
        )
        taken = []
        while True:
            begun = time.thread_time()
            piece = next(pieces, None)
            taken.append(time.thread_time() - begun)
            if piece is None:
                break
            sizes.append(len(piece))
        longest.append(max(taken))

    assert 0.02 > min(longest)
    assert 100_000 > max(sizes)
    assert 200 < len(sizes)


@every_format
def test_text_is_kept_where_nothing_happens(content_type, registry):
    """The second page without a change caches the text, the third is the same, and a change is on the next page."""
    storage = filled(registry, 40)
    kept = page_module.text_cache(storage, catalog.DURATION).entries
    first = page(registry, content_type, names=catalog.DURATION.series)
    bodies = [sum(entry[2] is not None for entry in kept.values())]
    second = page(registry, content_type, names=catalog.DURATION.series)
    bodies.append(sum(entry[2] is not None for entry in kept.values()))
    third = page(registry, content_type, names=catalog.DURATION.series)
    labels = ("GET", "/api/v1/resource-7/{item_id}", "200")
    observe(storage, labels, 0.2)
    fourth = samples(page(registry, content_type, names=catalog.DURATION.series), content_type)
    bodies.append(sum(entry[2] is not None for entry in kept.values()))
    named = dict(zip(catalog.DURATION.labels, labels, strict=True))

    assert [0, 40, 39] == bodies
    assert first == second == third
    assert 2 == fourth[key("http_request_duration_seconds_count", named)]
    assert 0.27 == pytest.approx(fourth[key("http_request_duration_seconds_sum", named)])
    assert 80 == sum(fourth[name] for name in fourth if dict(name[1]).get("le") == float("inf")) + 39


def test_formats_take_turns(registry):
    """Two scrapers with different formats each get their own format, although they share the cache."""
    filled(registry, 10)
    expected = samples(page(registry))
    ours = {name: value for name, value in expected.items() if name[0].startswith("http_")}
    for content_type in [TEXT, OPENMETRICS, PROTOBUF, TEXT, PROTOBUF, OPENMETRICS, OPENMETRICS, TEXT]:
        assert ours.items() <= samples(page(registry, content_type), content_type).items()


def test_exemplar_that_comes_late_is_shown(registry):
    """A new exemplar is on the page although no count has changed since the last scrape."""
    storage = filled(registry, 3)
    for _ in range(3):
        page(registry, OPENMETRICS)
    series = observe(storage, ("GET", "/late", "200"), 0.01)
    for _ in range(3):
        page(registry, OPENMETRICS)
    series.exemplars[1] = Exemplar("a" * 32, "b" * 16, 0.01, 1.0)

    assert b"a" * 32 in page(registry, OPENMETRICS)
    assert b"a" * 32 not in page(registry)


def test_kept_text_goes_with_its_series():
    """The text of a series that no longer exists is removed from the cache."""
    registry = CollectorRegistry()
    storage = filled(registry, 20)
    for _ in range(2):
        page(registry)
    kept = page_module.text_cache(storage, catalog.DURATION).entries
    before = len(kept)
    for labels in list(storage.local.shard.children)[:15]:
        del storage.local.shard.children[labels]
    page(registry)

    assert (20, 5) == (before, len(kept))


def test_kept_text_goes_with_its_storage():
    """The cache of a registry is collected with it."""
    registry = CollectorRegistry()
    filled(registry, 5)
    page(registry)
    gc.collect()
    before = len(page_module._caches)
    del registry
    gc.collect()

    assert before - 1 == len(page_module._caches)


def test_scrapes_while_requests_are_counted():
    """Four threads scrape while four count: each page is valid, no count falls, and the last page is exact."""
    registry, storage = attach(CollectorRegistry())
    stop, failed, counted = threading.Event(), [], []

    def count(thread):
        number = 0
        while not stop.is_set():
            number += 1
            observe(storage, ("GET", f"/{number % 20}", "200"), 0.001 * (number % 300))
        counted.append(number)

    def read_pages(content_type):
        before = {}
        try:
            while not stop.is_set():
                found = samples(page(registry, content_type), content_type)
                ours = {name: value for name, value in found.items() if name[0].startswith("http_")}
                fallen = {name for name, value in before.items() if ours.get(name, 0) < value - 1e-9}
                assert not fallen
                before = ours
                for name, value in ours.items():
                    if name[0] == "http_requests_total":
                        assert value == ours["http_request_duration_seconds_count", name[1]]
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=count, args=(number,)) for number in range(4)]
    threads += [
        threading.Thread(target=read_pages, args=(content_type,))
        for content_type in itertools.islice(itertools.cycle([TEXT, OPENMETRICS, PROTOBUF]), 4)
    ]
    for thread in threads:
        thread.start()
    time.sleep(2)
    stop.set()
    for thread in threads:
        thread.join()
    found = samples(page(registry))

    assert [] == failed
    assert sum(counted) == sum(value for name, value in found.items() if name[0] == "http_requests_total")


def test_unfinished_page_is_harmless(registry):
    """A page that is read in part changes nothing."""
    storage = filled(registry, 1000)
    for content_type in FORMATS:
        _, pieces = scrape(registry, storage, accept=content_type, accept_encoding="gzip", on_fault=pytest.fail)
        next(pieces)
        next(pieces)
        pieces.close()

    assert 1000 == sum(value for name, value in samples(page(registry)).items() if name[0] == "http_requests_total")


def test_storage_of_one_registry_never_shows_in_another():
    """Each storage has its own cache."""
    pages = []
    for seconds in (0.1, 0.2):
        registry = CollectorRegistry()
        registry, storage = attach(registry)
        assert isinstance(storage, Storage)
        observe(storage, ("GET", "/", "200"), seconds)
        for _ in range(3):
            found = samples(page(registry))
        pages.append({value for name, value in found.items() if name[0] == "http_request_duration_seconds_sum"})

    assert [{0.1}, {0.2}] == pages
