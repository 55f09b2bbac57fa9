"""
Stories for promtool: what happens to a service, and when each alert has to be silent and to fire.

They are derived from the parameters that the rules were made with, not from the rules: a rule that was changed by hand
is held to what the command promises.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Unpack

from scaleobs.catalog import DEFAULT_BUCKETS
from scaleobs.render import text
from scaleobs.render.absences import ABSENCES
from scaleobs.render.changes import redrawn
from scaleobs.render.durations import Duration, TimeScale, pace
from scaleobs.render.failures import failures
from scaleobs.render.faults import ONSET, Fault
from scaleobs.render.healthy import Labels, World, milliseconds
from scaleobs.render.names import service_and_job
from scaleobs.render.outputs import Watched
from scaleobs.render.promql import ROUTE, UP, equal
from scaleobs.render.rules import rules
from scaleobs.render.shortages import SHORTAGES
from scaleobs.render.thresholds import thresholds

EVERY_ALERT = "every alert"
_LONG_ENOUGH = 30
"""So many minutes are longer than any window that alerts look at, but those of budgets, and of a day."""

_FIRING = "firing"
_TOLD_APART = ("slo", "route", "long_window")


@dataclass(frozen=True, slots=True)
class Story:
    """
    One story.

    Attributes:
        alert: which alert it is about.
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
        return text.yaml_text({"rule_files": [rule_file], "evaluation_interval": step, "tests": [self.test]})


@dataclass(frozen=True, slots=True)
class Told:
    """All stories about a set of rules, and the step of their samples."""

    stories: list[Story]
    step: str


def stories(**watched: Unpack[Watched]) -> Told:
    """
    Return the stories about the rules that these arguments of `rules.rules` make.

    Raises:
        ValueError: as for `rules.rules`.
    """
    groups = rules(**watched)
    service, job = service_and_job(watched.get("service"), watched.get("job"))
    objectives, scale = watched.get("objectives", ()), TimeScale(watched.get("time_scale", 1))
    alerts: list[dict[str, Any]] = [rule for group in groups for rule in group.rules if "alert" in rule]
    step, window = (scale.seconds(count).milliseconds for count in pace(watched.get("scrape_interval", 30)))
    lines = thresholds(objectives, watched.get("boundaries", DEFAULT_BUCKETS))
    lines = redrawn(lines, watched.get("changes", ()))
    world = World(job or "orders", step, 0, -(-window // step), scale, lines, objectives)
    world = replace(world, steps=max(3 * ONSET, world.in_steps(_LONG_ENOUGH)))
    found = [_all_is_well(world)]
    known = {**ABSENCES, **failures(watched.get("window_days", 30)), **SHORTAGES}
    for rule in alerts:
        labels = {name: rule["labels"][name] for name in _TOLD_APART if name in rule["labels"]}
        expected = {"severity": rule["labels"]["severity"], "service": service or world.job}
        wait = -(-milliseconds(rule["for"]) // step)
        here = replace(world, steps=world.steps + wait)
        found += [
            _story(rule["alert"], labels, expected, fault, wait, here) for fault in known[rule["alert"]](here, labels)
        ]
    return Told(found, str(Duration(step)))


def _all_is_well(world: World) -> Story:
    # A service that scaleobs knows nothing of is none of its business, whatever its requests come to.
    other = replace(world, job="stranger")
    theirs = {other.series(UP): other.always(1), **other.requests("a", Decimal(1)), **other.answers("a", Decimal(1))}
    asserted = [_never("", {}, one, world.steps) for one in (world, other)]
    test = _test("All is well.", world, theirs, asserted)
    return Story(EVERY_ALERT, {}, "All is well.", fires=False, test=test)


def _story(  # noqa: PLR0917
    alert: str, labels: Labels, expected: Labels, fault: Fault, wait: int, world: World
) -> Story:
    if not fault.fires:
        # The first samples of a series may look like anything for a moment, which alerts wait for.
        state = "" if fault.is_never_true else _FIRING
        asserted = [_never(alert, labels, world, fault.steps or world.steps, state)]
    else:
        # Two steps to either side: when the first of two samples is seen is Prometheus's own business.
        before, after = fault.earliest + wait - 2, fault.latest + wait + 2
        asserted = [_never(alert, labels, world, before)] if before > 0 else []
        asserted.append(_now(alert, labels, expected, world, after))
    whole = replace(world, steps=fault.steps or world.steps)
    return Story(alert, labels, fault.name, fault.fires, _test(f"{alert}: {fault.name}", whole, fault.series, asserted))


def _test(name: str, world: World, changed: Labels, asserted: list[dict[str, Any]]) -> dict[str, Any]:
    series = {**world.healthy(), **changed}
    return {
        "name": name,
        "interval": str(Duration(world.step)),
        "input_series": [{"series": key, "values": samples} for key, samples in series.items() if samples],
        "promql_expr_test": asserted,
    }


def _selector(alert: str, labels: Labels, world: World, state: str) -> str:
    named = {"alertname": alert} if alert else {}
    states = {"alertstate": state} if state else {}
    chosen = {**named, **states, "job": world.job, **labels}
    if "slo" in labels:  # The objective of a route is another one.
        chosen.setdefault(ROUTE, "")
    return f"ALERTS{{{','.join(equal(name, value) for name, value in chosen.items())}}}"


def _never(alert: str, labels: Labels, world: World, step: int, state: str = _FIRING) -> dict[str, Any]:
    """Return that up to a step the alert isn't in that state, or in none at all: then its condition is never true."""
    until = Duration(step * world.step)
    expression = f"count by (alertname) (count_over_time({_selector(alert, labels, world, state)}[{until}]))"
    return {"expr": expression, "eval_time": str(until), "exp_samples": []}


def _now(alert: str, labels: Labels, expected: Labels, world: World, step: int) -> dict[str, Any]:
    by = ", ".join(expected)
    shown = ",".join(equal(name, value) for name, value in expected.items())
    return {
        "expr": f"count by ({by}) ({_selector(alert, labels, world, _FIRING)})",
        "eval_time": str(Duration(step * world.step)),
        "exp_samples": [{"labels": f"{{{shown}}}", "value": 1}],
    }
