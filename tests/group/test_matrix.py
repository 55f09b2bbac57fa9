"""One line of code, every server and class of worker: any scrape shows the counts of all workers."""

from __future__ import annotations

import pytest

from support.group import fleet
from support.group.pages import OPENMETRICS

pytestmark = pytest.mark.servers

GRANIAN = """
import multiprocessing, sys
from granian import Granian

if __name__ == "__main__":
    multiprocessing.set_start_method("{}")
    Granian("{}_shop:app", port=int(sys.argv[1]), workers=4, interface="{}").serve()
"""
GUNICORN = fleet.GUNICORN
UVICORN_WORKER = [*GUNICORN, "-k", "uvicorn_worker.UvicornWorker", "asgi_shop:app"]
OFF = '"log_format": "off"'

# The command, and what it may add to the one line.
SERVERS = {
    "gunicorn sync": ([*GUNICORN, "wsgi_shop:app"], ""),
    "gunicorn sync preload": ([*GUNICORN, "--preload", "wsgi_shop:app"], OFF),
    "gunicorn gthread": ([*GUNICORN, "--threads", "4", "wsgi_shop:app"], OFF),
    "gunicorn gthread preload": ([*GUNICORN, "--threads", "4", "--preload", "wsgi_shop:app"], ""),
    "gunicorn gevent": ([*GUNICORN, "-k", "gevent", "wsgi_shop:app"], ""),
    "gunicorn gevent preload": ([*GUNICORN, "-k", "gevent", "--preload", "wsgi_shop:app"], ""),
    "gunicorn uvicorn": (UVICORN_WORKER, ""),
    "gunicorn uvicorn preload": ([*UVICORN_WORKER, "--preload"], OFF),
    "uvicorn": (fleet.UVICORN, ""),
    "granian asgi fork": (GRANIAN.format("fork", "asgi", "asgi"), OFF),
    "granian asgi spawn": (GRANIAN.format("spawn", "asgi", "asgi"), ""),
    "granian wsgi fork": (GRANIAN.format("fork", "wsgi", "wsgi"), ""),
    "granian wsgi spawn": (GRANIAN.format("spawn", "wsgi", "wsgi"), ""),
    "hypercorn": (["hypercorn", "-w", "4", "-b", "127.0.0.1:PORT", "asgi_shop:app"], ""),
}
ONCE = {
    *("http_requests", "http_request_duration_seconds", "active_connections", "service_ready", "service_info"),
    *("scaleobs_label_sets_dropped", "scaleobs_internal_faults", "scaleobs_workers"),
    *("python_gc_objects_collected", "python_gc_objects_uncollectable", "python_gc_collections", "python_info"),
    *("process_virtual_memory_bytes", "process_resident_memory_bytes", "process_start_time_seconds"),
    *("process_cpu_seconds", "process_open_fds", "process_max_fds"),
}


@pytest.mark.parametrize("kind", SERVERS)
def test_any_scrape_is_the_sum(kind, tmp_path):
    """
    Every scrape, whichever worker answers it, shows each of 1,000 requests, in both text formats.

    Every other family is there once, with the same values from every worker.
    """
    command, settings = SERVERS[kind]
    with fleet.running(command, tmp_path, settings=settings) as shop:
        workers = shop.send([*(f"/hello/{number}" for number in range(900)), *["/nowhere"] * 60, *["/boom"] * 40])
        shop.until(lambda page: 1000 == page.total("http_requests_total"))
        pages = shop.scrapes()
        others = shop.scrapes(4, headers=OPENMETRICS)
    route = next(iter(route for route, _ in pages[0].sent() if route.startswith("/hello")))

    assert len(workers) > 1
    assert {200} == {page.status for page in pages + others}
    for page in pages + others:
        expected = {(route, "200"): 900, ("unmatched", "404"): 60, ("/boom", "500"): 40}
        assert expected == page.sent()
        assert 1000 == page.total("http_request_duration_seconds_count")
        assert 1000 == page.total("http_request_duration_seconds_bucket", le="+Inf")
        assert (4, 0) == (page.workers, page.in_flight)
        assert 0 == page.total("scaleobs_internal_faults_total")
        assert {0} == {value for key, value in page.items() if unborn(key)}
        assert ONCE <= set(page.families)
        assert len(set(page.families)) == len(page.families)
        assert not page.is_repeated
    for same in ("process_start_time_seconds", "process_max_fds", "service_info", "service_ready"):
        assert 1 == len({tuple(item for item in page.items() if item[0][0] == same) for page in pages + others})
    assert {"counter"} == {page.kinds["http_requests"] for page in pages + others}


def unborn(key):
    """Return whether a series is there before its first request."""
    name, labels = key
    return (
        name == "http_requests_total" and dict(labels)["status_code"] in ("500", "503") and "/boom" not in str(labels)
    )
