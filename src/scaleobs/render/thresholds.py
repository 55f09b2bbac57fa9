"""Thresholds of alerts, from the defaults or from the objectives of a service, and the rates that budgets burn at."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING

from scaleobs.catalog import DEFAULT_BUCKETS
from scaleobs.objectives import Availability, Latency, Objective
from scaleobs.render.durations import milliseconds

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class BurnRate:
    """
    How fast an error budget may be spent before an alert fires.

    Args:
        long: the window that shows that it matters.
        short: the window that shows that it still goes on; both have to be above the threshold.
        share: the share of the budget that may be spent within the long window.
        wait: how long that has to last.
        severity: that of the alert.
    """

    long: str
    short: str
    share: Decimal
    wait: str
    severity: str

    def times(self, days: int) -> Decimal:
        """Return how many times faster than a budget of so many days allows that is: 14.4, 6, 3 and 1 for 30."""
        return self.share * days * 86_400_000 / milliseconds(self.long)


BURN_RATES = (
    BurnRate("1h", "5m", Decimal("0.02"), "2m", "critical"),
    BurnRate("6h", "30m", Decimal("0.05"), "15m", "critical"),
    BurnRate("1d", "2h", Decimal("0.1"), "1h", "warning"),
    BurnRate("3d", "6h", Decimal("0.1"), "3h", "warning"),
)
"""SRE workbook, chapter 5."""

LATE_SECONDS = 0.25
"""An event loop that is so late, half of what makes a request slow, is blocked."""

_FASTEST = BURN_RATES[0].times(30)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """
    The thresholds that several rules share; those of one alert only are in its record.

    Shares are decimal fractions, so that a rule shows what was meant: 0.0144, not 0.014399999999999998.
    """

    failed_share: Decimal = Decimal("0.05")
    slow_share: Decimal = Decimal("0.05")
    slow_seconds: float = 0.5
    events: int = 5
    """So many requests have to be affected within the window before an alert fires."""


def thresholds(objectives: Sequence[Objective], boundaries: Sequence[float] = DEFAULT_BUCKETS) -> Thresholds:
    """
    Return the thresholds for these objectives: a share at which their error budget burns 14.4 times too fast.

    Args:
        objectives: at most one of each kind, for the service and for each route; those of routes change none of these.
        boundaries: those of the service's buckets, in seconds.

    Raises:
        ValueError: two objectives are of one kind, an objective is so loose that its alert could never fire,
            or the time of a latency objective is no bucket boundary.
    """
    _check_one_of_each(objectives)
    found = Thresholds()
    for objective in objectives:
        share = _burning(objective)
        if isinstance(objective, Latency):
            _check_boundary(objective, boundaries)
        if objective.route is not None:
            continue
        if isinstance(objective, Availability):
            found = replace(found, failed_share=share)
        else:
            found = replace(found, slow_share=share, slow_seconds=float(objective.under))
    return found


def to_flag(objective: Objective) -> str:
    """Return the objective as the value of `--slo`, e.g. `latency=99:0.5`."""
    route = "" if objective.route is None else f":{objective.route}"
    if isinstance(objective, Availability):
        return f"availability={number(objective.percent)}{route}"
    return f"latency={number(objective.percent)}:{number(objective.under)}{route}"


def number(value: float | Decimal) -> str:
    """Return a number as people write it: `99`, `0.5`, `0.0144`; no exponent, no rounding error."""
    text = f"{Decimal(str(value)):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _burning(objective: Objective) -> Decimal:
    share = _FASTEST * (100 - Decimal(str(objective.percent))) / 100
    if share >= 1:
        loosest = 100 - 100 / _FASTEST
        msg = (
            f"The objective {to_flag(objective)!r} is too loose for an alert: {number(_FASTEST)} times its "
            f"budget is {number(share * 100)} % of the requests, which can't be exceeded. "
            f"Give a percentage above {loosest:.2f}."
        )
        raise ValueError(msg)
    return share


def _check_one_of_each(objectives: Sequence[Objective]) -> None:
    seen: dict[tuple[type[Objective], str | None], Objective] = {}
    for objective in objectives:
        first = seen.setdefault((type(objective), objective.route), objective)
        if first is not objective:
            msg = f"Two objectives of one kind, {to_flag(first)!r} and {to_flag(objective)!r}: give only one of them."
            raise ValueError(msg)


def _check_boundary(objective: Latency, boundaries: Sequence[float]) -> None:
    if objective.under in boundaries:
        return
    below = sorted(bound for bound in boundaries if bound < objective.under)[-1:]
    above = sorted(bound for bound in boundaries if bound > objective.under)[:1]
    nearest = " or ".join(number(bound) for bound in (*below, *above))
    msg = (
        f"The objective {to_flag(objective)!r} asks for {number(objective.under)} s, which is not among the "
        f"bucket boundaries of the service, so that no rule could count exactly: give {nearest}. "
        f"instrument(objectives=[...]) makes a service count at another boundary, and --app reads it from there."
    )
    raise ValueError(msg)
