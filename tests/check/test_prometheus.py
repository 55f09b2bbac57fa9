"""Series, rules, targets and Alertmanagers of a real Prometheus are checked."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from scaleobs._cli.demo.processes import (
    LOOPBACK,
    Program,
    alertmanager_command,
    get,
    get_json,
    is_scraped,
    prometheus_command,
    running,
    wait_until,
)
from scaleobs._render.output import rules_text
from scaleobs.objectives import Availability, Latency
from support.check_command import call, check

pytestmark = pytest.mark.servers

SERVICES = Path(__file__).parents[1] / "support" / "services"
TIME_SCALE = 30
"""Rules are evaluated once a second."""

NATIVE = ("--enable-feature=native-histograms",)


@dataclass
class Stack:
    prometheus: Program
    services: dict[str, Program]
    folder: Path
    has_alertmanager: bool

    @property
    def url(self):
        return self.prometheus.url

    def load(self, text, rules):
        """Load rules, and wait until each is evaluated."""
        (self.folder / "the-rules.yml").write_text(text)
        self.prometheus.process.send_signal(signal.SIGHUP)

        def evaluated():
            groups = get_json(f"{self.url}/api/v1/rules")["data"]["groups"]
            loaded = [rule for group in groups for rule in group["rules"]]
            return len(loaded) == rules and all(rule["health"] != "unknown" for rule in loaded)

        wait_until(evaluated, seconds=30, what="the rules are loaded and evaluated")
        self.until_alertmanager_is_found()
        return self.folder / "the-rules.yml"

    def until_alertmanager_is_found(self):
        """Wait: Prometheus forgets it when it loads its configuration, and finds it again within five seconds."""
        url = f"{self.url}/api/v1/alertmanagers"
        if self.has_alertmanager:
            wait_until(lambda: get_json(url)["data"]["activeAlertmanagers"], seconds=30, what="Alertmanager is found")


@contextlib.contextmanager
def stack(folder, tool, *, flags=(), alertmanager=True, **environ):
    """Run a FastAPI and a Flask service, the latter with two workers, and a Prometheus that scrapes both."""
    for name in ("prometheus", "alertmanager"):
        if found := tool(name):
            os.environ["PATH"] = os.pathsep.join([str(Path(found).parent), os.environ["PATH"]])
    env = {**os.environ, "PYTHONPATH": f"{SERVICES}:{':'.join(sys.path)}", "SCALEOBS_DRAIN_SECONDS": "0", **environ}
    commands = {
        "orders": [sys.executable, "-m", "uvicorn", "orders:app", "--host", LOOPBACK, "--port"],
        "billing": [sys.executable, "-m", "gunicorn", "billing:app", "--workers", "2", "--bind"],
    }
    with contextlib.ExitStack() as opened:
        services = {}
        for name, command in commands.items():
            at = (LOOPBACK + ":").__add__ if name == "billing" else str

            def started(port, command=command, at=at):
                return [*command, at(str(port))]

            services[name] = opened.enter_context(running(name, started, ready="/ready", directory=folder, env=env))
        alertmanager_port = 1
        if alertmanager:
            program = running(
                "alertmanager", alertmanager_command(folder, webhook=1), ready="/-/ready", directory=folder
            )
            alertmanager_port = opened.enter_context(program).port
        ports = {name: program.port for name, program in services.items()}
        command = prometheus_command(
            folder, targets=ports, alertmanager=alertmanager_port, scrape_interval="200ms", flags=flags
        )
        if not alertmanager:
            config = yaml.safe_load((folder / "prometheus.yml").read_text())
            del config["alerting"]
            (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        prometheus = opened.enter_context(running("prometheus", command, ready="/-/ready", directory=folder))
        for name in services:
            wait_until(lambda name=name: is_scraped(prometheus, name), seconds=30, what=f"{name} is scraped")
        get(f"{services['orders'].url}/orders/1")
        get(f"{services['billing'].url}/bills/1")
        count = "api/v1/query?query=count(http_request_duration_seconds_count)%20==%202"
        if not flags:
            wait_until(
                lambda: get_json(f"{prometheus.url}/{count}")["data"]["result"], seconds=30, what="requests are scraped"
            )
        up = Stack(prometheus, services, folder, alertmanager)
        up.until_alertmanager_is_found()
        yield up


@pytest.fixture
def environment(monkeypatch):
    """Leave PATH as it was."""
    monkeypatch.setenv("PATH", os.environ["PATH"])


@pytest.mark.usefixtures("environment")
def test_loaded_rules_are_well_and_changed_ones_are_found(tmp_path, tool):
    """
    No finding if the rules of both services are loaded; older and wrong rules and a lost target are findings.

    `--json` writes one document.
    """
    objectives = [Availability(99.9), Latency(99, under=0.5, route="/orders/{order_id}")]
    good = rules_text("orders", objectives=objectives, time_scale=TIME_SCALE)
    rules = sum(len(group["rules"]) for group in yaml.safe_load(good)["groups"])
    with stack(tmp_path, tool) as up:
        path = up.load(good, rules)
        own_rules = tmp_path / "mine.yaml"
        shutil.copy(path, own_rules)
        well = check(up.url, "--rules", own_rules, "--service", "orders")
        defaults = check(up.url, "--service", "orders")
        document = call(up.url, "--json")

        # The loaded rules differ from the file: another threshold, and one alert less.
        older = yaml.safe_load(good)
        older["groups"][0]["rules"].pop()
        up.load(yaml.safe_dump(older).replace("> 0.0144", "> 0.02"), rules - 1)
        outdated = check(up.url, "--rules", own_rules, "--service", "orders")

        # A renamed label, a missing series, a failing expression: Prometheus accepts all of them.
        wrong = [
            {"alert": "Label", "expr": 'rate(http_requests_total{job="orders",status=~"5.."}[5m]) > 0'},
            {"alert": "Series", "expr": 'rate(http_requests{job="orders"}[5m]) > 0'},
            {"alert": "Job", "expr": 'service_ready{job="order"} == 0'},
            {"alert": "Bucket", "expr": 'http_request_duration_seconds_bucket{job="orders",le="0.3"} > 0'},
            {"alert": "Group", "expr": "sum by (code) (http_requests_total) > 0"},
            {"alert": "Fails", "expr": "http_requests_total * on (job) http_requests_total"},
            {"alert": "Record", "expr": "job:http_requests:rate1m > 1"},
            {"alert": "Later", "expr": 'http_requests_total{job="orders",status_code="418"} > 1'},
            {"alert": "Pool", "expr": 'thread_pool_busy{job="billing"} > 1'},
        ]
        text = yaml.safe_dump({"groups": [{"name": "wrong", "interval": "200ms", "rules": wrong}]})
        broken = check(up.url, "--rules", up.load(text, len(wrong)))

        up.services["billing"].process.terminate()
        wait_until(lambda: not is_up(up, "billing"), seconds=30, what="billing is down")
        lost = check(up.url, "--rules", up.folder / "the-rules.yml")
        away = check(up.url, "--job", "shop")

    assert (0, {}) == (well.code, well.findings())
    assert "prometheus" == well.content["kind"]
    assert {"up", "job:http_requests:rate5m"} & set(well.notes()) == set()
    assert 0 == defaults.code, "Rules that were made with more options than the check are no fault."
    assert "has another expression" in defaults.notes()["alert HighErrorRate"]
    # Standard output contains nothing else, so a pipeline can parse it.
    assert {"url", "kind", "checked", "findings", "notes"} == set(json.loads(document.stdout))
    assert "" == document.stderr

    assert 1 == outdated.code
    last = title_of(yaml.safe_load(good)["groups"][0]["rules"][-1])
    assert {last, "alert HighErrorRate", "alert ErrorBudgetBurn"} == set(outdated.findings())
    assert "load these rules again" in outdated.findings()[last]
    assert (
        "has another expression in the loaded group scaleobs.orders.errors: it is older"
        in outdated.findings()["alert HighErrorRate"]
    )

    found = broken.findings()
    assert "has no label 'status'; it has instance, job, method, route, status_code" == found["http_requests_total"]
    assert "Did you mean http_requests_total?" in found["http_requests"]
    assert 'no series with job="order", only with job="billing", job="orders"' == found["service_ready"]
    assert 'never matches le="0.3"' in found["http_request_duration_seconds_bucket"]
    assert "groups or matches by 'code'" in found["alert Group"]
    assert "fails: found duplicate series" in found["rule Fails"]
    assert "no such series" in found["job:http_requests:rate1m"]
    assert 7 == len(found)
    assert {"http_requests_total", "thread_pool_busy"} == set(broken.notes())

    assert "is down: " in lost.findings()[f"target {up.services['billing'].url}/metrics"]
    assert "has no target; there are jobs billing, orders" == away.findings()["job shop"]
    assert "not loaded" == away.findings()["group scaleobs.shop.errors"]


def is_up(up, job):
    targets = get_json(f"{up.url}/api/v1/targets")["data"]["activeTargets"]
    return any(one["labels"]["job"] == job and one["health"] == "up" for one in targets)


def title_of(rule):
    return f"alert {rule['alert']}"


@pytest.mark.usefixtures("environment")
def test_no_rules_are_loaded_and_no_receiver_would_be_notified(tmp_path, tool):
    """
    Findings: each group that is not loaded, rules that alert twice, and no Alertmanager; all series are present.
    """
    with stack(tmp_path, tool, alertmanager=False) as up:
        nothing = check(up.url, "--service", "orders")
        table = call(up.url, "--service", "orders")
        both = rules_text("orders", time_scale=TIME_SCALE), rules_text(time_scale=TIME_SCALE)
        groups = [group for text in both for group in yaml.safe_load(text)["groups"]]
        path = up.load(yaml.safe_dump({"groups": groups}), sum(len(group["rules"]) for group in groups))
        twice = check(up.url, "--rules", path)
        cap = check(up.url, "--rules", path, "--max-label-sets", "1")

    names = [group["name"] for group in yaml.safe_load(both[0])["groups"]]
    # Series that the rules record are not present.
    assert {*(f"group {name}" for name in names), "Alertmanager"} == {
        subject
        for subject in nothing.findings()
        if not subject.startswith(("job:", "job_route:", "job_route_status_code:"))
    }
    assert 1 == table.exit_code
    assert "not loaded" in table.stdout
    # Two rules that record one series sometimes fail.
    found = {subject for subject in twice.findings() if not subject.startswith(("rule job:", "rule job_route"))}
    assert {"groups scaleobs.*", "Alertmanager"} == found
    assert "are loaded together with those for orders: alerts fire twice" in twice.findings()["groups scaleobs.*"]
    assert any("has 1 label sets of at most 1" in what for what in cap.findings().values())


@pytest.mark.usefixtures("environment")
def test_native_histograms_without_buckets_are_found(tmp_path, tool):
    """
    A Prometheus that keeps only native histograms has no buckets: rules on latency would have no data.
    """
    with stack(tmp_path, tool, flags=NATIVE, SCALEOBS_NATIVE_HISTOGRAMS="1") as up:
        query = "api/v1/query?query=histogram_count(http_request_duration_seconds%7Bjob=%22orders%22%7D)"
        wait_until(lambda: get_json(f"{up.url}/{query}")["data"]["result"], seconds=30, what="there is a native one")
        classic = 'rate(http_request_duration_seconds_count{job="orders"}[5m])'
        both = f'{classic} or histogram_count(rate(http_request_duration_seconds{{job="orders"}}[5m]))'
        results = []
        for expression in (classic, both):
            group = {"name": "mine", "rules": [{"alert": "Mine", "expr": expression}]}
            (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"groups": [group]}))
            results.append(check(up.url, "--rules", tmp_path / "mine.yaml"))

    series = "http_request_duration_seconds_count"
    assert "Prometheus keeps only the native histogram" in results[0].findings()[series]
    assert "which is queried as well" in results[1].notes()[series]
    assert series not in results[1].findings()
