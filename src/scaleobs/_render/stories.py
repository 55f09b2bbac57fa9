"""
Stories: the scenarios of all alerts as tests for promtool.

They are made from the parameters of the rules, not from the rules, so that they also test rules that were changed by
hand.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Unpack

from scaleobs._render.alerts import Alert
from scaleobs._render.durations import Duration
from scaleobs._render.output import yaml_text
from scaleobs._render.promql import ROUTE, UP, equal
from scaleobs._render.rules import RuleArguments, plan
from scaleobs._render.scenario import ONSET, Labels, Scenario, Series, SyntheticService

EVERY_ALERT = "every alert"
_LEAST_MINUTES = 30
"""Minutes that are longer than any window of an alert, except those of budgets and of a day."""

_Test = dict[str, Any]
"""A test, or an assertion of one, in the format of promtool."""

_FIRING = "firing"
_DISTINGUISHING = ("slo", "route", "long_window")


@dataclass(frozen=True, slots=True)
class Story:
    """
    A scenario as a test for promtool.

    Attributes:
        alert: the alert's name.
        labels: those that distinguish it from other alerts of this name.
        name: what happens.
        fires: whether the alert must fire.
        test: the test, in the format of promtool.
    """

    alert: str
    labels: Labels
    name: str
    fires: bool
    test: _Test

    @property
    def variant(self) -> str:
        """The values of the labels, as text."""
        return " ".join(self.labels.values())

    def text(self, rule_file: str, step: str) -> str:
        """Return a test file for promtool."""
        return yaml_text({"rule_files": [rule_file], "evaluation_interval": step, "tests": [self.test]})


@dataclass(frozen=True, slots=True)
class Stories:
    """All stories of a set of rules, and the step of their samples."""

    stories: list[Story]
    step: str


def stories(**requested: Unpack[RuleArguments]) -> Stories:
    """
    Return the stories of the rules that `rules.plan` returns for these arguments.

    Raises:
        ValueError: as for `rules.plan`.
    """
    planned = plan(**requested)
    scope, step = planned.scope, planned.scope.interval.milliseconds
    window = -(-scope.window.milliseconds // step)
    service = SyntheticService(scope.job or "orders", step, 0, window, scope.scale, scope.thresholds, scope.objectives)
    service = replace(service, steps=max(3 * ONSET, service.in_steps(_LEAST_MINUTES)))
    result = [_healthy_story(service)]
    for alert in planned.alerts:
        wait = -(-scope.scaled(alert.wait).milliseconds // step)
        one = replace(service, steps=service.steps + wait, threshold=alert.threshold or Decimal(0))
        expected = {"severity": alert.severity, "service": planned.service or service.job}
        result += [_story(alert, expected, scenario, wait, one) for scenario in alert.scenarios(one)]
    return Stories(result, str(Duration(step)))


def _healthy_story(service: SyntheticService) -> Story:
    # The rules ignore a service that scaleobs doesn't instrument.
    other = replace(service, job="stranger")
    failing = other.requests("a", Decimal(1)) | other.latencies("a", Decimal(1))
    series = {other.series(UP): other.constant(1), **failing}
    assertions = [_assert_silent("", {}, one, service.steps) for one in (service, other)]
    test = _test("All is well.", service, series, assertions)
    return Story(EVERY_ALERT, {}, "All is well.", fires=False, test=test)


def _story(alert: Alert, expected: Labels, scenario: Scenario, wait: int, service: SyntheticService) -> Story:
    name, steps = alert.name, scenario.steps or service.steps
    labels = {label: alert.labels[label] for label in _DISTINGUISHING if label in alert.labels}
    if not scenario.fires:
        # After the first samples of a series a condition may be true for a moment; the alert's wait covers this.
        state = "" if scenario.is_never_true else _FIRING
        assertions = [_assert_silent(name, labels, service, steps, state)]
    else:
        # Two steps of tolerance: Prometheus may read the first of two samples one evaluation later.
        before, after = scenario.earliest + wait - 2, scenario.latest + wait + 2
        assertions = [_assert_silent(name, labels, service, before)] if before > 0 else []
        assertions.append(_assert_firing(name, labels, expected, service, after))
    test = _test(f"{name}: {scenario.name}", replace(service, steps=steps), scenario.series, assertions)
    return Story(name, labels, scenario.name, scenario.fires, test)


def _test(name: str, service: SyntheticService, changed: Series, assertions: list[_Test]) -> _Test:
    series = {**service.healthy(), **changed}
    return {
        "name": name,
        "interval": str(Duration(service.step)),
        "input_series": [{"series": key, "values": samples} for key, samples in series.items() if samples],
        "promql_expr_test": assertions,
    }


def _selector(alert: str, labels: Labels, service: SyntheticService, state: str) -> str:
    named = {"alertname": alert} if alert else {}
    states = {"alertstate": state} if state else {}
    chosen = {**named, **states, "job": service.job, **labels}
    if "slo" in labels:  # Not the objective of a route, which is another one.
        chosen.setdefault(ROUTE, "")
    return f"ALERTS{{{','.join(equal(name, value) for name, value in chosen.items())}}}"


def _assert_silent(alert: str, labels: Labels, service: SyntheticService, step: int, state: str = _FIRING) -> _Test:
    """Return the assertion that up to a step the alert is never in this state; in none at all if it is empty."""
    until = Duration(step * service.step)
    expression = f"count by (alertname) (count_over_time({_selector(alert, labels, service, state)}[{until}]))"
    return {"expr": expression, "eval_time": str(until), "exp_samples": []}


def _assert_firing(alert: str, labels: Labels, expected: Labels, service: SyntheticService, step: int) -> _Test:
    by = ", ".join(expected)
    shown = ",".join(equal(name, value) for name, value in expected.items())
    return {
        "expr": f"count by ({by}) ({_selector(alert, labels, service, _FIRING)})",
        "eval_time": str(Duration(step * service.step)),
        "exp_samples": [{"labels": f"{{{shown}}}", "value": 1}],
    }
