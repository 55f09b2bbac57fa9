"""
A thousand pods and one Prometheus: what the rules and the dashboard's panels cost, for `make soak`.

`make soak ARGS="-k thousand_pods"` prints the tables of docs/scale.md; PODS=200 takes fewer. Without SOAK_SECONDS in
the environment there is nothing to do here.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path

import pytest

from drills.cluster import NAMESPACE, scraped_at
from drills.pods import pod_name, service_of
from drills.stage import staged
from scaleobs.cli.stack import LOOPBACK, free_port, get, wait_until
from scaleobs.objectives import Availability, Latency
from scaleobs.render.outputs import dashboard_texts, rules_text

PODS = int(os.environ.get("PODS", "1000"))
INTERVAL_SECONDS = 30
HISTORY_SECONDS = 330
"""The five minutes that rates are taken over, and one scrape."""
LOOKS = 6
OBJECTIVES = (Availability(99.9), Latency(99, under=0.5), Latency(95, under=0.25, route="/things-0/{number}"))
TESTS = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif("SOAK_SECONDS" not in os.environ, reason="It takes ten minutes: `make soak` runs it.")


@pytest.fixture
def fleet():
    """Return the port of a process that is all the pods."""
    port = free_port()
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    process = subprocess.Popen(
        [sys.executable, TESTS / "drills" / "pods.py", str(port), str(PODS)], env={**os.environ, "PYTHONPATH": path}
    )
    try:
        wait_until(
            lambda: get(f"http://{LOOPBACK}:{port}/pods/0/metrics")[0] == 200, seconds=60, what="The pods are up"
        )
        yield port
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def stage(fleet, tmp_path, tool):
    """Every pod is scraped and every rule is loaded, and both have been for as long as rates need."""
    tool("prometheus"), tool("alertmanager")
    with staged(tmp_path, interval=f"{INTERVAL_SECONDS}s", more=scraped_at(fleet)) as stage:
        targets = [
            {
                "targets": [f"{LOOPBACK}:{fleet}"],
                "labels": {
                    "__metrics_path__": f"/pods/{pod}/metrics",
                    "instance": f"pod-{pod}",
                    "job": service_of(pod),
                    "namespace": NAMESPACE,
                    "pod": pod_name(pod),
                },
            }
            for pod in range(PODS)
        ]
        (tmp_path / "targets.json").write_text(json.dumps(targets), encoding="utf-8")
        stage.load("every", rules_text(objectives=OBJECTIVES))
        wait_until(
            lambda: stage.query(f'sum(up{{job=~"service-.*"}}) == {PODS}'), seconds=300, what="All pods are scraped"
        )
        time.sleep(HISTORY_SECONDS)
        yield stage


def test_rules_of_a_thousand_pods_take_little_of_their_interval(stage):
    """
    No group of rules takes more than a tenth of its interval; what all of it costs is printed.

    The least of several looks counts: what else the machine has to do is no cost of ours.
    """
    looks = []
    for _ in range(LOOKS):
        looks.append(stage.groups())
        time.sleep(INTERVAL_SECONDS)
    resident = _resident_mib(stage.prometheus.process.pid)
    numbers = _own_numbers(stage.prometheus)
    print(f"\n{PODS} pods, {numbers['prometheus_tsdb_head_series']:,.0f} series in the head, ", end="")
    print(f"{resident:,.0f} MiB resident, {_cores(stage):.2f} cores busy\n")
    seconds = {
        group["name"]: [next(one for one in look if one["name"] == group["name"])["evaluationTime"] for look in looks]
        for group in looks[0]
    }
    print("| group | least | median | most |\n|---|---|---|---|")
    for name, took in sorted(seconds.items(), key=lambda item: -statistics.median(item[1])):
        print(f"| {name} | {' | '.join(f'{one(took) * 1000:.0f} ms' for one in (min, statistics.median, max))} |")
    rules = [rule for group in looks[-1] for rule in group["rules"]]
    least = {}
    for rule in (rule for look in looks for group in look for rule in group["rules"]):
        asked = rule["name"], " ".join(rule["query"].split())
        least[asked] = min(least.get(asked, math.inf), rule["evaluationTime"])
    print("\n| rule | least | |\n|---|---|---|")
    for (name, query), took in sorted(least.items(), key=lambda item: -item[1])[:8]:
        print(f"| {name} | {took * 1000:.0f} ms | {query[:120]} |")
    _print_panels(stage)

    assert {"ok"} == {rule["health"] for rule in rules}
    assert [] == [name for name, took in seconds.items() if min(took) > INTERVAL_SECONDS / 10]


def _print_panels(stage):
    print("\n| panel | one service | all |\n|---|---|---|")
    took = {}
    for panel in json.loads(dashboard_texts()["service.json"])["panels"]:
        for job in ("service-0", ".+"):
            if panel.get("targets"):
                expressions = [_filled_in(target["expr"], job) for target in panel["targets"]]
                took.setdefault(panel["title"], []).append(sum(_panel_seconds(stage, one) for one in expressions))
    for title, (one, everything) in sorted(took.items(), key=lambda item: -item[1][1]):
        print(f"| {title} | {one * 1000:.0f} ms | {everything * 1000:.0f} ms |")


def _filled_in(expression, job):
    values = {"$job": job, "$instance": ".+", "$route": ".+", "$__rate_interval": "2m", "$__range": "5m"}
    for name, value in values.items():
        expression = expression.replace(name, value)
    return expression


def _panel_seconds(stage, expression):
    """Ask for the history that there is, in the steps that an hour on a screen has."""
    now = time.time()
    asked = {"query": expression, "start": now - 300, "end": now, "step": 15}
    begun = time.monotonic()
    answer = get(f"{stage.prometheus.url}/api/v1/query_range?{urllib.parse.urlencode(asked)}", timeout=120)
    assert answer[0] == 200, answer
    return time.monotonic() - begun


def _own_numbers(prometheus):
    page = get(f"{prometheus.url}/metrics")[1].decode()
    lines = [line.rpartition(" ") for line in page.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def _resident_mib(pid):
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))) / 1024


def _cores(stage):
    before, begun = _own_numbers(stage.prometheus)["process_cpu_seconds_total"], time.monotonic()
    time.sleep(INTERVAL_SECONDS)
    return (_own_numbers(stage.prometheus)["process_cpu_seconds_total"] - before) / (time.monotonic() - begun)
