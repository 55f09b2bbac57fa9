"""
Alerts: each is one record, with its expression, its texts and the scenarios that prove it.

A new alert is a record in a group of one of these files, and a section with its name in `alert_rules/RUNBOOK.md`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import TYPE_CHECKING

from scaleobs._render.overrides import number
from scaleobs._render.promql import ROUTE
from scaleobs._render.recording import Rule, Scope
from scaleobs._render.scenario import Scenario, SyntheticService

if TYPE_CHECKING:
    from scaleobs._render.links import Links
    from scaleobs.objectives import Objective

_JOB = "{{ $labels.job }}"
_LABELS = {
    "job": _JOB,
    "instance": "{{ $labels.instance }}",
    "route": f"{{{{ $labels.{ROUTE} }}}}",
    "pod": "{{ $labels.namespace }}/{{ $labels.pod }}",
    "share": "{{ $value | humanizePercentage }}",
}
_PLACEHOLDER = re.compile(r"(?<!\{)\{(\w+)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """
    An alert.

    The texts are templates of Prometheus with placeholders: `{job}`, `{instance}`, `{route}` and `{pod}` for labels,
    `{share}` for the value in percent, `{wait}`, `{threshold}`, `{window}`, `{retention}`, `{slow_seconds}` and
    durations such as `{15m}` for their values in the rules. They may only name labels that the expression keeps.

    Args:
        name: the alert's name, which is a heading of the runbook.
        expression: PromQL that has a value for each service or instance that has the fault.
        wait: how long it has to be true, e.g. `5m`.
        severity: `critical` if users suffer now, `warning` if they do or soon will, `info` if it may explain something.
        summary: what is wrong, in a line.
        description: the same with the number.
        scenarios: in which the alert must fire, and in which it must be silent.
        threshold: the share that `--set NAME.above=` changes; None if it can't.
        longest_wait: the longest wait that `--set NAME.for=` accepts. Rules drop a service that is gone for a day.
        labels: more labels, which distinguish alerts of one name.
    """

    name: str
    expression: Callable[[Scope], str]
    wait: str
    severity: str
    summary: str
    description: str
    scenarios: Callable[[SyntheticService], list[Scenario]]
    threshold: Decimal | None = None
    longest_wait: str = "12h"
    labels: Mapping[str, str] = field(default_factory=dict)

    def rule(self, scope: Scope, service: str | None, links: Links) -> Rule:
        """Return the rule for one service or for every one, with its links."""
        scope = replace(scope, wait=scope.scaled(self.wait), threshold=self.threshold or Decimal(0))
        summary, description = fill_in(self.summary, scope), fill_in(self.description, scope)
        return {
            "alert": self.name,
            "expr": self.expression(scope),
            "for": str(scope.wait),
            # Alertmanager groups and inhibits by `service`, so every alert has it, also in rules for every service.
            "labels": {"severity": self.severity, **self.labels, "service": service or _JOB},
            "annotations": {
                "summary": summary,
                "description": description,
                **links.of(self.name, summary + description),
            },
        }


Member = Alert | Callable[[Scope], Iterable[Alert | Rule]]
"""An alert, or a function that returns recording rules or alerts for a scope."""


@dataclass(frozen=True, slots=True)
class AlertGroup:
    """
    Rules that Prometheus evaluates one after the other.

    Args:
        name: the last part of the group's name.
        comment: the comment above the group, with placeholders as in an alert's texts.
        members: alerts and recording rules in their order.
        objective: the kind of objective whose rules and alerts the group ends with.
        interval: the time between two evaluations, if it isn't that of all groups.
    """

    name: str
    comment: str
    members: tuple[Member, ...]
    objective: type[Objective] | None = None
    interval: str = ""


def fill_in(text: str, scope: Scope) -> str:
    """
    Return the text with its placeholders replaced.

    Raises:
        ValueError: a placeholder is unknown.
    """
    values = {
        **_LABELS,
        "wait": scope.wait,
        "window": scope.window,
        "retention": scope.retention,
        "scope": scope.in_words,
        "threshold": percent(scope.threshold),
        "failed_share": percent(scope.thresholds.failed_share),
        "slow_share": percent(scope.thresholds.slow_share),
        "slow_seconds": number(scope.thresholds.slow_seconds),
    }
    return _PLACEHOLDER.sub(lambda match: str(values.get(match[1]) or scope.scaled(match[1])), text)


def percent(share: Decimal) -> str:
    """Return a share in percent, e.g. `5%`."""
    return f"{number(share * 100)}%"
