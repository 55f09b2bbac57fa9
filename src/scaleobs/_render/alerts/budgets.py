"""
Alerts on the burn rates of error budgets.

Both windows of a burn rate (`BURN_RATES`) must be above the threshold: the long one shows that it matters, the short
one that it continues. Series and labels keep the names of their windows on every time scale.
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
from scaleobs._render.scenario import Scenario, Series, SyntheticService, around, below_and_above, silent
from scaleobs.objectives import Availability, Latency, Objective

BUDGET_DAYS = (28, 30)
"""The possible times of an error budget, in days."""

COMMENT = """
Is the error budget spent too fast? The share of bad requests is compared with what the objective allows, over a
long window, which shows that it matters, and a short one, which shows that it continues. Windows beyond 5m read
recorded rates, and divide their means: in a mean of ratios a quiet night would outweigh a busy day.
sum_over_time(...) counts bad requests: a few are no reason for an alert. QuietService* are for services with few
requests: most requests of six hours were bad, and at least two of them."""
"""The end of a group's comment if there is an objective of its kind."""

_RECORDED = "5m"
"""The window of the series that are recorded from those of instances."""

_WINDOWS = sorted({one for rate in BURN_RATES for one in (rate.short, rate.long)} - {_RECORDED}, key=milliseconds)
_QUIET = "6h"
_SUFFIXES = {
    ("availability", "all"): "",
    ("availability", "bad"): "_bad",
    ("latency", "all"): "_timed",
    ("latency", "bad"): "_slow",
}
"""The names of an objective's recorded series, after `http_requests`."""


@dataclass(frozen=True, slots=True)
class _Budget:
    """One objective, and the recorded series that count its requests."""

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
        return {"slo": self.slo, **self.route_labels}

    @property
    def route_labels(self) -> dict[str, str]:
        return {ROUTE: self.route} if self.route else {}

    @property
    def subject_and_fault(self) -> tuple[str, str]:
        """The service or the route, and the fault of its bad requests."""
        if isinstance(self.objective, Availability):
            fault = "failed with a 5xx status"
        else:
            fault = f"took longer than {number(self.objective.under)} s"
        return "{job} ({route})" if self.route else "{job}", fault

    def name(self, what: str) -> str:
        """Return the name of the recorded series of all or bad requests or of their ratio, e.g. for `bad:rate1h`."""
        level = "job_route" if self.route else "job"
        kind, _, operation = what.partition(":")
        return f"{level}:http_requests{_SUFFIXES[self.slo, kind]}:{operation}"

    def series(self, what: str) -> str:
        """Return the selector of that series."""
        return self.scope.targets.named(self.name(what), *([promql.equal(ROUTE, self.route)] if self.route else []))

    def window(self, name: str) -> Duration:
        """Return the window of that name on this time scale."""
        return self.scope.window if name == _RECORDED else self.scope.scaled(name)

    def record(self, what: str, expression: str) -> Rule:
        """Return the rule that records a series."""
        return record(self.name(what), expression, **self.route_labels)

    def ratio(self, window: str) -> Rule:
        """Return the rule that records the share of bad requests."""
        # In a mean of ratios a quiet night with failures would outweigh a busy day without.
        share = joined(self.series(f"bad:rate{window}"), "/", f"({self.series(f'all:rate{window}')} > 0)")
        return self.record(f"bad:ratio_rate{window}", share)

    def enough_bad(self, window: str, least: int) -> str:
        """Return the condition that at least `least` requests were bad within a window."""
        return f"{self.scope.event_count(self.series('bad:rate5m'), self.window(window))} >= {least}"

    def with_bad_share(self, service: SyntheticService, share: Decimal) -> Series:
        """Return the series of a service with this share of bad requests."""
        return (service.failing if self.slo == "availability" else service.slow)(share, self.route)


def rules(objective: Objective, scope: Scope) -> list[Rule | Alert]:
    """
    Return the rules and alerts for an objective.

    The rules record the rates and ratios of bad requests over each window; long windows read the short one.
    """
    budget = _Budget(objective, scope)
    result: list[Rule | Alert] = []
    if isinstance(objective, Latency):
        result += _slow_requests(objective, budget)
    if objective.route:
        result.append(budget.ratio(_RECORDED))
    for name in _WINDOWS:
        result += [
            budget.record(
                f"{kind}:rate{name}", f"avg_over_time({budget.series(f'{kind}:rate5m')}[{budget.window(name)}])"
            )
            for kind in ("all", "bad")
        ]
        result.append(budget.ratio(name))
    return [*result, *(_burn_alert(budget, rate) for rate in BURN_RATES), _quiet_alert(budget)]


def _slow_requests(objective: Latency, budget: _Budget) -> list[Rule]:
    by = ("job", ROUTE) if objective.route else ("job",)
    fast = budget.scope.recorded("job:http_requests_fast:rate5m")
    result = []
    if objective.route:
        targets = Targets(budget.scope.targets.matchers, route=promql.equal(ROUTE, objective.route))
        window = str(budget.scope.window)
        fast = promql.fast_rate(targets, window, objective.under, by=by)
        timed = promql.timed_rate(targets, window, by=by)
        result.append(budget.record("all:rate5m", budget.scope.of_instrumented_jobs(timed)))
    # Two rates over one window may differ by a rounding error: the rate must not be negative.
    slow = indent(f"{budget.series('all:rate5m')} - {fast}", "  ")
    return [*result, budget.record("bad:rate5m", f"clamp_min(\n{slow},\n  0\n)")]


