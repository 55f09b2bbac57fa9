"""
Stories: the scenarios of all alerts as tests for promtool.

They are made from the parameters of the rules, not from the rules: they test a rule that was changed by hand against
what the command promises.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Unpack

from scaleobs._render.alerts import Alert
from scaleobs._render.durations import Duration
from scaleobs._render.output import yaml_text
from scaleobs._render.promql import ROUTE, UP, equal
from scaleobs._render.rules import Request, plan
from scaleobs._render.scenario import ONSET, Labels, Scenario, Series, SyntheticService

EVERY_ALERT = "every alert"
_LONG_ENOUGH = 30
"""So many minutes are longer than any window that alerts read, but those of budgets, and of a day."""

_FIRING = "firing"
_DISTINGUISHING = ("slo", "route", "long_window")


@dataclass(frozen=True, slots=True)
class Story:
    """
    One story.

    Attributes:
        alert: the alert's name.
        labels: those that tell it from others of that name.
        name: what happens.
        fires: whether the alert has to fire.
        test: the same as a test of promtool.
    """

    alert: str
    labels: Labels
    name: str
    fires: bool
    test: dict[str, Any]

    @property
    def which(self) -> str:
        """Which alert of those of that name."""
        return " ".join(self.labels.values())

    def text(self, rule_file: str, step: str) -> str:
        """Return a file for promtool."""
        return yaml_text({"rule_files": [rule_file], "evaluation_interval": step, "tests": [self.test]})


@dataclass(frozen=True, slots=True)
class Stories:
    """All stories about a set of rules, and the step of their samples."""

    stories: list[Story]
    step: str


def stories(**requested: Unpack[Request]) -> Stories:
    """
    Return the stories about the rules that `rules.plan` makes of these arguments.

    Raises:
        ValueError: as for `rules.plan`.
    """
    planned = plan(**requested)
    scope, step = planned.scope, planned.scope.interval.milliseconds
    window = -(-scope.window.milliseconds // step)
    service = SyntheticService(scope.job or "orders", step, 0, window, scope.scale, scope.thresholds, scope.objectives)
    service = replace(service, steps=max(3 * ONSET, service.in_steps(_LONG_ENOUGH)))
    found = [_all_is_well(service)]
    for alert in planned.alerts:
        wait = -(-scope.over(alert.wait).milliseconds // step)
        its = replace(service, steps=service.steps + wait, threshold=alert.threshold or Decimal(0))
        expected = {"severity": alert.severity, "service": planned.service or service.job}
        found += [_story(alert, expected, scenario, wait, its) for scenario in alert.scenarios(its)]
    return Stories(found, str(Duration(step)))


def _all_is_well(service: SyntheticService) -> Story:
    # The rules ignore a service that scaleobs doesn't observe, however its requests end.
    other = replace(service, job="stranger")
    series = {other.series(UP): other.always(1), **other.requests("a", Decimal(1)), **other.answers("a", Decimal(1))}
    asserted = [_never("", {}, one, service.steps) for one in (service, other)]
    test = _test("All is well.", service, series, asserted)
    return Story(EVERY_ALERT, {}, "All is well.", fires=False, test=test)


def _story(alert: Alert, expected: Labels, scenario: Scenario, wait: int, service: SyntheticService) -> Story:
    name, steps = alert.name, scenario.steps or service.steps
    labels = {label: alert.labels[label] for label in _DISTINGUISHING if label in alert.labels}
    if not scenario.fires:
        # The first samples of a series may look like anything for a moment, which alerts wait for.
        state = "" if scenario.is_never_true else _FIRING
        asserted = [_never(name, labels, service, steps, state)]
    else:
        # Two steps to either side: when the first of two samples is seen is Prometheus's own business.
        before, after = scenario.earliest + wait - 2, scenario.latest + wait + 2
        asserted = [_never(name, labels, service, before)] if before > 0 else []
        asserted.append(_now(name, labels, expected, service, after))
    test = _test(f"{name}: {scenario.name}", replace(service, steps=steps), scenario.series, asserted)
    return Story(name, labels, scenario.name, scenario.fires, test)


def _test(name: str, service: SyntheticService, changed: Series, asserted: list[dict[str, Any]]) -> dict[str, Any]:
    series = {**service.healthy(), **changed}
    return {
        "name": name,
        "interval": str(Duration(service.step)),
        "input_series": [{"series": key, "values": samples} for key, samples in series.items() if samples],
        "promql_expr_test": asserted,
    }


def _selector(alert: str, labels: Labels, service: SyntheticService, state: str) -> str:
    named = {"alertname": alert} if alert else {}
    states = {"alertstate": state} if state else {}
    chosen = {**named, **states, "job": service.job, **labels}
    if "slo" in labels:  # The objective of a route is another one.
        chosen.setdefault(ROUTE, "")
    return f"ALERTS{{{','.join(equal(name, value) for name, value in chosen.items())}}}"


def _never(alert: str, labels: Labels, service: SyntheticService, step: int, state: str = _FIRING) -> dict[str, Any]:
    """Return that up to a step the alert isn't in that state, or in none at all: then its condition is never true."""
    until = Duration(step * service.step)
    expression = f"count by (alertname) (count_over_time({_selector(alert, labels, service, state)}[{until}]))"
    return {"expr": expression, "eval_time": str(until), "exp_samples": []}


def _now(alert: str, labels: Labels, expected: Labels, service: SyntheticService, step: int) -> dict[str, Any]:
    by = ", ".join(expected)
    shown = ",".join(equal(name, value) for name, value in expected.items())
    return {
        "expr": f"count by ({by}) ({_selector(alert, labels, service, _FIRING)})",
        "eval_time": str(Duration(step * service.step)),
        "exp_samples": [{"labels": f"{{{shown}}}", "value": 1}],
    }
