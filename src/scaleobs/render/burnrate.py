"""
Alerts on how fast a service spends the error budget that its objectives leave it.

Two windows have to agree: the long one says that it matters, the short one that it still goes on. Windows, shares
of the budget and severities are those of the SRE workbook, chapter 5. Series and labels keep the names of their windows
on every time scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from textwrap import indent
from typing import TYPE_CHECKING

from scaleobs.objectives import Availability, Latency, Objective
from scaleobs.render import promql
from scaleobs.render.alerts import JOB, SHARE, Alert, percent
from scaleobs.render.promql import ROUTE, Targets, joined
from scaleobs.render.records import Rule, Scope, record
from scaleobs.render.thresholds import Thresholds, number

if TYPE_CHECKING:
    from scaleobs.render.durations import Duration, TimeScale

WINDOWS_DAYS = (28, 30)
"""The times that a budget may be for."""

_MINUTES = {"30m": 30, "1h": 60, "2h": 120, "6h": 360, "1d": 1440, "3d": 4320}
_QUIET = "6h"
_COUNTED = {
    ("availability", "all"): "",
    ("availability", "bad"): "_bad",
    ("latency", "all"): "_timed",
    ("latency", "bad"): "_slow",
}
"""What the recorded series of an objective are called, after `http_requests`."""


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two windows, the share of the budget that may go within the long one, and what to do when more does."""

    short: str
    long: str
    share: Decimal
    wait_minutes: int
    severity: str


_PAIRS = (
    _Pair("5m", "1h", Decimal("0.02"), 2, "critical"),
    _Pair("30m", "6h", Decimal("0.05"), 15, "critical"),
    _Pair("2h", "1d", Decimal("0.1"), 60, "warning"),
    _Pair("6h", "3d", Decimal("0.1"), 180, "warning"),
)


@dataclass(frozen=True, slots=True)
class _Spent:
    """One objective, and which recorded series count what it allows some of."""

    objective: Objective
    scope: Scope
    scale: TimeScale

    @property
    def route(self) -> str | None:
        return self.objective.route

    @property
    def slo(self) -> str:
        return "availability" if isinstance(self.objective, Availability) else "latency"

    @property
    def did(self) -> str:
        """What the requests did that the objective is about."""
        if isinstance(self.objective, Availability):
            return "failed with a 5xx status"
        return f"took longer than {number(self.objective.under)} s"

    @property
    def whose(self) -> str:
        return f"{JOB} ({{{{ $labels.{ROUTE} }}}})" if self.route else JOB

    def name(self, what: str) -> str:
        """Return the name of a recorded series of all requests, of bad ones, or of their ratio, e.g. `bad:rate1h`."""
        level = "job_route" if self.route else "job"
        kind, _, operation = what.partition(":")
        return f"{level}:http_requests{_COUNTED[self.slo, kind]}:{operation}"

    def series(self, what: str) -> str:
        """Return the selector of that series."""
        return self.scope.targets.named(self.name(what), *([promql.equal(ROUTE, self.route)] if self.route else []))

    def window(self, name: str) -> Duration:
        """Return the window of that name on this time scale."""
        return self.scope.window if name not in _MINUTES else self.scale.minutes(_MINUTES[name])

    def record(self, what: str, expression: str) -> Rule:
        """Return the rule that records a series."""
        return record(self.name(what), expression, **({ROUTE: self.route} if self.route else {}))


def records(objective: Objective, scope: Scope, scale: TimeScale) -> list[Rule]:
    """Return the rules that count what an objective allows some of, over each window; the long ones read the short."""
    spent = _Spent(objective, scope, scale)
    rules = []
    if isinstance(objective, Latency):
        rules += _slow(objective, spent)
    if objective.route:
        rules.append(spent.record("bad:ratio_rate5m", _ratio(spent, "5m")))
    for name in _MINUTES:
        over = f"[{spent.window(name)}]"
        rules += [
            spent.record(f"{kind}:rate{name}", f"avg_over_time({spent.series(f'{kind}:rate5m')}{over})")
            for kind in ("all", "bad")
        ]
        rules.append(spent.record(f"bad:ratio_rate{name}", _ratio(spent, name)))
    return rules


