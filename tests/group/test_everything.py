"""Several workers together: the limit of label sets, exemplars, native histograms, children, stable sums."""

from __future__ import annotations

import contextlib
from itertools import accumulate

import pytest

from support import servers
from support.expositions import families, message, packed
from support.group import fleet
from support.group.pages import OPENMETRICS

pytestmark = pytest.mark.servers

GTHREAD = [*fleet.GUNICORN, "--threads", "2", "wsgi_shop:app"]
ROUTES = "for number in range(200):\n    shop.add_url_rule(f'/many/{number}', f'{number}', lambda: 'many')\n"
FORKS = """

def count_in_a_child():
    for _ in range(5):
        shop.test_client().get("/hello/child")
    shop.test_client().get("/metrics")


@shop.get("/fork")
def fork():
    import multiprocessing

    pid = os.fork()
    if pid == 0:
        try:
            count_in_a_child()
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    child = multiprocessing.get_context("fork").Process(target=count_in_a_child)
    child.start()
    child.join()
    return "forked"
"""


def test_limit_of_label_sets(tmp_path):
    """It holds for all workers together, except for label sets that appear at the same moment; all requests count."""
    with fleet.running(GTHREAD, tmp_path, settings='"max_label_sets": 50', wsgi=ROUTES) as shop:
        shop.send([f"/many/{number}" for number in range(200)] * 5, each=5)
        shop.until(lambda page: 1000 == page.total("http_requests_total"))
        pages = shop.scrapes()
    (shown,) = {tuple(sorted(page.sent().items())) for page in pages}
    over = [labels for labels, _ in shown if labels[0] == "_overflow"]

    assert 1000 == sum(number for _, number in shown)
    assert 50 <= len(shown) - len(over) <= 53
    assert 1 <= len(over) <= 4
    assert {0} < {page.total("scaleobs_label_sets_dropped_total") for page in pages} | {0}


def test_exemplars_of_all_workers(tmp_path):
    """A scrape with exemplars enables them in all workers, and shows the latest of each bucket from any worker."""
    with fleet.running(fleet.UVICORN, tmp_path) as shop, contextlib.ExitStack() as opened:
        shop.scrape(OPENMETRICS)
        connections = {}
        while len(connections) < 2:
            connection = opened.enter_context(contextlib.closing(shop.connection()))
            connection.request("GET", "/hello/first")
            answer = connection.getresponse()
            answer.read()
            connections.setdefault(int(answer.getheader("x-worker")), connection)
        traces = {"a" * 32: "/slow/0.3", "b" * 32: "/hello/quick"}

        def is_shown():
            for (trace, path), connection in zip(traces.items(), connections.values(), strict=True):
                connection.request("GET", path, headers={"traceparent": f"00-{trace}-{'c' * 16}-01"})
                connection.getresponse().read()
            return set(traces) <= seen(shop.scrape(OPENMETRICS))

        servers.until(is_shown)
        pages = shop.scrapes(workers=3, headers=OPENMETRICS)

    assert [set(traces)] * len(pages) == [seen(page) & set(traces) for page in pages]


def seen(page):
    """Return the traces of a page's exemplars."""
    return {labels["trace_id"] for labels in page.exemplars}


def test_native_histograms_of_all_workers(tmp_path):
    """A scrape with protobuf shows one histogram for each label set, with the requests of all workers."""
    accept = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
    with fleet.running(GTHREAD, tmp_path, settings='"native_histograms": True') as shop:
        workers = shop.send([f"/hello/{number}" for number in range(400)])
        shop.until(lambda page: 400 == page.total("http_requests_total"))
        counts = [natives(shop.fetch("/metrics", {"Accept": accept})[2]) for _ in range(8)]

    assert len(workers) > 1
    assert [[400]] * 8 == counts


def natives(body):
    """Return how many requests the buckets of each native histogram have."""
    (family,) = (one for one in families(body) if one.name == "http_request_duration_seconds")
    histograms = [message(fields[7][0]) for _, fields in family.metrics]
    return [sum(accumulate(packed(histogram[13][0]))) for histogram in histograms]


@pytest.mark.parametrize("preload", [[], ["--preload"]], ids=["", "preload"])
def test_children_of_workers(preload, tmp_path):
    """The counts of a worker's own children aren't shown, and change nothing."""
    with fleet.running([*GTHREAD, *preload], tmp_path, wsgi=FORKS) as shop, shop.watched():
        shop.send(["/hello/before"] * 100)
        shop.send(["/fork"] * 12)
        shop.send(["/hello/after"] * 100)
        page = shop.until(lambda page: 212 == page.total("http_requests_total"))
        pages = [page, *shop.scrapes()]

    assert {(212, 0, 4)} == {(page.total("http_requests_total"), page.in_flight, page.workers) for page in pages}
    assert {200} == {page.total("http_requests_total", route="/hello/<name>") for page in pages}
    assert {0} == {page.total("scaleobs_internal_faults_total") for page in pages}


def test_sums_are_the_same_in_all_workers(tmp_path):
    """
    Without requests, all workers' pages have the same sums.

    Seconds have a fraction, so that the order of the addition changes the last digit. Prometheus takes a counter that
    falls by that for a restarted one: its whole value would count as an increase.
    """
    metrics = """
import random
from prometheus_client import Counter, Histogram

PAID = Counter("paid_total", "Paid.")
SIZES = Histogram("sizes", "Sizes.")

@shop.get("/pay")
def pay():
    PAID.inc(random.random())
    SIZES.observe(random.random())
    return "paid"
"""
    with fleet.running(GTHREAD, tmp_path, wsgi=metrics) as shop:
        shop.send(["/pay"] * 400)
        shop.until(lambda page: 400 == page.total("http_requests_total"))
        pages = shop.scrapes(24, workers=4)
        names = ("paid_total", "sizes_sum", "http_request_duration_seconds_sum")
        shown = {tuple(page.total(name) for name in names) for page in pages}

    assert 1 == len(shown)
