"""
A thousand pods and one Prometheus: what the rules and the dashboard's panels cost, for `make soak`.

`make soak ARGS="-k thousand_pods"` prints the tables of docs/scale.md; PODS=200 takes fewer. Without SOAK_SECONDS in
the environment there is nothing to do here.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path

import pytest
import yaml

from scaleobs._cli.demo.processes import LOOPBACK, find, free_port, get, running, wait_until
from scaleobs._render.output import dashboard_texts, rules_text
from scaleobs.objectives import Availability, Latency
from support.drills.cluster import NAMESPACE, scraped_at
from support.drills.pods import pod_name, service_of
from support.drills.stage import staged

PODS = int(os.environ.get("PODS", "1000"))
INTERVAL_SECONDS = 30
HISTORY_SECONDS = 330
"""The five minutes that rates are taken over, and one scrape."""
TRIES = 3
SLOWEST_SECONDS = 300
OBJECTIVES = (Availability(99.9), Latency(99, under=0.5), Latency(95, under=0.25, route="/things-0/{number}"))
TESTS = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif("SOAK_SECONDS" not in os.environ, reason="It takes ten minutes: `make soak` runs it.")


@contextlib.contextmanager
def fleet():
    """Run a process that is all the pods, and yield its port."""
    port = free_port()
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, TESTS / "support" / "drills" / "pods.py", str(port), str(PODS)]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path})
    try:
        page = f"http://{LOOPBACK}:{port}/pods/0/metrics"
        wait_until(lambda: get(page)[0] == 200, seconds=120, what="The pods are up")
        yield port
    finally:
        process.kill()
        process.wait()


def test_rules_of_a_thousand_pods_fit_their_interval(tmp_path, tool):
    """
    No group of rules takes more than half of its interval from one core; what all of it costs is printed.

    Processor time is measured, by a Prometheus that does nothing else, and the least of three tries counts: what else
    the machine has to do is no cost of ours.
    """
    for name in ("prometheus", "alertmanager"):
        tool(name)
    rules = rules_text(objectives=OBJECTIVES)
    end = _live_through(tmp_path, rules)
    with running("alone", lambda port: _alone(tmp_path, port), ready="/-/healthy", directory=tmp_path) as prometheus:
        # It reads its log first.
        is_ready = f"{prometheus.url}/-/ready"
        wait_until(lambda: get(is_ready)[0] == 200, seconds=SLOWEST_SECONDS, what="The past is known")
        seconds = _print_rules(prometheus, yaml.safe_load(rules)["groups"], end)
        _print_panels(prometheus, end)

    assert [] == [name for name, took in seconds.items() if took > INTERVAL_SECONDS / 2]


def _live_through(directory, rules):
    """Have every pod scraped and every rule evaluated for as long as rates need, and return when that was over."""
    with fleet() as port, staged(directory, interval=f"{INTERVAL_SECONDS}s", more=scraped_at(port)) as stage:
        targets = [
            {
                "targets": [f"{LOOPBACK}:{port}"],
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
        (directory / "targets.json").write_text(json.dumps(targets), encoding="utf-8")
        stage.load("every", rules)
        stage.wait_for(f'sum(up{{job=~"service-.*"}}) == {PODS}', seconds=SLOWEST_SECONDS)
        before = _own_numbers(stage.prometheus)["process_cpu_seconds_total"]
        time.sleep(HISTORY_SECONDS)
        numbers = _own_numbers(stage.prometheus)
        cores = (numbers["process_cpu_seconds_total"] - before) / HISTORY_SECONDS
        print(f"\n{PODS} pods, {numbers['prometheus_tsdb_head_series']:,.0f} series in the head, ", end="")
        print(f"{_resident_mib(stage.prometheus):,.0f} MiB resident, {cores:.2f} cores busy")
        return time.time()


def _print_rules(prometheus, groups, end):
    """Print what each group and the most expensive rules cost, and return the seconds of each group."""
    costs = {
        group["name"]: [(_cost(prometheus, rule["expr"], time=end), rule) for rule in group["rules"]]
        for group in groups
    }
    seconds = {name: sum(cost for cost, _ in rules) for name, rules in costs.items()}
    print("\n| group | processor time |\n|---|---|")
    for name, took in sorted(seconds.items(), key=lambda item: -item[1]):
        print(f"| {name} | {took * 1000:.0f} ms |")
    print("\n| rule | processor time | |\n|---|---|---|")
    every = [one for rules in costs.values() for one in rules]
    for cost, rule in sorted(every, key=lambda one: -one[0])[:8]:
        print(
            f"| {rule.get('record') or rule['alert']} | {cost * 1000:.0f} ms | {' '.join(rule['expr'].split())[:120]} |"
        )
    return seconds


def _print_panels(prometheus, end):
    """Print what each panel costs, in the steps that an hour on a screen has, of the five minutes that there are."""
    took = {}
    window = {"start": end - 300, "end": end, "step": 15}
    for panel in json.loads(dashboard_texts()["service.json"])["panels"]:
        for job in ("service-0", ".+") if panel.get("targets") else ():
            costs = [_cost(prometheus, _filled_in(target["expr"], job), **window) for target in panel["targets"]]
            took.setdefault(panel["title"], []).append(sum(costs))
    print("\n| panel | one service | all |\n|---|---|---|")
    for title, (one, everything) in sorted(took.items(), key=lambda item: -item[1][1]):
        print(f"| {title} | {one * 1000:.0f} ms | {everything * 1000:.0f} ms |")


def _filled_in(expression, job):
    values = {"$job": job, "$instance": ".+", "$route": ".+", "$__rate_interval": "2m", "$__range": "5m"}
    for name, value in values.items():
        expression = expression.replace(name, value)
    return expression


def _cost(prometheus, expression, **when):
    """Return the processor time that an answer takes, in seconds."""
    kind = "query_range" if "step" in when else "query"
    url = f"{prometheus.url}/api/v1/{kind}?{urllib.parse.urlencode({'query': expression, **when})}"
    least = math.inf
    for _ in range(TRIES):
        before = _processor_seconds(prometheus)
        status, answer = get(url, timeout=SLOWEST_SECONDS)
        assert 200 == status, answer
        least = min(least, _processor_seconds(prometheus) - before)
    return least


def _alone(directory, port):
    """Return the command of a Prometheus that has the history and scrapes nothing."""
    (directory / "alone.yml").write_text("{}")
    return [
        find("prometheus"),
        f"--config.file={directory / 'alone.yml'}",
        f"--storage.tsdb.path={directory / 'prometheus-data'}",
        f"--web.listen-address={LOOPBACK}:{port}",
        "--log.level=warn",
    ]


def _own_numbers(prometheus):
    page = get(f"{prometheus.url}/metrics", timeout=SLOWEST_SECONDS)[1].decode()
    lines = [line.rpartition(" ") for line in page.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def _processor_seconds(program):
    fields = Path(f"/proc/{program.process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident_mib(program):
    status = Path(f"/proc/{program.process.pid}/status").read_text(encoding="utf-8")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))) / 1024