def _burn_alert(budget: _Budget, rate: BurnRate) -> Alert:
    days = budget.scope.budget_days
    times = rate.times(days)
    threshold = round(times * budget.allowed, 8)
    long, short = (f"{budget.series(f'bad:ratio_rate{one}')} > {number(threshold)}" for one in (rate.long, rate.short))
    subject, fault = budget.subject_and_fault
    return Alert(
        name="ErrorBudgetBurn" if budget.slo == "availability" else "LatencyBudgetBurn",
        expression=lambda scope: joined(
            joined(long, "and", short), "and", budget.enough_bad(rate.long, scope.thresholds.least_events)
        ),
        wait=rate.wait,
        severity=rate.severity,
        summary=f"{subject} spends its error budget too fast",
        description=(
            f"{{share}} of the requests to {subject} {fault} over the last {budget.window(rate.long)}. The "
            f"threshold, exceeded over the last {budget.window(rate.short)}, too, is {percent(threshold)}: "
            f"{number(round(times, 2))} times what the objective of {number(budget.objective.percent)}% over {days} "
            "days allows."
        ),
        labels={**budget.labels, "short_window": rate.short, "long_window": rate.long},
        scenarios=lambda service: _burn_scenarios(service, budget, rate),
    )


def _burn_scenarios(service: SyntheticService, budget: _Budget, rate: BurnRate) -> list[Scenario]:
    result = around(
        rate.times(budget.scope.budget_days) * budget.allowed,
        "The budget is spent slightly faster than the threshold.",
        "The budget is spent slightly slower than the threshold.",
        lambda share: budget.with_bad_share(service, share),
    )
    if budget.slo == "availability" and rate is BURN_RATES[0]:
        result.append(_after_no_failure(service, budget, rate))
    return result


def _after_no_failure(service: SyntheticService, budget: _Budget, rate: BurnRate) -> Scenario:
    """Return failures after half an hour without any, in which the series of failures did not exist."""
    later = replace(service, steps=service.in_steps(58))
    below, _ = below_and_above(rate.times(budget.scope.budget_days) * budget.allowed)
    result = later.failing(below * Decimal("1.5"), budget.route)
    for one, samples in result.items():
        if 'code="500"' in one:
            result[one] = f"_x{service.in_steps(30)} {samples}"
    return Scenario("The budget is spent faster after a time without failures.", result, fires=False, steps=later.steps)


def _quiet_alert(budget: _Budget) -> Alert:
    """Return the alert for few requests, most of them bad: the other alerts need more requests."""
    # rate() extrapolates to the edges of its windows: two of four requests, to an old and a new instance, may become
    # 52 %, and one request 1.1.
    half = f"{budget.series(f'bad:ratio_rate{_QUIET}')} > 0.55"
    subject, fault = budget.subject_and_fault
    return Alert(
        name="QuietServiceFailing" if budget.slo == "availability" else "QuietServiceSlow",
        expression=lambda _: joined(half, "and", budget.enough_bad(_QUIET, 2)),
        wait="15m",
        severity="warning",
        summary=f"Most of the few requests to {subject} go wrong",
        description=(
            f"{{share}} of the requests to {subject} {fault} over the last {budget.window(_QUIET)}. "
            f"They may be too few for other alerts."
        ),
        labels=budget.labels,
        scenarios=lambda service: [
            Scenario("Two of three requests are bad.", budget.with_bad_share(service, Decimal("0.66"))),
            silent("One of three requests is bad.", budget.with_bad_share(service, Decimal("0.33"))),
        ],
    )


def _remaining(scope: Scope) -> list[Rule]:
    """Return the rules that record the share of bad requests in a budget's time, and the rest of the budget."""
    result = []
    for objective in scope.objectives:
        budget, name = _Budget(objective, scope), f"{scope.budget_days}d"
        over = f"[{scope.scale.days(scope.budget_days)}]"
        bad, all_ = (f"avg_over_time({budget.series(f'{kind}:rate5m')}{over})" for kind in ("bad", "all"))
        left = record(
            f"{'job_route' if budget.route else 'job'}:error_budget:remaining{name}",
            f"1 - {budget.series(f'bad:ratio_rate{name}')} / {number(round(budget.allowed, 8))}",
            **budget.labels,
        )
        result += [budget.record(f"bad:ratio_rate{name}", joined(bad, "/", f"({all_} > 0)")), left]
    return result


BUDGETS = AlertGroup(
    "budgets",
    """\
What is left of each error budget? 1 is all of it, 0 nothing; below 0, more was spent than allowed. A day with many
requests counts for more than one with few: rates are averaged and then divided. A young service is measured
over its own age.""",
    (_remaining,),
    # A month of samples need not be read every half minute; series that are recorded less often have gaps.
    interval="2m",
)
