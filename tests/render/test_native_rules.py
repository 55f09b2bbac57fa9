"""The same rules on two real Prometheus: one keeps classic histograms, the other native ones instead."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import urllib.parse
from pathlib import Path

import pytest

from scaleobs._cli.demo.processes import get, get_json, prometheus_command, running, wait_until
from scaleobs._render import output
from scaleobs._render.dashboards import dashboard
from scaleobs.objectives import Latency

pytestmark = pytest.mark.servers

SERVICE = """
from prometheus_client import CollectorRegistry

from scaleobs._http.endpoints import preferred
from scaleobs._metrics.page import MEDIA_TYPES, expose
from scaleobs._metrics.families import attach

registry, storage = attach(CollectorRegistry())
storage.is_native = True
COUNTED = [("/", "200", 0.1, 60), ("/a", "200", 0.3, 20), ("/a", "200", 0.9, 20), ("/a", "500", 0.9, 50)]


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    if scope["path"] == "/observe":
        for route, status, seconds, times in COUNTED:
            series = storage.local.shard.child_of(("GET", route, status))
            for _ in range(times):
                series.observe(seconds)
            storage.local.shard.open[0] += times
    accept = dict(scope["headers"]).get(b"accept", b"").decode()
    headers, pieces = expose(registry, storage, preferred(accept, MEDIA_TYPES), is_gzipped=False, on_fault=print)
    headers = [(name.lower().encode(), value.encode()) for name, value in headers]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"".join(pieces)})
"""
OBJECTIVES = [Latency(99, under=0.5), Latency(99, under=0.5, route="/a")]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory, tool):
    """Both Prometheus, the rules loaded, five minutes as two seconds; and a function that has requests counted."""
    directory = tmp_path_factory.mktemp("kinds")
    (directory / "counting_service.py").write_text(SERVICE)
    paths = os.environ["PATH"]
    os.environ["PATH"] = f"{Path(tool('prometheus')).parent}{os.pathsep}{paths}"

    def serve(port):
        return [sys.executable, "-m", "uvicorn", "counting_service:app", "--port", str(port), "--log-level", "warning"]

    def prometheus(name, service, flags):
        folder = directory / name
        folder.mkdir()
        (folder / "orders-rules.yml").write_text(output.rules_text("orders", objectives=OBJECTIVES, time_scale=150))
        targets = {"orders": service.port}
        command = prometheus_command(folder, targets=targets, alertmanager=9, scrape_interval="200ms", flags=flags)
        return running(name, command, ready="/-/ready", directory=folder)

    try:
        with (
            running("service", serve, ready="/metrics", directory=directory) as service,
            prometheus("classic", service, []) as classic,
            prometheus("native", service, ["--enable-feature=native-histograms"]) as native,
        ):
            programs = {"classic": classic, "native": native}
            for one in programs.values():
                wait_until(lambda one=one: found(one, 'up{job="orders"} == 1'), seconds=20, what="a scrape")
            yield programs, service
    finally:
        os.environ["PATH"] = paths


@contextlib.contextmanager
def requests(service):
    """Have requests counted ten times a second."""
    is_over = threading.Event()

    def go_on():
        while not is_over.wait(0.1):
            get(f"{service.url}/observe")

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def found(prometheus, query):
    """Return the values that a query has, by their labels but the name and the job."""
    answer = get_json(f"{prometheus.url}/api/v1/query?" + urllib.parse.urlencode({"query": query}))
    return {
        tuple(label for name, label in sorted(one["metric"].items()) if name not in {"__name__", "job"}): one
        for one in answer["data"]["result"]
    }


def number(prometheus, query):
    """Return the single number of a query, or None if it has none."""
    (one,) = found(prometheus, query).values() or [None]
    return one and float(one["value"][1])


def test_rules_and_panels_agree_for_both_kinds(recorded):
    """
    Shares, rates, quantiles and alerts agree; and after the last requests the rates are 0 and the shares are empty.
    """
    programs, service = recorded
    slow = {"job:http_requests_slow:ratio_rate5m": 0.2, "job_route:http_requests_slow:ratio_rate5m": 0.5}
    rates = ["job:http_requests_timed:rate5m", "job:http_requests_slow:rate5m", "job_route:http_requests_slow:rate5m"]
    panels = [panel for panel in dashboard("orders")["panels"] if "Mean latency" in panel["title"]]
    panels += [panel for panel in dashboard("orders")["panels"] if panel["title"] == "Latency"]
    expressions = [target["expr"] for panel in panels for target in panel["targets"]]
    filled = [text.replace("$job", "orders").replace("$instance", ".+").replace("$route", ".+") for text in expressions]
    burning = 'ALERTS{alertname="LatencyBudgetBurn",route="/a",long_window="1h",alertstate="firing"}'
    with requests(service):
        for name, one in programs.items():
            for alert in ('ALERTS{alertname="HighRequestLatency",alertstate="firing"}', burning):
                wait_until(lambda one=one, alert=alert: found(one, alert), seconds=30, what=f"{name}: {alert}")
        shares = {
            name: {query: number(one, f"round({query}, 0.01)") for query in slow} for name, one in programs.items()
        }
        seen = {
            name: [found(one, text.replace("$__rate_interval", "2s")) for text in filled]
            for name, one in programs.items()
        }
        kinds = {name: bool(found(one, "http_request_duration_seconds_bucket")) for name, one in programs.items()}

    assert {"classic": slow, "native": slow} == shares
    assert {"classic": True, "native": False} == kinds
    assert [one.keys() for one in seen["classic"]] == [one.keys() for one in seen["native"]]
    for classic, native in zip(seen["classic"], seen["native"], strict=True):
        for labels, one in classic.items():
            # A bucket of 0.5 to 1 s is less precise than a native one.
            assert float(one["value"][1]) == pytest.approx(float(native[labels]["value"][1]), rel=0.6)

    def is_quiet(one):
        # Each rule has its own evaluation, and the scrapes of the last requests leave each window at another one.
        return [0, 0, 0] == [number(one, query) for query in rates] and {} == found(one, share)

    share = "job:http_requests_slow:ratio_rate5m"
    for name, one in programs.items():
        wait_until(lambda one=one: is_quiet(one), seconds=20, what=f"{name}: all rates are 0 and the share is gone")
