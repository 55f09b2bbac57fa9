"""The lines that alerts draw, from the defaults or from the objectives of a service."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING

from scaleobs.catalog import DEFAULT_BUCKETS
from scaleobs.objectives import Availability, Latency, Objective

if TYPE_CHECKING:
    from collections.abc import Sequence

# At 14.4 times the pace that a 30-day budget allows, 2 % of it go within an hour (SRE workbook, chapter 5).
_FAST_BURN = Decimal("14.4")


@dataclass(frozen=True, slots=True)
class Thresholds:
    """
    Where a service stops being good enough.

    Shares are decimal fractions, so that a rule shows what was meant: 0.0144, not 0.014399999999999998.
    """

    failed_share: Decimal = Decimal("0.05")
    slow_share: Decimal = Decimal("0.05")
    slow_seconds: float = 0.5
    events: int = 5
    """So many requests have to be affected within the window before an alert speaks."""
    route_failed_share: Decimal = Decimal("0.2")
    """A route fails beside others that work: its share of the service's requests may be small."""
    cpu_share: Decimal = Decimal("0.8")
    throttled_share: Decimal = Decimal("0.25")
    memory_share: Decimal = Decimal("0.9")
    files_share: Decimal = Decimal("0.8")
    late_share: Decimal = Decimal("0.1")
    late_seconds: float = 0.25
    """An event loop that is so late, half of what makes a request slow, is blocked."""
    restarts: int = 2
    error_lines: int = 50
    error_lines_times: int = 10
    """So many lines, and so many times what is usual, are a burst."""
    requests_per_second: Decimal = Decimal("0.1")
    """A service with less traffic has quiet minutes of its own."""


def thresholds(objectives: Sequence[Objective], boundaries: Sequence[float] = DEFAULT_BUCKETS) -> Thresholds:
    """
    Return the lines that these objectives draw: where their error budget burns 14.4 times too fast.

    Args:
        objectives: at most one of each kind, for the service and for each route; those have lines of their own.
        boundaries: those of the service's buckets, in seconds.

    Raises:
        ValueError: two objectives are of one kind, an objective is so loose that its alert could never fire,
            or the time of a latency objective is no bucket boundary.
    """
    _check_one_of_each(objectives)
    lines = Thresholds()
    for objective in objectives:
        share = _burning(objective)
        if isinstance(objective, Latency):
            _check_boundary(objective, boundaries)
        if objective.route is not None:
            continue
        if isinstance(objective, Availability):
            lines = replace(lines, failed_share=share)
        else:
            lines = replace(lines, slow_share=share, slow_seconds=float(objective.under))
    return lines


def spelled(objective: Objective) -> str:
    """Return the objective as the command line writes it, e.g. `latency=99:0.5`."""
    route = "" if objective.route is None else f":{objective.route}"
    if isinstance(objective, Availability):
        return f"availability={number(objective.percent)}{route}"
    return f"latency={number(objective.percent)}:{number(objective.under)}{route}"


def number(value: float | Decimal) -> str:
    """Return a number as people write it: `99`, `0.5`, `0.0144`; no exponent, no rounding error."""
    text = f"{Decimal(str(value)):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _burning(objective: Objective) -> Decimal:
    share = _FAST_BURN * (100 - Decimal(str(objective.percent))) / 100
    if share >= 1:
        loosest = 100 - 100 / _FAST_BURN
        msg = (
            f"The objective {spelled(objective)!r} is too loose for an alert: {number(_FAST_BURN)} times its "
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
            msg = f"Two objectives of one kind, {spelled(first)!r} and {spelled(objective)!r}: give only one of them."
            raise ValueError(msg)


def _check_boundary(objective: Latency, boundaries: Sequence[float]) -> None:
    if objective.under in boundaries:
        return
    below = sorted(bound for bound in boundaries if bound < objective.under)[-1:]
    above = sorted(bound for bound in boundaries if bound > objective.under)[:1]
    nearest = " or ".join(number(bound) for bound in (*below, *above))
    msg = (
        f"The objective {spelled(objective)!r} asks for {number(objective.under)} s, which is not among the "
        f"bucket boundaries of the service, so that no rule could count exactly: give {nearest}. "
        f"instrument(objectives=[...]) makes a service count at another boundary, and --app reads it from there."
    )
    raise ValueError(msg)
