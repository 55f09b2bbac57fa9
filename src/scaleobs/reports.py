"""What a probe's body says of a report, in the format that was asked for."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

from scaleobs.health import Report, Result
from scaleobs.logs.encoding import encode
from scaleobs.metrics.negotiation import Offer, chosen


def names_and_states(report: Report) -> Report:
    """Return a report with what anyone may be told: not what checks returned, why they failed, or when that was."""
    checks = ((name, Result(result.is_up, is_degraded=result.is_degraded)) for name, result in report.checks)
    return report._replace(checks=tuple(checks))


def written(report: Report, accept: str) -> tuple[str, bytes]:
    """Return a report in the format that is preferred, MicroProfile's where none is: its media type and its text."""
    media_type = chosen(accept, _OFFERS).type
    return media_type, _json(_FORMATS[media_type](report))


def _microprofile(report: Report) -> dict[str, Any]:
    """Return what MicroProfile Health has on the wire; what else there is to say of a check is its data."""
    checks = []
    for name, result in report.checks:
        data: dict[str, Any] = {"state": "DEGRADED"} if result.is_degraded else {}
        if result.reason:
            data["reason"] = result.reason
        if result.at:
            data["duration_seconds"] = round(result.seconds, 3)
            data["age_seconds"] = round(time.monotonic() - result.at, 3)
        data |= result.data or {}
        check = {"name": name, "status": "UP" if result.is_up else "DOWN"}
        checks.append({**check, "data": data} if data else check)
    return {"status": "UP" if report.is_up else "DOWN", "checks": checks}


def _health_json(report: Report) -> dict[str, Any]:
    """
    Return what draft-inadarei-api-health-check-06 has on the wire.

    What is observed of a check is how long it took, and `time` is when that was known (sections 4.3 to 4.7). `output`
    stands where it doesn't pass (section 4.8). What it returned to be shown, for which the draft has no key, is `data`
    (section 4.10).
    """
    checks: dict[str, list[dict[str, Any]]] = {}
    for name, result in report.checks:
        status = _status(is_up=result.is_up, is_degraded=result.is_degraded)
        check: dict[str, Any] = {"status": status}
        if result.reason and status != "pass":
            check["output"] = result.reason
        if result.at:
            check |= {"observedValue": round(result.seconds, 6), "observedUnit": "s", "time": _wall_clock(result.at)}
        if result.data:
            check["data"] = dict(result.data)
        checks.setdefault(name, []).append(check)
    is_degraded = any(result.is_degraded for _, result in report.checks)
    return {"status": _status(is_up=report.is_up, is_degraded=is_degraded), "checks": checks}


_FORMATS = {"application/json": _microprofile, "application/health+json": _health_json}
_OFFERS = [Offer(media_type, {}) for media_type in _FORMATS]


def _status(*, is_up: bool, is_degraded: bool) -> str:
    if not is_up:
        return "fail"
    return "warn" if is_degraded else "pass"


def _wall_clock(monotonic: float) -> str:
    """Return a time of `time.monotonic` as RFC 3339 in UTC."""
    at = datetime.fromtimestamp(time.time() - (time.monotonic() - monotonic), UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _json(body: dict[str, Any]) -> bytes:
    try:
        text = json.dumps(body, allow_nan=False, default=str)
    except Exception:  # What a check returned to be shown has a circle in it, or no text.
        text = encode(body)
    return text.encode() + b"\n"
