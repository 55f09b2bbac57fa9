"""A real Prometheus accepts each page with names that it would refuse, in each format."""

from __future__ import annotations

import json
import os
import sys
import urllib.parse

import hypothesis
import pytest
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from scaleobs._cli.demo.processes import get_json, running, wait_until
from scaleobs._metrics.families import attach
from support.expositions import FORMATS, page
from support.hostile_names import Collected, any_family

pytestmark = pytest.mark.servers

SERVICE = """
import json
import pathlib

import scaleobs
from prometheus_client import CollectorRegistry
from support.hostile_names import hostile

registry = CollectorRegistry()
hostile(registry)
accepted = json.loads(pathlib.Path("accepted.json").read_text())


async def application(scope, receive, send):
    pass


observed = scaleobs.instrument(application, service="names", registry=registry, native_histograms=True)


async def app(scope, receive, send):
    kind, _, number = scope.get("path", "").strip("/").partition("/")
    if kind == "as":
        headers = [one for one in scope["headers"] if one[0] != b"accept"]
        headers.append((b"accept", accepted[int(number)].encode()))
        await observed({**scope, "path": "/metrics", "headers": headers}, receive, send)
    elif kind == "page":
        content_type = pathlib.Path(f"{number}.type").read_bytes()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", content_type)]})
        await send({"type": "http.response.body", "body": pathlib.Path(f"{number}.page").read_bytes()})
    else:
        await observed(scope, receive, send)
"""
SCHEMES = ["allow-utf-8", "underscores", "dots", "values"]
PROTO = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
ACCEPTED = ["text/plain;version=0.0.4", "application/openmetrics-text;version=1.0.0", PROTO]
ACCEPTED += [f"{one};escaping={scheme}" for one in (*ACCEPTED, "text/plain;version=1.0.0") for scheme in SCHEMES]
PAGES = 60


def any_pages():
    """Return pages of any families, each with its content type."""
    found = []

    @hypothesis.settings(max_examples=PAGES // 3, database=None, derandomize=True, deadline=None)
    @hypothesis.given(st.lists(any_family(), min_size=1, max_size=6))
    def add(families):
        registry, _ = attach(CollectorRegistry())
        registry.register(Collected(*families))
        found.extend((one, page(registry, one, faults=[])) for one in FORMATS)

    add()
    return found


@pytest.fixture(scope="module", name="prometheus")
def _prometheus(tmp_path_factory, tool):
    """Return a real Prometheus with one job for each page."""
    directory = tmp_path_factory.mktemp("names")
    (directory / "names_service.py").write_text(SERVICE)
    (directory / "accepted.json").write_text(json.dumps(ACCEPTED))
    paths = [f"/as/{number}" for number in range(len(ACCEPTED))]
    for number, (content_type, body) in enumerate(any_pages()):
        (directory / f"{number}.type").write_text(content_type)
        (directory / f"{number}.page").write_bytes(body)
        paths.append(f"/page/{number}")

    def serve(port):
        return [sys.executable, "-m", "uvicorn", "names_service:app", "--port", str(port), "--log-level", "warning"]

    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "SCALEOBS_DRAIN_SECONDS": "0"}
    with running("service", serve, ready="/health", directory=directory, env=environ) as service:
        jobs = [
            {
                "job_name": path,
                "metrics_path": path,
                "static_configs": [{"targets": [service.url.removeprefix("http://")]}],
            }
            for path in paths
        ]
        config = {"global": {"scrape_interval": "2s", "scrape_timeout": "2s"}, "scrape_configs": jobs}
        (directory / "prometheus.yml").write_text(json.dumps(config))

        def command(port):
            return [
                tool("prometheus"),
                f"--config.file={directory / 'prometheus.yml'}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--enable-feature=exemplar-storage,native-histograms",
                "--log.level=warn",
            ]

        with running("prometheus", command, ready="/-/ready", directory=directory) as started:

            def is_scraped():
                return len(targets(started)) == len(paths) and all(
                    one[0] != "unknown" for one in targets(started).values()
                )

            wait_until(is_scraped, seconds=30, what="each target is scraped")
            yield started


def targets(prometheus):
    """Return the state and the last error of each job."""
    found = get_json(f"{prometheus.url}/api/v1/targets")["data"]["activeTargets"]
    return {one["labels"]["job"]: (one["health"], one["lastError"]) for one in found}


def test_prometheus_accepts_every_page(prometheus):
    """No target is down: each format with each escaping scheme, and pages of any families."""
    assert {} == {job: state for job, state in targets(prometheus).items() if state[0] != "up"}


@pytest.mark.parametrize("number", range(len(ACCEPTED)), ids=ACCEPTED)
def test_prometheus_has_what_became_equal(number, prometheus):
    """Both labels and all families are there, in each format."""
    job = f"/as/{number}"

    def values(selector):
        query = urllib.parse.urlencode({"query": selector})
        answer = get_json(f"{prometheus.url}/api/v1/query?{query}")
        return [float(one["value"][1]) for one in answer["data"]["result"]]

    def series(name, **labels):
        pairs = {**labels, "job": job}
        return "{" + ",".join([f'__name__="{name}"', *(f'{one}="{value}"' for one, value in pairs.items())]) + "}"

    wait_until(lambda: values(series("U__e_2e_f")), seconds=20, what="the second scrape")
    assert [1] == values(series("depth", queue_name="orders", U__queue_2e_name="mail"))
    for name in ("a_b_total", "U__a_2e_b_total", "U__a_2d_b_total", "a:b_total"):
        assert [1] == values(series(name)), name
    assert [1] == values(series("build_info", git_commit="2", U__git_2e_commit="1", U__git_2d_commit="3"))
    assert ([1], [2], [1]) == (values(series("U__e_2e_f")), values(series("e_f")), values(series("twice")))
    assert [0] == values(series("active_connections", protocol="http"))
    assert [] == values(series("http_requests"))
    assert values(series("scaleobs_internal_faults_total"))[0] > 0
