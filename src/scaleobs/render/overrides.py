"""What a team changes about alerts: another wait, another severity, another threshold, or none of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING

from scaleobs.render.durations import Duration, milliseconds

if TYPE_CHECKING:
    from scaleobs.render.alerts import Alert

SEVERITIES = ("critical", "warning", "info")
_SHARE = re.compile(r"(\d{1,3}(?:\.\d{1,6})?)(%?)")


def check(overrides: Sequence[str], disabled: Sequence[str], alerts: Sequence[Alert]) -> None:
    """
    Check that overrides can be read, and that they and the disabled names are for known alerts.

    Raises:
        ValueError: one is not; the message has what is possible.
    """
    for override in overrides:
        name, key, value = _parts(override)
        if key == "above":
            _share(override, value, name, alerts)
    known = sorted({alert.name for alert in alerts})
    for name in (*(_parts(override)[0] for override in overrides), *disabled):
        if name not in known:
            msg = f"The alert {name!r} is not among these rules: give one of {', '.join(known)}."
            raise ValueError(msg)


def apply(alert: Alert, overrides: Iterable[str], shortest_seconds: int) -> Alert:
    """
    Return the alert with the overrides that are for it, of which the last one of a kind counts.

    Args:
        alert: the alert.
        overrides: e.g. `HighErrorRate.for=10m`; those for other alerts change nothing.
        shortest_seconds: the shortest wait, so that no alert fires after a single evaluation.

    Raises:
        ValueError: a value is no wait, no severity or no share.
    """
    found = replace(alert, wait=_written(max(milliseconds(alert.wait), shortest_seconds * 1000)))
    for override in overrides:
        name, key, value = _parts(override)
        if name != alert.name:
            continue
        if key == "severity":
            found = replace(found, severity=_severity(override, value))
        elif key == "for":
            found = replace(found, wait=_wait(override, value, shortest_seconds * 1000, alert.longest_wait))
        else:
            found = replace(found, threshold=_share(override, value, name, [alert]))
    return found


def _parts(override: str) -> tuple[str, str, str]:
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
        msg = f"The change {override!r} asks for no severity: give one of {', '.join(SEVERITIES)}."
        raise ValueError(msg)
    return value


def _share(override: str, value: str, name: str, alerts: Sequence[Alert]) -> Decimal:
    possible = sorted({alert.name for alert in alerts if alert.threshold is not None})
    if name not in possible:
        msg = (
            f"The change {override!r} is for an alert without a line to change: give one of {', '.join(possible)}. "
            f"An objective (--slo) draws those of HighErrorRate and HighRequestLatency."
        )
        raise ValueError(msg)
    found = _SHARE.fullmatch(value)
    share = Decimal(found[1]) / (100 if found[2] else 1) if found else Decimal(0)
    if not 0 < share < 1:
        msg = f"The change {override!r} asks for no share: give one above 0 and below 1, e.g. 0.95 or 95%."
        raise ValueError(msg)
    return share


def _wait(override: str, value: str, shortest: int, longest: str) -> str:
    try:
        wait = milliseconds(value)
    except ValueError:
        wait = 0
    if wait < shortest:
        msg = f"The change {override!r} asks for no wait: give one of {_written(shortest)} or more, e.g. 10m or 1h30m."
        raise ValueError(msg)
    if wait > milliseconds(longest):
        msg = (
            f"The change {override!r} asks for a wait after which the alert could have forgotten what it is about: "
            f"give one of {longest} or less."
        )
        raise ValueError(msg)
    return _written(wait)


def _written(wait: int) -> str:
    return str(Duration(wait))
