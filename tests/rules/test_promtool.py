"""The promtool tests of this folder, with the rules of the command."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from scaleobs._render.output import rules_text
from scaleobs._render.rules import rules
from scaleobs._render.stories import stories
from scaleobs.objectives import Availability, Latency

STORIES = sorted(Path(__file__).parent.glob("*.test.yaml"))
RULES = {
    "orders.yaml": {"service": "orders"},
    "every.yaml": {},
    "objectives.yaml": {"service": "orders", "objectives": [Availability(99.9), Latency(99, under=1)]},
    "budgets.yaml": {"service": "orders", "objectives": [Availability(99.9)]},
    "route_budgets.yaml": {"service": "orders", "objectives": [Availability(99.9, route="/o/{id:int}")]},
    "slow_budgets.yaml": {
        "service": "orders",
        "objectives": [Latency(99, under=0.5), Latency(95, under=0.25, route="/o/{id:int}")],
    },
}
PROMTOOLS = ["promtool", *sorted((Path(__file__).parents[2] / ".tools" / "later").glob("*/promtool"))]
"""The release of `make tools`, and later ones if `make soak` has installed them."""
OF_ORDERS = ("orders.yaml", "budgets.yaml", "route_budgets.yaml", "slow_budgets.yaml")


@pytest.mark.servers
@pytest.mark.parametrize("promtool", PROMTOOLS, ids=lambda path: Path(path).parent.name or "promtool")
@pytest.mark.parametrize("story", STORIES, ids=lambda path: path.name)
def test_story_comes_true(story, promtool, tmp_path, tool):
    """
    Every alert is silent and fires as its test requires.
    """
    for name, arguments in RULES.items():
        (tmp_path / name).write_text(rules_text(**arguments), encoding="utf-8")
    copy = tmp_path / story.name
    copy.write_text(story.read_text(encoding="utf-8"), encoding="utf-8")

    result = subprocess.run([tool(str(promtool)), "test", "rules", copy], capture_output=True, text=True, check=False)

    assert 0 == result.returncode, result.stdout + result.stderr


def test_every_alert_has_a_silent_and_a_firing_instant():
    """
    For one service, each alert is asserted silent and firing at some instant, in this folder or by its scenarios.
    """
    instants: dict[str, set[bool]] = {}
    for story in STORIES:
        content: dict[str, Any] = yaml.safe_load(story.read_text(encoding="utf-8"))
        if content["rule_files"][0] in OF_ORDERS:
            for instant in [instant for test in content["tests"] for instant in test.get("alert_rule_test", ())]:
                instants.setdefault(instant["alertname"], set()).add(bool(instant["exp_alerts"]))
    for name in OF_ORDERS:
        for scenario in stories(**RULES[name]).stories[1:]:
            instants.setdefault(scenario.alert, set()).add(scenario.fires)
    groups = [group for name in OF_ORDERS for group in rules(**RULES[name])]
    alerts = {rule["alert"] for group in groups for rule in group.rules if "alert" in rule}

    assert {name: {False, True} for name in alerts} == instants


@pytest.mark.servers
def test_texts_of_every_alert_are_whole(tmp_path, tool):
    """
    When it fires in its scenarios, no annotation is empty, and no label in it is missing.
    """
    (tmp_path / "rules.yaml").write_text(rules_text("orders"), encoding="utf-8")
    (tmp_path / "all.test.yaml").write_text(yaml.safe_dump(without_alerts()), encoding="utf-8")
    command = [tool("promtool"), "test", "rules", tmp_path / "all.test.yaml"]
    output = subprocess.run(command, capture_output=True, text=True, check=False).stderr
    shown = re.findall(r"alertname: (\w+),[^[]*exp:\[\],[^[]*got:\[.*?Annotations:\{(.*?)\}\n", output, re.DOTALL)
    texts = {name: dict(re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', annotations)) for name, annotations in shown}

    assert {one.alert for one in stories(service="orders").stories[1:]} - {"TrafficGone"} == set(texts)
    for name, annotations in texts.items():
        assert {"summary", "description", "runbook_url", "dashboard_url"} == set(annotations), name
        for text in annotations.values():
            assert not re.search(r"^$|<no value>|[{}]|  | [.,;:)]|\(\)|=(&|$)|^ | $", text), (name, text)


def without_alerts():
    """Return a file for promtool that fails at every firing instant, so that it shows what fired."""
    every = stories(service="orders")
    tests = []
    for one in every.stories[1:]:
        # Its day is written out in `traffic.test.yaml`.
        if one.fires and one.alert != "TrafficGone":
            (at,) = [shown["eval_time"] for shown in one.test["promql_expr_test"] if shown["exp_samples"]]
            expected = [{"eval_time": at, "alertname": one.alert, "exp_alerts": []}]
            tests.append({**one.test, "promql_expr_test": [], "alert_rule_test": expected})
    return {"rule_files": ["rules.yaml"], "evaluation_interval": every.step, "tests": tests}
