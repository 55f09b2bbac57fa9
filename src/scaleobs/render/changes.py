"""What a team changes about alerts: another wait, another severity, or none of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scaleobs.render.alerts import Alert
    from scaleobs.render.durations import TimeScale

SEVERITIES = ("critical", "warning", "info")
_SECONDS = {"d": 86_400, "h": 3600, "m": 60, "s": 1}
# Two looks are the least: one alone may be that of a Prometheus that just started.
_SHORTEST_SECONDS = 60
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
    if not name or not what.startswith(("for=", "severity=")):
        msg = (
            f"The change {change!r} is not known: write it like HighErrorRate.for=10m or "
            f"HighCPUUsage.severity=warning. An objective (--slo) draws another line."
        )
        raise ValueError(msg)
    return name


def changed(alert: Alert, changes: Sequence[str], scale: TimeScale) -> Alert:
    """
    Return the alert as the changes that are for it want it, the last one of a kind.

    Args:
        alert: the alert.
        changes: e.g. `HighErrorRate.for=10m`; those for other alerts don't matter.
        scale: what waits are divided by, as every duration is.

    Raises:
        ValueError: a value is no wait or no severity.
    """
    for change in changes:
        what, _, value = change.removeprefix(f"{alert.name}.").partition("=")
        if target(change) != alert.name:
            continue
        if what == "severity":
            if value not in SEVERITIES:
                msg = f"The change {change!r} asks for no severity: give one of {', '.join(SEVERITIES)}."
                raise ValueError(msg)
            alert = replace(alert, severity=value)
        else:
            alert = replace(alert, wait=scale.seconds(_wait_seconds(change, value)))
    return alert


def _wait_seconds(change: str, value: str) -> int:
    found = _WAIT.fullmatch(value)
    counts = found.groups() if found else ()
    seconds = sum(int(count or 0) * size for count, size in zip(counts, _SECONDS.values(), strict=False))
    if seconds < _SHORTEST_SECONDS:
        msg = f"The change {change!r} asks for no wait: give one of a minute or more, e.g. 10m or 1h30m."
        raise ValueError(msg)
    return seconds