def budget(objective: Objective, scope: Scope, scale: TimeScale, window_days: int) -> list[Rule]:
    """Return the rules that record which share of the requests of a budget's time was bad, and what is left of it."""
    spent = _Spent(objective, scope, scale)
    name, over = f"{window_days}d", f"[{scale.days(window_days)}]"
    bad, all_ = (f"avg_over_time({spent.series(f'{kind}:rate5m')}{over})" for kind in ("bad", "all"))
    allowed = number(round((100 - Decimal(str(objective.percent))) / 100, 8))
    left = record(
        f"{'job_route' if spent.route else 'job'}:error_budget:remaining{name}",
        f"1 - {spent.series(f'bad:ratio_rate{name}')} / {allowed}",
        **_labels(spent),
    )
    return [spent.record(f"bad:ratio_rate{name}", joined(bad, "/", f"({all_} > 0)")), left]


def alerts(objective: Objective, scope: Scope, scale: TimeScale, lines: Thresholds, window_days: int) -> list[Alert]:
    """Return the alerts for an objective: one for each pair of windows, and one for a service with few requests."""
    spent = _Spent(objective, scope, scale)
    return [*(_burn(spent, pair, lines, window_days) for pair in _PAIRS), _quiet(spent)]


def _slow(objective: Latency, spent: _Spent) -> list[Rule]:
    by = ("job", ROUTE) if objective.route else ("job",)
    fast = spent.scope.recorded("job:http_requests_fast:rate5m")
    rules = []
    if objective.route:
        targets = Targets(spent.scope.targets.matchers, route=promql.equal(ROUTE, objective.route))
        window = str(spent.scope.window)
        fast = promql.fast_rate(targets, window, objective.under, by=by)
        rules.append(spent.record("all:rate5m", spent.scope.instrumented(promql.timed_rate(targets, window, by=by))))
    # Two rates over one window may differ by a rounding error: never less than nothing.
    slow = indent(f"{spent.series('all:rate5m')} - {fast}", "  ")
    rules.append(spent.record("bad:rate5m", f"clamp_min(\n{slow},\n  0\n)"))
    return rules


def _ratio(spent: _Spent, window: str) -> str:
    # A mean of ratios would let a quiet night with failures outweigh a busy day without.
    return joined(spent.series(f"bad:rate{window}"), "/", f"({spent.series(f'all:rate{window}')} > 0)")


def _burn(spent: _Spent, pair: _Pair, lines: Thresholds, window_days: int) -> Alert:
    hours = Decimal(_MINUTES[pair.long]) / 60
    pace = pair.share * window_days * 24 / hours
    allowed = (100 - Decimal(str(spent.objective.percent))) / 100
    line, times = round(pace * allowed, 8), number(round(pace, 2))
    long, short = (f"{spent.series(f'bad:ratio_rate{window}')} > {number(line)}" for window in (pair.long, pair.short))
    return Alert(
        "ErrorBudgetBurn" if spent.slo == "availability" else "LatencyBudgetBurn",
        joined(joined(long, "and", short), "and", f"{_count(spent, pair.long)} >= {lines.events}"),
        spent.scale.minutes(pair.wait_minutes),
        severity=pair.severity,
        summary=f"{spent.whose} spends its error budget too fast",
        description=(
            f"{SHARE} of the requests to {spent.whose} {spent.did} over the last {spent.window(pair.long)}. The line, "
            f"crossed over the last {spent.window(pair.short)}, too, is {percent(line)}: {times} times "
            f"what the objective of {number(spent.objective.percent)}% over {window_days} days allows."
        ),
        labels={**_labels(spent), "short_window": pair.short, "long_window": pair.long},
    )


def _quiet(spent: _Spent) -> Alert:
    """Return the alert for few requests, most of which went wrong: the others ask for more than there may be."""
    # rate() guesses at the edges of its windows: of four requests that an old and a new instance share, two may read as
    # 52 %, and one request as 1.1.
    half = f"{spent.series(f'bad:ratio_rate{_QUIET}')} > 0.55"
    return Alert(
        "QuietServiceFailing" if spent.slo == "availability" else "QuietServiceSlow",
        joined(half, "and", f"{_count(spent, _QUIET)} >= 2"),
        spent.scale.minutes(15),
        severity="warning",
        summary=f"Most of the few requests to {spent.whose} go wrong",
        description=(
            f"{SHARE} of the requests to {spent.whose} {spent.did} over the last {spent.window(_QUIET)}. "
            f"There may be too few of them for other alerts to speak."
        ),
        labels=_labels(spent),
    )


def _count(spent: _Spent, window: str) -> str:
    return spent.scope.events(spent.series("bad:rate5m"), spent.window(window))


def _labels(spent: _Spent) -> dict[str, str]:
    return {"slo": spent.slo, **({ROUTE: spent.route} if spent.route else {})}
