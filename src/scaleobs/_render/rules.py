"""From a service and its objectives to the groups of rules that watch it, as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict, Unpack

from scaleobs._render.alerts import Alert, AlertGroup, budgets, filled
from scaleobs._render.alerts.requests import ERRORS, LATENCY
from scaleobs._render.alerts.saturation import LIBRARY, SATURATION
from scaleobs._render.alerts.targets import READINESS, TARGETS
from scaleobs._render.durations import TimeScale, intervals
from scaleobs._render.links import Links, service_and_job
from scaleobs._render.overrides import apply, check, thresholds
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


class Request(RuleOptions, total=False):
    """All arguments of `plan`: one service, or every one, and what is watched there."""

    service: str | None
    job: str | None
    objectives: Sequence[Objective]
    time_scale: float


@dataclass(frozen=True, slots=True)
class Group:
    """Rules that Prometheus evaluates one after the other, and a comment on them."""

    name: str
    about: str
    interval: str
    rules: list[Rule]

    def data(self) -> dict[str, object]:
        """Return the group as Prometheus reads it."""
        return {"name": self.name, "interval": self.interval, "rules": self.rules}


@dataclass(frozen=True, slots=True)
class Plan:
    """
    The rules of one service, or of every instrumented service, before they are written.

    Args:
        service: the service; None for every one.
        scope: what they watch.
        links: where their alerts lead.
        groups: the members of each group, alerts with their overrides.
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
    Return which rules watch one service, or every instrumented service.

    Args:
        service: the service, which goes into the `service` label of its alerts. None and no job: every
            service whose targets expose `service_info`.
        job: the job that Prometheus scrapes the service under, where that isn't the service's own name.
        objectives: what good means, at most one of each kind for the service, and for each route.
        time_scale: a number that every duration is divided by, for a fire drill.
        window_days: what the objectives' budgets are for, 28 or 30 days.
        overrides: changes of alerts, e.g. `HighErrorRate.for=10m`, `HighCPUUsage.severity=warning` or
            `HighMemoryUsage.above=95%`.
        disabled: the names of alerts to leave out. What they read is recorded all the same.
        scrape_interval: how many seconds lie between two scrapes of a target. Rates are taken over four of them at
            least, alerts wait for two, and the rules are evaluated no more often; 30 or less changes nothing.
        runbook_url: the address of the runbook that alerts lead to, by its headings; see `Links`.
        dashboard_url: the address of the Grafana that has the dashboard.
        boundaries: those of the service's buckets in seconds, at which the times of latency objectives have to be.

    Raises:
        ValueError: a name can't be a job's or isn't an alert's, an objective can't be watched, or a value is out of
            range.
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
        interval=scale.seconds(interval),  # The shortest duration, which is the first that a scale makes too short.
        window=scale.seconds(window),
        thresholds=shared,
        objectives=objectives,
        budget_days=window_days,
    )
    groups = [(group, _members(group, scope)) for group in GROUPS]
    check(overrides, disabled, [one for _, members in groups for one in members if isinstance(one, Alert)])
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
    found: list[Rule | Alert] = []
    for member in group.members:
        found += [member] if isinstance(member, Alert) else member(scope)
    for objective in _objectives(group, scope):
        # In the group of what they read, so that all of it is of one moment.
        found += budgets.rules(objective, scope)
    return found


def _objectives(group: AlertGroup, scope: Scope) -> list[Objective]:
    return [one for one in scope.objectives if group.objective and isinstance(one, group.objective)]


def _group(planned: Plan, group: AlertGroup, members: list[Rule | Alert]) -> Group:
    scope = planned.scope
    prefix = f"scaleobs.{planned.service}" if planned.service else "scaleobs"
    return Group(
        f"{prefix}.{group.name}",
        filled(group.about, scope) + (budgets.ABOUT if _objectives(group, scope) else ""),
        str(scope.over(group.interval) if group.interval else scope.interval),
        [one.rule(scope, planned.service, planned.links) if isinstance(one, Alert) else one for one in members],
    )
