"""The user's own prometheus_client metrics over all workers: real servers."""

from __future__ import annotations

import json
import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from support import servers

pytestmark = pytest.mark.servers

GUNICORN = ["gunicorn", "-w", "3", "-b", "127.0.0.1:PORT"]
SERVERS = {
    "gunicorn": ([*GUNICORN, "counting_app:wsgi"], 3, 3000),
    "gunicorn preload": ([*GUNICORN, "--preload", "counting_app:wsgi"], 3, 0),
    "gunicorn gthread preload": ([*GUNICORN, "--preload", "--threads", "3", "counting_app:wsgi"], 3, 0),
    "uvicorn": (["uvicorn", "--workers", "2", "--port", "PORT", "counting_app:asgi"], 2, 2000),
}
"""The command, the number of workers, and their counts after the import of the application."""


@contextmanager
def serving(kind, folder, **environ):
    """Run a server, and yield its port."""
    command, workers, _ = SERVERS[kind]
    shutil.copy(Path(__file__).with_name("support") / "group" / "counting_app.py", folder)
    port = servers.free_port()
    command = [str(servers.BIN / command[0]), *(part.replace("PORT", str(port)) for part in command[1:])]
    with servers.running(command, port, folder, **environ):
        servers.until(lambda: len(levels(port)) == workers)
        yield port


def samples(port, query="", *, is_openmetrics=False):
    """Return the samples of one scrape by name and labels; each is unique."""
    accept = {"accept": "application/openmetrics-text; version=1.0.0"} if is_openmetrics else {}
    status, body = servers.get(port, "/metrics" + query, accept)
    found = {}
    for family in (parse_openmetrics if is_openmetrics else parse_text)(body.decode()):
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            assert key not in found
            found[key] = sample.value

    assert 200 == status
    return found


def levels(port):
    """Return the gauge of each worker, by the worker's number."""
    return {dict(labels)["worker"]: value for (name, labels), value in samples(port).items() if name == "level"}


def answered_by(found):
    """Return the number of the worker that answered a scrape."""
    return next(dict(labels)["worker"] for name, labels in found if name == "function")


def each_scrape(port, workers, query=""):
    """Scrape until each worker has answered, and return the pages."""
    found, seen = [], set()

    def some():
        with ThreadPoolExecutor(workers) as pool:
            pages = list(pool.map(lambda _: samples(port, query), range(workers)))
        seen.update(map(answered_by, pages))
        found.extend(pages)
        return len(seen) == workers

    servers.until(some)
    return found


def count(port, requests):
    """Send requests to several workers."""

    def one(number):
        return request(port, f"/count?size={number % 6}&kind={'ab'[number % 2]}")["pid"]

    with ThreadPoolExecutor(4) as pool:
        assert 1 < len(set(pool.map(one, range(requests))))


def request(port, path):
    """Return the answer of a worker."""
    return json.loads(servers.get(port, path)[1])


def level_of_each(port, workers):
    """Make each worker set its gauges to its pid, and return the pids by the workers' numbers."""
    done = set()

    def has_answered():
        done.add(request(port, "/own")["pid"])
        return len(done) == workers

    servers.until(has_answered)
    return {worker: int(value) for worker, value in levels(port).items()}


def counts(requests, at_import, more=0.0):
    """Return the expected samples after this number of requests, of sizes 0 to 5 and kinds a and b in turn."""
    sizes = [number % 6 for number in range(requests)]
    of_kind = {kind: [size for number, size in enumerate(sizes) if "ab"[number % 2] == kind] for kind in "ab"}
    expected = {("jobs_total", ()): at_import + requests + more, ("newer_jobs_total", ()): requests}
    for kind, its in of_kind.items():
        expected["kinds_total", (("kind", kind), ("size", "any"))] = 2 * len(its)
        expected |= summary("wait_seconds", (("kind", kind),), its)
        expected |= histogram("newer_size_bytes", (("kind", kind),), its)
    return expected | histogram("size_bytes", (), sizes) | summary("newer_wait_seconds", (), sizes)


def summary(name, labels, sizes):
    """Return the values of a summary."""
    return {(f"{name}_count", labels): len(sizes), (f"{name}_sum", labels): sum(sizes)}


def histogram(name, labels, sizes):
    """Return the values of a histogram."""
    ends = {"1.0": 1, "2.0": 2, "4.0": 4, "+Inf": 9}
    buckets = {
        (f"{name}_bucket", tuple(sorted([*labels, ("le", end)]))): sum(size <= bound for size in sizes)
        for end, bound in ends.items()
    }
    return buckets | summary(name, labels, sizes)


def shown(found, expected):
    """Return the values of the tested metrics in a scrape."""
    names = {name for name, _ in expected}
    return {key: value for key, value in found.items() if key[0] in names}


