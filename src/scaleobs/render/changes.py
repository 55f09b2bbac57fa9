"""What a team changes about alerts: another wait, another severity, another line, or none of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from scaleobs.render.durations import Duration

if TYPE_CHECKING:
    from scaleobs.render.alerts import Alert
    from scaleobs.render.durations import TimeScale
    from scaleobs.render.thresholds import Thresholds

SEVERITIES = ("critical", "warning", "info")
_LONGEST_SECONDS = 12 * 3600
"""Alerts forget a service that nobody has seen for a day: what waits as long never speaks."""
_LONGEST_OF = {"TrafficGone": 5 * 3600}
"""It compares with the last six hours."""
_SECONDS = {"d": 86_400, "h": 3600, "m": 60, "s": 1}
_LINES = {
    "CPUThrottled": "throttled_share",
    "EventLoopLag": "late_share",
    "HighCPUUsage": "cpu_share",
    "HighFileDescriptorUsage": "files_share",
    "HighMemoryUsage": "memory_share",
    "HighRouteErrorRate": "route_failed_share",
}
"""The alerts that have a share as their line, and what it is called among the thresholds."""

_SHARE = re.compile(r"(\d{1,3}(?:\.\d{1,6})?)(%?)")
_WAIT = re.compile(r"(?=.)(?:(\d{1,4})d)?(?:(\d{1,4})h)?(?:(\d{1,4})m)?(?:(\d{1,4})s)?")


def check_names(names: Iterable[str], known: Iterable[str]) -> None:
    """
    Check that alerts are known by their names.

    Raises:
        ValueError: one is not; the message lists those that are.
    """
    listed = sorted(set(known))
    for name in names:
        if name not in listed:
            msg = f"The alert {name!r} is not among these rules: give one of {', '.join(listed)}."
            raise ValueError(msg)


def target(change: str) -> str:
    """
    Return the name of the alert that a change is for.

    Raises:
        ValueError: it isn't written like `HighErrorRate.for=10m`.
    """
    name, _, what = change.partition(".")
    if not name or not what.startswith(("for=", "severity=", "above=")):
        msg = (
            f"The change {change!r} is not known: write it like HighErrorRate.for=10m, "
            f"HighCPUUsage.severity=warning or HighMemoryUsage.above=95%."
        )
        raise ValueError(msg)
    return name


def redrawn(lines: Thresholds, changes: Sequence[str]) -> Thresholds:
    """
    Return the lines as the changes want them, the last one for each alert.

    Raises:
        ValueError: an alert has no share as its line, or the value is none.
    """
    for change in changes:
        name, (what, _, value) = target(change), change.partition(".")[2].partition("=")
        if what != "above":
            continue
        if name not in _LINES:
            msg = (
                f"The change {change!r} is for an alert without a line to change: give one of {', '.join(_LINES)}. "
                f"An objective (--slo) draws those of HighErrorRate and HighRequestLatency."
            )
            raise ValueError(msg)
        found = _SHARE.fullmatch(value)
        share = Decimal(found[1]) / (100 if found[2] else 1) if found else Decimal(0)
        if not 0 < share < 1:
            msg = f"The change {change!r} asks for no share: give one above 0 and below 1, e.g. 0.95 or 95%."
            raise ValueError(msg)
        line: dict[str, Any] = {_LINES[name]: share}
        lines = replace(lines, **line)
    return lines


def changed(alert: Alert, changes: Sequence[str], scale: TimeScale, shortest_seconds: int) -> Alert:
    """
    Return the alert as the changes that are for it want it, the last one of a kind.

    Args:
        alert: the alert.
        changes: e.g. `HighErrorRate.for=10m`; those for other alerts don't matter.
        scale: what waits are divided by, as every duration is.
        shortest_seconds: how long each alert has to wait at least, so that one look alone never tells.

    Raises:
        ValueError: a value is no wait or no severity.
    """
    for change, value in _of(alert.name, "severity", changes):
        if value not in SEVERITIES:
            msg = f"The change {change!r} asks for no severity: give one of {', '.join(SEVERITIES)}."
            raise ValueError(msg)
        alert = replace(alert, severity=value)
    return replace(alert, wait=wait_of(alert.name, alert.wait, changes, scale, shortest_seconds))


def wait_of(
    name: str, as_shipped: Duration, changes: Sequence[str], scale: TimeScale, shortest_seconds: int
) -> Duration:
    """Return how long an alert of that name waits; see `changed`."""
    wait = max(as_shipped, scale.seconds(shortest_seconds))
    for change, value in _of(name, "for", changes):
        wait = scale.seconds(_wait_seconds(change, value, shortest_seconds))
    return wait


def _of(name: str, what: str, changes: Sequence[str]) -> list[tuple[str, str]]:
    """Return the changes of one kind for one alert, each with its value."""
    start = f"{name}.{what}="
    return [(change, change.removeprefix(start)) for change in changes if change.startswith(start)]


def _wait_seconds(change: str, value: str, shortest: int) -> int:
    found = _WAIT.fullmatch(value)
    counts = found.groups() if found else ()
    seconds = sum(int(count or 0) * size for count, size in zip(counts, _SECONDS.values(), strict=False))
    if seconds < shortest:
        least = Duration(shortest * 1000)
        msg = f"The change {change!r} asks for no wait: give one of {least} or more, e.g. 10m or 1h30m."
        raise ValueError(msg)
    most = _LONGEST_OF.get(target(change), _LONGEST_SECONDS)
    if seconds > most:
        msg = (
            f"The change {change!r} asks for a wait after which the alert could have forgotten what it is about: give "
            f"one of {Duration(most * 1000)} or less."
        )
        raise ValueError(msg)
    return seconds
