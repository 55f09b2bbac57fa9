"""
Four workers under load, one of them killed every few seconds, scraped by a real Prometheus: for `make soak`.

Without SOAK_SECONDS in the environment there is nothing to do here.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import re
import signal
import threading
import time
import urllib.parse
from pathlib import Path

import pytest

from scaleobs._cli.demo.processes import get_json, prometheus_command, running, wait_until
from support.group import fleet

SECONDS = float(os.environ.get("SOAK_SECONDS", "0"))
COUNTER = re.compile("(http|scaleobs|process_cpu|python_gc).*_(total|count|sum|bucket)")
SERVERS = {
    "gunicorn": [*fleet.GUNICORN, "--threads", "4", "--preload", "--max-requests", "400", "wsgi_shop:app"],
    "uvicorn worker": [*fleet.GUNICORN, "-k", "uvicorn_worker.UvicornWorker", "asgi_shop:app"],
}


@pytest.mark.skipif(not SECONDS, reason="It takes minutes: `make soak` runs it.")
@pytest.mark.parametrize("kind", SERVERS)
def test_workers_that_are_killed(kind, tmp_path, tool):
    """No counter falls in Prometheus, nothing is lost but what was open, and neither files nor memory grow."""
    tool("prometheus")
    over = time.monotonic() + SECONDS / len(SERVERS)
    settings = '"log_format": "off", "native_histograms": True'
    with fleet.running(SERVERS[kind], tmp_path / "shop", settings=settings) as shop, contextlib.ExitStack() as opened:
        command = prometheus_command(tmp_path, targets={"shop": shop.port}, alertmanager=9, scrape_interval="500ms")
        prometheus = opened.enter_context(running("prometheus", command, ready="/-/ready", directory=tmp_path))
        wait_until(lambda: value(prometheus, 'up{job="shop"}'), seconds=30, what="a scrape")
        directory, root = shop.directory, shop.root
        answered, kills, samples = [0] * 4, 0, []
        threads = [threading.Thread(target=load, args=(shop, over, answered, place)) for place in range(4)]
        for thread in threads:
            thread.start()
        while time.monotonic() < over:
            time.sleep(random.uniform(1, 3))
            with contextlib.suppress(OSError):
                os.kill(random.choice(children(root)), signal.SIGKILL)
                kills += 1
            samples.append((len(list(directory.iterdir())), space(directory), memory(shop)))
        for thread in threads:
            thread.join()
        page = shop.until(lambda page: (4, 0) == (page.workers, page.in_flight))
        total = page.total("http_requests_total")
        shop.scrapes(24, workers=3)
        time.sleep(2)
        window = f"{int(SECONDS) + 60}s"
        names = get_json(f"{prometheus.url}/api/v1/label/__name__/values")["data"]
        counters = [name for name in names if COUNTER.fullmatch(name)]
        resets = {name: value(prometheus, f"sum(resets({name}[{window}]))") for name in counters}
        down = value(prometheus, f'count_over_time((up{{job="shop"}} == 0)[{window}:500ms])')
    half = len(samples) // 2
    report = {
        "requests answered": sum(answered),
        "requests counted": total,
        "kills": kills,
        "resets": sum(resets.values()),
        "counters": len(counters),
        "scrapes that failed": down or 0,
        "files": [count for count, _, _ in samples][-1],
        "KiB of files": [samples[half][1] // 1024, samples[-1][1] // 1024],
        "MiB of memory": [middle([each[2] for each in some]) >> 20 for some in (samples[:half], samples[half:])],
    }
    print(f"\n{kind}: {report}")

    assert dict.fromkeys(counters, 0) == resets
    assert "http_request_duration_seconds_bucket" in counters
    # Of an answer that is on its way when its worker is killed the client may have all, and the worker has no count.
    assert sum(answered) - 4 * kills <= total <= sum(answered) + 4 * kills
    assert max(count for count, _, _ in samples) <= 1 + 4 * 3 + 4
    assert samples[-1][1] <= 1.5 * samples[half][1]
    assert report["MiB of memory"][1] <= 1.2 * report["MiB of memory"][0] + 10


def load(shop, over, answered, place):
    """Send requests one after the other, and note how many were answered."""
    while time.monotonic() < over:
        with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(shop.connection()) as one:
            for number in range(50):
                one.request("GET", random.choice([f"/hello/{number}", f"/hello/{number}", "/nowhere", "/slow/0.01"]))
                one.getresponse().read()
                answered[place] += 1


def value(prometheus, query):
    """Return the one number that a query has."""
    answer = get_json(f"{prometheus.url}/api/v1/query?" + urllib.parse.urlencode({"query": query}))
    result = answer["data"]["result"] if answer else []
    return float(result[0]["value"][1]) if result else None


def children(root):
    """Return the pids of the workers."""
    return list(map(int, Path(f"/proc/{root}/task/{root}/children").read_text().split()))


def space(directory):
    """Return how many bytes the files of a directory take."""
    sizes = []
    for path in directory.iterdir():
        with contextlib.suppress(OSError):
            sizes.append(path.stat().st_size)
    return sum(sizes)


def memory(shop):
    """Return the memory of all workers."""
    return int(shop.scrape().total("process_resident_memory_bytes"))


def middle(numbers):
    """Return the one in the middle."""
    return sorted(numbers)[len(numbers) // 2]