@pytest.mark.parametrize("place", ["", "1"], ids=["", "own registry"])
@pytest.mark.parametrize("kind", SERVERS)
def test_every_scrape_has_the_sums(kind, place, tmp_path):
    """
    Any worker answers a scrape with the sums over all, in metrics from before and after the first request.

    What a process counts before it forks the workers isn't a worker's, and neither is what a worker's child counts.
    """
    _, workers, at_import = SERVERS[kind]
    with serving(kind, tmp_path, OWN_REGISTRY=place) as port:
        count(port, 60)
        expected = counts(60, at_import)
        scrapes = [shown(found, expected) for found in each_scrape(port, workers)]
        child = request(port, "/child")
        after = shown(samples(port, is_openmetrics=True), expected)
        everything = samples(port)

    assert [expected] * len(scrapes) == scrapes
    assert {"jobs": 1, "level": 7} == child
    assert expected == after
    assert 1 == everything["build_info", (("version", "1"),)]
    assert 1 == everything["state", (("state", "off"),)]
    assert set() == {name for name, _ in everything if name.endswith("_created")}


def test_a_killed_worker(tmp_path):
    """The counts of a killed worker stay, its gauges go, and a new worker continues its counts."""
    with serving("gunicorn", tmp_path) as port:
        count(port, 60)
        pids = level_of_each(port, 3)
        worker, pid = min(pids.items())
        os.kill(pid, signal.SIGKILL)
        servers.until(lambda: pid not in levels(port).values())
        servers.until(lambda: len(levels(port)) == 3)
        # The new worker has counted while it imported the application.
        expected = counts(60, 3000, more=1000)
        scrapes = [shown(found, expected) for found in each_scrape(port, 3)]
        sums = {found["level_sum", (("worker", "w"), ("x", "1"))] for found in each_scrape(port, 3)}
        now = levels(port)

    assert {sum(pids.values()) - pid} == sums
    assert [expected] * len(scrapes) == scrapes
    assert {**pids, worker: 7} == now


def test_gauges(tmp_path):
    """The mode of a gauge defines its value; without one there is a sample for each worker."""
    own = (("worker", "w"), ("x", "1"))
    with serving("gunicorn", tmp_path) as port:
        pids = level_of_each(port, 3)
        latest = request(port, "/own")["pid"]
        scrapes = each_scrape(port, 3)
        removed = request(port, "/remove")["pid"]
        after = {found["level_sum", own] for found in each_scrape(port, 3)}

    numbers = list(pids.values())

    assert {sum(numbers) - removed} == after
    for found in scrapes:
        gauges = {name: found[name, own] for name, labels in found if labels == own and name.startswith("level_")}

        assert {"0", "1", "2"} == set(pids)
        assert {
            "level_sum": sum(numbers),
            "level_livesum": sum(numbers),
            "level_min": min(numbers),
            "level_max": max(numbers),
            "level_mostrecent": latest,
            "level_livemostrecent": latest,
        } == gauges
        assert {(("scaleobs_worker", worker), *own): pid for worker, pid in pids.items()} == {
            labels: value for (name, labels), value in found.items() if name == "level_liveall"
        }
        assert {"0": 0, "1": 0, "2": 0} == {
            dict(labels)["worker"]: value for (name, labels), value in found.items() if name == "untouched"
        }
        assert [5] == [value for (name, _), value in found.items() if name == "function"]


def test_a_metric_that_one_worker_has_made(tmp_path):
    """Metrics that only one worker has are on every scrape, and can be requested by name."""
    with serving("gunicorn", tmp_path) as port:
        request(port, "/late")
        scrapes = each_scrape(port, 3)
        request(port, "/count?size=1&kind=a")
        has_answered = ["late_total", "size_bytes_count", "kinds_total", "newer_size_bytes_sum", "function"]
        named = each_scrape(port, 3, "?name[]=" + "&name[]=".join(has_answered))

    for found in scrapes:
        assert 3 == found["late_total", ()]
        assert [4] == [value for (name, _), value in found.items() if name == "late_level"]
    for found in named:
        assert {
            ("function", (("worker", answered_by(found)),)): 5,
            ("late_total", ()): 3,
            ("size_bytes_count", ()): 1,
            ("kinds_total", (("kind", "a"), ("size", "any"))): 2,
            ("newer_size_bytes_sum", (("kind", "a"),)): 1,
        } == found


def test_metrics_of_prometheus_clients_multiprocess_mode(tmp_path):
    """The same holds if a variable makes prometheus_client keep its values in its own files."""
    (tmp_path / "named").mkdir()
    with serving("gunicorn", tmp_path, PROMETHEUS_MULTIPROC_DIR=str(tmp_path / "named")) as port:
        count(port, 30)
        expected = counts(30, 3000)
        scrapes = [shown(found, expected) for found in each_scrape(port, 3)]

    assert [expected] * len(scrapes) == scrapes
