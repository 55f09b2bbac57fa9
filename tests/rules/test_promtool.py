"""The stories in this folder, told to the rules as the command writes them."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from scaleobs.objectives import Availability, Latency
from scaleobs.render.outputs import rules_text
from scaleobs.render.rules import rules

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
"""The one that `make tools` brings, and those of later releases where `make soak` has brought some."""
OF_ORDERS = ("orders.yaml", "budgets.yaml", "route_budgets.yaml", "slow_budgets.yaml")


@pytest.mark.parametrize("promtool", PROMTOOLS, ids=lambda path: Path(path).parent.name or "promtool")
@pytest.mark.parametrize("story", STORIES, ids=lambda path: path.name)
def test_story_comes_true(story, promtool, tmp_path, tool):
    """
    Every alert is quiet and fires when its story says so.
    """
    for name, arguments in RULES.items():
        (tmp_path / name).write_text(rules_text(**arguments), encoding="utf-8")
    copy = tmp_path / story.name
    copy.write_text(story.read_text(encoding="utf-8"), encoding="utf-8")

    result = subprocess.run([tool(str(promtool)), "test", "rules", copy], capture_output=True, text=True, check=False)

    assert 0 == result.returncode, result.stdout + result.stderr


def test_every_alert_has_a_quiet_and_a_firing_instant():
    """
    For one service, each alert is asserted quiet at one instant and firing, with its words, at another.
    """
    instants: dict[str, set[bool]] = {}
    for story in STORIES:
        content: dict[str, Any] = yaml.safe_load(story.read_text(encoding="utf-8"))
        if content["rule_files"][0] in OF_ORDERS:
            for instant in [instant for told in content["tests"] for instant in told.get("alert_rule_test", ())]:
                instants.setdefault(instant["alertname"], set()).add(bool(instant["exp_alerts"]))
    groups = [group for name in OF_ORDERS for group in rules(**RULES[name])]
    alerts = {rule["alert"] for group in groups for rule in group.rules if "alert" in rule}

    assert {name: {False, True} for name in alerts} == instants
