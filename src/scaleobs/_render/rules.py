"""The groups of rules of a service and its objectives, as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict, Unpack

from scaleobs._render.alerts import Alert, AlertGroup, budgets, fill_in
from scaleobs._render.alerts.requests import ERRORS, LATENCY
from scaleobs._render.alerts.saturation import LIBRARY, SATURATION
from scaleobs._render.alerts.targets import READINESS, TARGETS
from scaleobs._render.durations import TimeScale, intervals
from scaleobs._render.links import Links, service_and_job
from scaleobs._render.overrides import apply, thresholds, validate
from scaleobs._render.recording import Rule, Scope
from scaleobs.catalog import DEFAULT_BUCKETS
from scaleobs.objectives import Objective

GROUPS = (TARGETS, READINESS, ERRORS, LATENCY, SATURATION, LIBRARY, budgets.BUDGETS)


class RuleOptions(TypedDict, total=False):
    """Arguments of `plan` beside the service and its objectives."""

    window_days: int
    scrape_interval: int
    overrides: Sequence[str]
    disabled: Sequence[str]
    runbook_url: str | None
    dashboard_url: str | None
    boundaries: Sequence[float]


class RuleArguments(RuleOptions, total=False):
    """All arguments of `plan`, for one service or every one."""

    service: str | None
    job: str | None
    objectives: Sequence[Objective]
    time_scale: float


@dataclass(frozen=True, slots=True)
class Group:
    """Rules that Prometheus evaluates one after the other, with a comment."""

    name: str
    comment: str
    interval: str
    rules: list[Rule]

    def data(self) -> dict[str, object]:
        """Return the group in Prometheus's format, without the comment."""
        return {"name": self.name, "interval": self.interval, "rules": self.rules}


@dataclass(frozen=True, slots=True)
class Plan:
    """
    The rules of one service, or of every instrumented service, before they are written.

    Args:
        service: the service; None for every one.
        scope: their targets and shared numbers.
        links: the links of their alerts.
        groups: the members of each group, alerts with their overrides applied.
    """

    service: str | None
    scope: Scope
    links: Links
    groups: list[tuple[AlertGroup, list[Rule | Alert]]]

    @property
    def alerts(self) -> list[Alert]:
        """The alerts of all groups."""
        return [one for _, members in self.groups for one in members if isinstance(one, Alert)]


def rules(
    service: str | None = None,
    job: str | None = None,
    objectives: Sequence[Objective] = (),
    time_scale: float = 1,
    **options: Unpack[RuleOptions],
) -> list[Group]:
    """
    Return the recording rules and alerts of one service, or of every instrumented service.

    The arguments are those of `plan`.

    Raises:
        ValueError: as for `plan`.
    """
    planned = plan(service, job, objectives, time_scale, **options)
    return [_group(planned, group, members) for group, members in planned.groups if members]


def plan(
    service: str | None = None,
    job: str | None = None,
    objectives: Sequence[Objective] = (),
    time_scale: float = 1,
    *,
    window_days: int = 30,
    overrides: Sequence[str] = (),
    disabled: Sequence[str] = (),
    scrape_interval: int = 30,
    runbook_url: str | None = None,
    dashboard_url: str | None = None,
    boundaries: Sequence[float] = DEFAULT_BUCKETS,
) -> Plan:
    """
    Return the rules of one service, or of every instrumented service, before they are written.

    Args:
        service: the service, which goes into the `service` label of its alerts. None and no job: every
            service whose targets expose `service_info`.
        job: the job that Prometheus scrapes the service under, if that isn't the service's name.
        objectives: at most one of each kind for the service, and for each route.
        time_scale: the divisor of every duration, for a fire drill.
        window_days: the time of the error budgets, 28 or 30 days.
        overrides: changes of alerts, e.g. `HighErrorRate.for=10m`, `HighCPUUsage.severity=warning` or
            `HighMemoryUsage.above=95%`.
        disabled: the names of alerts to leave out. The series that they read are recorded all the same.
        scrape_interval: the seconds between two scrapes of a target. Windows of rates have at least four of them, waits
            of alerts two, and the rules are evaluated no more often; 30 or less changes nothing.
        runbook_url: the address of the runbook, to whose headings alerts link; see `Links`.
        dashboard_url: the address of the Grafana that has the dashboard.
        boundaries: those of the service's buckets in seconds. The times of latency objectives must be among them.

    Raises:
        ValueError: a name is not valid for a job or of no alert, no rule is possible for an objective, or a value is
            out of range.
    """
    service, job = service_and_job(service, job)
    if window_days not in budgets.BUDGET_DAYS:
        msg = f"A budget for {window_days!r} days is not known: give 28 or 30."
        raise ValueError(msg)
    interval, window = intervals(scrape_interval)
    shared, scale = thresholds(objectives, boundaries), TimeScale(time_scale)
    scope = Scope(
        job,
        scale,
        interval=scale.seconds(interval),  # First, since it is the shortest: a scale makes it too short first.
        window=scale.seconds(window),
        thresholds=shared,
        objectives=objectives,
        budget_days=window_days,
    )
    groups = [(group, _members(group, scope)) for group in GROUPS]
    validate(overrides, disabled, [one for _, members in groups for one in members if isinstance(one, Alert)])
    kept = [
        (
            group,
            [
                apply(one, overrides, 2 * interval) if isinstance(one, Alert) else one
                for one in members
                if not isinstance(one, Alert) or one.name not in disabled
            ],
        )
        for group, members in groups
    ]
    return Plan(service, scope, Links(service, runbook_url, dashboard_url), kept)


def _members(group: AlertGroup, scope: Scope) -> list[Rule | Alert]:
    result: list[Rule | Alert] = []
    for member in group.members:
        result += [member] if isinstance(member, Alert) else member(scope)
    for objective in _objectives(group, scope):
        # In the group of the series that they read, so that all are evaluated at the same time.
        result += budgets.rules(objective, scope)
    return result


def _objectives(group: AlertGroup, scope: Scope) -> list[Objective]:
    return [one for one in scope.objectives if group.objective and isinstance(one, group.objective)]


def _group(planned: Plan, group: AlertGroup, members: list[Rule | Alert]) -> Group:
    scope = planned.scope
    prefix = f"scaleobs.{planned.service}" if planned.service else "scaleobs"
    return Group(
        f"{prefix}.{group.name}",
        fill_in(group.comment, scope) + (budgets.COMMENT if _objectives(group, scope) else ""),
        str(scope.scaled(group.interval) if group.interval else scope.interval),
        [one.rule(scope, planned.service, planned.links) if isinstance(one, Alert) else one for one in members],
    )
