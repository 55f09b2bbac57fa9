"""The thresholds of alerts, and a user's overrides (`--set`, `--disable`)."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING

from scaleobs._render.durations import Duration, milliseconds
from scaleobs.catalog import DEFAULT_BUCKETS
from scaleobs.objectives import Availability, Latency, Objective

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from scaleobs._render.alerts import Alert

SEVERITIES = ("critical", "warning", "info")
_SHARE = re.compile(r"(\d{1,3}(?:\.\d{1,6})?)(%?)")


@dataclass(frozen=True, slots=True)
class BurnRate:
    """
    The burn rate of an error budget above which an alert fires.

    Args:
        long: the window that shows that it matters.
        short: the window that shows that it continues; both must be above the threshold.
        share: the share of the budget that may be spent within the long window.
        wait: how long both must be above it.
        severity: that of the alert.
    """

    long: str
    short: str
    share: Decimal
    wait: str
    severity: str

    def times(self, days: int) -> Decimal:
        """Return the burn rate for a budget of `days` days; 14.4, 6, 3 and 1 for 30."""
        return self.share * days * 86_400_000 / milliseconds(self.long)


BURN_RATES = (
    BurnRate("1h", "5m", Decimal("0.02"), "2m", "critical"),
    BurnRate("6h", "30m", Decimal("0.05"), "15m", "critical"),
    BurnRate("1d", "2h", Decimal("0.1"), "1h", "warning"),
    BurnRate("3d", "6h", Decimal("0.1"), "3h", "warning"),
)
"""SRE workbook, chapter 5."""

LATE_SECONDS = 0.25
"""An event loop with more lag is blocked; it is half of the time that makes a request slow."""

_FASTEST = BURN_RATES[0].times(30)


@dataclass(frozen=True, slots=True)
class Thresholds:
    """
    The thresholds that several rules share; those of one alert only are in its record.

    Shares are decimal fractions, so that a rule has the exact number: 0.0144, not 0.014399999999999998.
    """

    failed_share: Decimal = Decimal("0.05")
    slow_share: Decimal = Decimal("0.05")
    slow_seconds: float = 0.5
    least_events: int = 5
    """The least number of affected requests within the window for an alert."""


def thresholds(objectives: Sequence[Objective], boundaries: Sequence[float] = DEFAULT_BUCKETS) -> Thresholds:
    """
    Return the thresholds for these objectives: the shares at which their error budgets burn 14.4 times too fast.

    Args:
        objectives: at most one of each kind for the service and for each route; those of routes don't change these.
        boundaries: those of the service's buckets, in seconds.

    Raises:
        ValueError: two objectives are of one kind, an objective is so loose that its alert could never fire,
            or the time of a latency objective is no bucket boundary.
    """
    _check_one_of_each(objectives)
    result = Thresholds()
    for objective in objectives:
        share = _burning_share(objective)
        if isinstance(objective, Latency):
            _check_boundary(objective, boundaries)
        if objective.route is not None:
            continue
        if isinstance(objective, Availability):
            result = replace(result, failed_share=share)
        else:
            result = replace(result, slow_share=share, slow_seconds=float(objective.under))
    return result


def to_flag(objective: Objective) -> str:
    """Return the objective as the value of `--slo`, e.g. `latency=99:0.5`."""
    route = "" if objective.route is None else f":{objective.route}"
    if isinstance(objective, Availability):
        return f"availability={number(objective.percent)}{route}"
    return f"latency={number(objective.percent)}:{number(objective.under)}{route}"


def number(value: float | Decimal) -> str:
    """Return a number as text: `99`, `0.5`, `0.0144`; without exponent and rounding error."""
    text = f"{Decimal(str(value)):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _burning_share(objective: Objective) -> Decimal:
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
        f"The objective {to_flag(objective)!r} is for {number(objective.under)} s, which is not among the bucket "
        f"boundaries of the service, so that no rule could count exactly: give {nearest}. "
        f"instrument(objectives=[...]) adds another boundary to a service, and --app reads it from there."
    )
    raise ValueError(msg)


def validate(overrides: Sequence[str], disabled: Sequence[str], alerts: Sequence[Alert]) -> None:
    """
    Check the form of the overrides, and that they and the disabled names are for existing alerts.

    Raises:
        ValueError: one is not valid; the message has the possible values.
    """
    for override in overrides:
        name, key, value = _parse(override)
        if key == "above":
            _share(override, value, name, alerts)
    names = sorted({alert.name for alert in alerts})
    for name in (*(_parse(override)[0] for override in overrides), *disabled):
        if name not in names:
            msg = f"The alert {name!r} is not among these rules: give one of {', '.join(names)}."
            raise ValueError(msg)


def apply(alert: Alert, overrides: Iterable[str], shortest_seconds: int) -> Alert:
    """
    Return the alert with the overrides that are for it, of which the last one of a kind counts.

    Args:
        alert: the alert.
        overrides: e.g. `HighErrorRate.for=10m`; those for other alerts are ignored.
        shortest_seconds: the shortest wait, so that no alert fires after a single evaluation.

    Raises:
        ValueError: a value is not a valid wait, severity or share.
    """
    result = replace(alert, wait=_text(max(milliseconds(alert.wait), shortest_seconds * 1000)))
    for override in overrides:
        name, key, value = _parse(override)
        if name != alert.name:
            continue
        if key == "severity":
            result = replace(result, severity=_severity(override, value))
        elif key == "for":
            result = replace(result, wait=_wait(override, value, shortest_seconds * 1000, alert.longest_wait))
        else:
            result = replace(result, threshold=_share(override, value, name, [alert]))
    return result


def _parse(override: str) -> tuple[str, str, str]:
    name, _, change = override.partition(".")
    key, equals, value = change.partition("=")
    if not (name and equals and key in {"for", "severity", "above"}):
        msg = (
            f"The change {override!r} is not known: write it like HighErrorRate.for=10m, "
            f"HighCPUUsage.severity=warning or HighMemoryUsage.above=95%."
        )
        raise ValueError(msg)
    return name, key, value


def _severity(override: str, value: str) -> str:
    if value not in SEVERITIES:
        msg = f"The change {override!r} has no valid severity: give one of {', '.join(SEVERITIES)}."
        raise ValueError(msg)
    return value


def _share(override: str, value: str, name: str, alerts: Sequence[Alert]) -> Decimal:
    possible = sorted({alert.name for alert in alerts if alert.threshold is not None})
    if name not in possible:
        msg = (
            f"The change {override!r} is for an alert without a threshold to change: give one of "
            f"{', '.join(possible)}. An objective (--slo) sets those of HighErrorRate and HighRequestLatency."
        )
        raise ValueError(msg)
    match = _SHARE.fullmatch(value)
    share = Decimal(match[1]) / (100 if match[2] else 1) if match else Decimal(0)
    if not 0 < share < 1:
        msg = f"The change {override!r} has no valid share: give one above 0 and below 1, e.g. 0.95 or 95%."
        raise ValueError(msg)
    return share


def _wait(override: str, value: str, shortest: int, longest: str) -> str:
    try:
        wait = milliseconds(value)
    except ValueError:
        wait = 0
    if wait < shortest:
        msg = f"The change {override!r} has no valid wait: give one of {_text(shortest)} or more, e.g. 10m or 1h30m."
        raise ValueError(msg)
    if wait > milliseconds(longest):
        msg = (
            f"The change {override!r} has a wait after which the rules may have dropped the service: give one of "
            f"{longest} or less."
        )
        raise ValueError(msg)
    return _text(wait)


def _text(wait: int) -> str:
    return str(Duration(wait))
