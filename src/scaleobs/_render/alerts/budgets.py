"""
Alerts on how fast a service spends the error budget that its objectives leave it.

Two windows have to agree: the long one shows that it matters, the short one that it still goes on; `BURN_RATES` has
them. Series and labels keep the names of their windows on every time scale.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from textwrap import indent

from scaleobs._render import promql
from scaleobs._render.alerts import Alert, AlertGroup, percent
from scaleobs._render.durations import Duration, milliseconds
from scaleobs._render.overrides import BURN_RATES, BurnRate, number
from scaleobs._render.promql import ROUTE, Targets, joined
from scaleobs._render.recording import Rule, Scope, record
from scaleobs._render.scenario import Scenario, Series, SyntheticService, around, beside, silent
from scaleobs.objectives import Availability, Latency, Objective

BUDGET_DAYS = (28, 30)
"""The times that a budget may be for."""

ABOUT = """
Is the error budget spent too fast? The share of bad requests is compared with what the objective allows, over a
long window, so that it matters, and a short one, so that it still goes on. Windows beyond 5m read recorded rates,
and divide their means: a mean of ratios would let a quiet night outweigh a busy day.
sum_over_time(...) counts bad requests: a few are no reason to wake anybody. QuietService* are for services that
never have more: most of the requests of six hours went wrong, and two of them did."""
"""What the comment above a group ends with if there is an objective of its kind."""

_RECORDED = "5m"
"""The window of the series that are recorded from what instances expose."""

_WINDOWS = sorted({one for rate in BURN_RATES for one in (rate.short, rate.long)} - {_RECORDED}, key=milliseconds)
_QUIET = "6h"
_COUNTED = {
    ("availability", "all"): "",
    ("availability", "bad"): "_bad",
    ("latency", "all"): "_timed",
    ("latency", "bad"): "_slow",
}
"""What the recorded series of an objective are called, after `http_requests`."""


@dataclass(frozen=True, slots=True)
class _Budget:
    """One objective, and which recorded series count what it allows some of."""

    objective: Objective
    scope: Scope

    @property
    def route(self) -> str | None:
        return self.objective.route

    @property
    def slo(self) -> str:
        return "availability" if isinstance(self.objective, Availability) else "latency"

    @property
    def allowed(self) -> Decimal:
        """The share of the requests that may be bad."""
        return (100 - Decimal(str(self.objective.percent))) / 100

    @property
    def labels(self) -> dict[str, str]:
        return {"slo": self.slo, **self.of_route}

    @property
    def of_route(self) -> dict[str, str]:
        return {ROUTE: self.route} if self.route else {}

    @property
    def texts(self) -> tuple[str, str]:
        """The service or the route, and what its bad requests did."""
        if isinstance(self.objective, Availability):
            did = "failed with a 5xx status"
        else:
            did = f"took longer than {number(self.objective.under)} s"
        return "{job} ({route})" if self.route else "{job}", did

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
        return self.scope.window if name == _RECORDED else self.scope.over(name)

    def record(self, what: str, expression: str) -> Rule:
        """Return the rule that records a series."""
        return record(self.name(what), expression, **self.of_route)

    def ratio(self, window: str) -> Rule:
        """Return the rule that records the share of bad requests."""
        # A mean of ratios would let a quiet night with failures outweigh a busy day without.
        share = joined(self.series(f"bad:rate{window}"), "/", f"({self.series(f'all:rate{window}')} > 0)")
        return self.record(f"bad:ratio_rate{window}", share)

    def bad(self, window: str, least: int) -> str:
        """Return the condition that so many requests were bad within a window."""
        return f"{self.scope.events(self.series('bad:rate5m'), self.window(window))} >= {least}"

    def spent(self, service: SyntheticService, share: Decimal) -> Series:
        """Return the series of a service of which that share of the requests is bad."""
        return (service.failing if self.slo == "availability" else service.slow)(share, self.route)


def rules(objective: Objective, scope: Scope) -> list[Rule | Alert]:
    """
    Return the rules and alerts for an objective.

    The rules record what it allows some of over each window; the long ones read the short.
    """
    budget = _Budget(objective, scope)
    found: list[Rule | Alert] = []
    if isinstance(objective, Latency):
        found += _slow(objective, budget)
    if objective.route:
        found.append(budget.ratio(_RECORDED))
    for name in _WINDOWS:
        found += [
            budget.record(
                f"{kind}:rate{name}", f"avg_over_time({budget.series(f'{kind}:rate5m')}[{budget.window(name)}])"
            )
            for kind in ("all", "bad")
        ]
        found.append(budget.ratio(name))
    return [*found, *(_burn(budget, rate) for rate in BURN_RATES), _quiet(budget)]


def _slow(objective: Latency, budget: _Budget) -> list[Rule]:
    by = ("job", ROUTE) if objective.route else ("job",)
    fast = budget.scope.recorded("job:http_requests_fast:rate5m")
    found = []
    if objective.route:
        targets = Targets(budget.scope.targets.matchers, route=promql.equal(ROUTE, objective.route))
        window = str(budget.scope.window)
        fast = promql.fast_rate(targets, window, objective.under, by=by)
        timed = promql.timed_rate(targets, window, by=by)
        found.append(budget.record("all:rate5m", budget.scope.instrumented(timed)))
    # Two rates over one window may differ by a rounding error: never less than nothing.
    slow = indent(f"{budget.series('all:rate5m')} - {fast}", "  ")
    return [*found, budget.record("bad:rate5m", f"clamp_min(\n{slow},\n  0\n)")]


def _burn(budget: _Budget, rate: BurnRate) -> Alert:
    days = budget.scope.budget_days
    times = rate.times(days)
    threshold = round(times * budget.allowed, 8)
    long, short = (f"{budget.series(f'bad:ratio_rate{one}')} > {number(threshold)}" for one in (rate.long, rate.short))
    which, did = budget.texts
    return Alert(
        name="ErrorBudgetBurn" if budget.slo == "availability" else "LatencyBudgetBurn",
        expression=lambda scope: joined(
            joined(long, "and", short), "and", budget.bad(rate.long, scope.thresholds.events)
        ),
        wait=rate.wait,
        severity=rate.severity,
        summary=f"{which} spends its error budget too fast",
        description=(
            f"{{share}} of the requests to {which} {did} over the last {budget.window(rate.long)}. The line, "
            f"crossed over the last {budget.window(rate.short)}, too, is {percent(threshold)}: "
            f"{number(round(times, 2))} times what the objective of {number(budget.objective.percent)}% over {days} "
            "days allows."
        ),
        labels={**budget.labels, "short_window": rate.short, "long_window": rate.long},
        scenarios=lambda service: _burning(service, budget, rate),
    )


def _burning(service: SyntheticService, budget: _Budget, rate: BurnRate) -> list[Scenario]:
    found = around(
        rate.times(budget.scope.budget_days) * budget.allowed,
        "The budget goes a little faster than the line allows.",
        "It goes a little slower.",
        lambda share: budget.spent(service, share),
    )
    if budget.slo == "availability" and rate is BURN_RATES[0]:
        found.append(_after_no_failure(service, budget, rate))
    return found


def _after_no_failure(service: SyntheticService, budget: _Budget, rate: BurnRate) -> Scenario:
    """Return what half an hour without a failure makes good, even if nothing was counted as 0 then."""
    later = replace(service, steps=service.in_steps(58))
    below, _ = beside(rate.times(budget.scope.budget_days) * budget.allowed)
    found = later.failing(below * Decimal("1.5"), budget.route)
    for one, samples in found.items():
        if 'code="500"' in one:
            found[one] = f"_x{service.in_steps(30)} {samples}"
    return Scenario("It goes faster, after a time without any failure.", found, fires=False, steps=later.steps)


def _quiet(budget: _Budget) -> Alert:
    """Return the alert for few requests, most of which went wrong: the others ask for more than there may be."""
    # rate() guesses at the edges of its windows: of four requests that an old and a new instance share, two may read as
    # 52 %, and one request as 1.1.
    half = f"{budget.series(f'bad:ratio_rate{_QUIET}')} > 0.55"
    which, did = budget.texts
    return Alert(
        name="QuietServiceFailing" if budget.slo == "availability" else "QuietServiceSlow",
        expression=lambda _: joined(half, "and", budget.bad(_QUIET, 2)),
        wait="15m",
        severity="warning",
        summary=f"Most of the few requests to {which} go wrong",
        description=(
            f"{{share}} of the requests to {which} {did} over the last {budget.window(_QUIET)}. "
            f"There may be too few of them for other alerts to speak."
        ),
        labels=budget.labels,
        scenarios=lambda service: [
            Scenario("Two of three requests go wrong.", budget.spent(service, Decimal("0.66"))),
            silent("One of three does.", budget.spent(service, Decimal("0.33"))),
        ],
    )


def _remaining(scope: Scope) -> list[Rule]:
    """Return the rules that record, of a budget's time, the share of bad requests and what is left of the budget."""
    found = []
    for objective in scope.objectives:
        budget, name = _Budget(objective, scope), f"{scope.budget_days}d"
        over = f"[{scope.scale.days(scope.budget_days)}]"
        bad, all_ = (f"avg_over_time({budget.series(f'{kind}:rate5m')}{over})" for kind in ("bad", "all"))
        left = record(
            f"{'job_route' if budget.route else 'job'}:error_budget:remaining{name}",
            f"1 - {budget.series(f'bad:ratio_rate{name}')} / {number(round(budget.allowed, 8))}",
            **budget.labels,
        )
        found += [budget.record(f"bad:ratio_rate{name}", joined(bad, "/", f"({all_} > 0)")), left]
    return found


BUDGETS = AlertGroup(
    "budgets",
    """\
What is left of each error budget? 1 is all of it, 0 nothing, less is more than was allowed. A day with many requests
counts for more than one with few: rates are averaged and then divided. A young service is measured by its own time.""",
    (_remaining,),
    # A month of samples need not be read every half minute; series that are recorded less often have gaps.
    interval="2m",
)
