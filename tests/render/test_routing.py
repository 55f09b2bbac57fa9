"""A real Alertmanager inhibits alerts that are consequences of other ones."""

import json
import re
import urllib.request
from pathlib import Path

import pytest
import yaml

from scaleobs._cli.demo.processes import LOOPBACK, get_json, running, wait_until
from scaleobs._render.rules import rules
from scaleobs.objectives import Availability, Latency

SHIPPED = Path(__file__).parents[2] / "integrations" / "alertmanager" / "alertmanager.yml"
TOGETHER = [
    # What stands, and which of it is kept back.
    (["ServiceDown", "InstanceDown", "HighErrorRate"], ["HighErrorRate", "InstanceDown"]),
    (["ServiceNotReady", "InstanceNotReady", "TrafficGone", "HighMemoryUsage"], ["InstanceNotReady", "TrafficGone"]),
    (["ErrorBudgetBurn", "HighErrorRate", "QuietServiceFailing"], ["HighErrorRate", "QuietServiceFailing"]),
    (["LatencyBudgetBurn", "HighRequestLatency", "QuietServiceSlow"], ["HighRequestLatency", "QuietServiceSlow"]),
    (["ErrorBudgetBurn", "QuietServiceSlow", "HighRequestLatency"], []),
    (["HighErrorRate", "HighCPUUsage", "CrashLoop"], []),
    (["HighErrorRate", "HighRouteErrorRate", "ErrorLogBurst"], ["ErrorLogBurst", "HighRouteErrorRate"]),
    (["ErrorBudgetBurn", "HighRouteErrorRate", "ErrorLogBurst"], ["ErrorLogBurst", "HighRouteErrorRate"]),
    (["StartupStuck", "InstanceNotReady", "CPUThrottled", "ReplicasMissing"], ["InstanceNotReady"]),
    # The budget of one route inhibits nothing of the service, nor of other routes.
    (["HighErrorRate", "ErrorBudgetBurn /pay", "ErrorLogBurst"], ["ErrorLogBurst"]),
    (
        ["ErrorBudgetBurn /pay", "HighRouteErrorRate /pay", "QuietServiceFailing /pay"],
        ["HighRouteErrorRate", "QuietServiceFailing"],
    ),
    (["ErrorBudgetBurn /pay", "HighRouteErrorRate /", "QuietServiceFailing"], []),
    (["LatencyBudgetBurn /pay", "HighRequestLatency"], []),
]


@pytest.fixture
def alertmanager(tmp_path, tool):
    """An Alertmanager with the shipped configuration."""
    program = tool("alertmanager")
    (tmp_path / "alertmanager.yml").write_bytes(SHIPPED.read_bytes())

    def command(port):
        listening = [f"--web.listen-address={LOOPBACK}:{port}", "--cluster.listen-address="]
        return [program, "--config.file=alertmanager.yml", "--storage.path=data", *listening]

    with running("alertmanager", command, ready="/-/ready", directory=tmp_path) as started:
        yield started


def fire(alertmanager, service, names):
    """Send alerts with the labels that their rules give them, for one service, or for one of its routes."""
    found = {}
    for group in rules(service, objectives=[Availability(99.9), Latency(99, under=0.5)]):
        for rule in group.rules:
            if "alert" in rule:
                found.setdefault(rule["alert"], {"alertname": rule["alert"], **rule["labels"]})
    parted = [name.partition(" ") for name in names]
    labels = [{**found[alert], **({"route": route} if route else {})} for alert, _, route in parted]
    body = json.dumps([{"labels": one} for one in labels]).encode()
    request = urllib.request.Request(
        f"{alertmanager.url}/api/v2/alerts", body, {"Content-Type": "application/json"}, method="POST"
    )
    urllib.request.urlopen(request, timeout=5).close()


def kept_back(alertmanager, service):
    """Return the names of the alerts of a service, and of those that are inhibited."""
    alerts = get_json(f"{alertmanager.url}/api/v2/alerts")
    ours = [alert for alert in alerts if alert["labels"]["service"] == service]
    return (
        {alert["labels"]["alertname"] for alert in ours},
        sorted(alert["labels"]["alertname"] for alert in ours if alert["status"]["inhibitedBy"]),
    )


@pytest.mark.servers
@pytest.mark.parametrize(("names", "expected"), TOGETHER, ids=lambda value: ",".join(value) or "none")
def test_alerts_are_kept_back(names, expected, alertmanager):
    """
    Each inhibition is for one service, and never for another.
    """
    service = re.sub(r"\W", "-", "".join(names).lower())
    known = {name.partition(" ")[0] for name in names}
    fire(alertmanager, service, names)
    fire(alertmanager, f"beside-{service}", names[1:])
    wait_until(lambda: kept_back(alertmanager, service)[0] == known, seconds=10, what="the alerts are known")
    wait_until(lambda: kept_back(alertmanager, service)[1] == expected, seconds=10, what="some are kept back")

    assert expected == kept_back(alertmanager, service)[1]
    assert [] == kept_back(alertmanager, f"beside-{service}")[1]


def test_inhibitions_name_alerts_that_exist():
    """
    A name that no rule has would inhibit nothing, silently.
    """
    groups = rules(objectives=[Availability(99.9), Latency(99, under=1)])
    known = {rule.get("alert") for group in groups for rule in group.rules}
    matchers = [
        matcher
        for rule in yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))["inhibit_rules"]
        for matcher in (*rule["source_matchers"], *rule["target_matchers"])
        if matcher.startswith("alertname")
    ]
    named = {name for matcher in matchers for name in matcher.split('"')[1].split("|")}

    assert set() == named - known
