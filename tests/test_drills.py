"""The table of drills has a row for each alert; `make soak` runs them."""

from __future__ import annotations

from scaleobs._render.rules import rules
from support.drills.table import AFTER_A_DAY, DRILLS, OBJECTIVES


def test_every_alert_has_a_drill():
    """An alert that was never seen to fire, or a drill for none, is a row that is missing or too many."""
    rendered = {
        rule["alert"]
        for service in (None, "orders")
        for group in rules(service, objectives=OBJECTIVES)
        for rule in group.rules
        if "alert" in rule
    }

    assert rendered == {*DRILLS, *AFTER_A_DAY}
