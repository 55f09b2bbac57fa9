"""What the log says of a check."""

from __future__ import annotations

import contextlib
from typing import Any

from scaleobs.health.check import Check
from scaleobs.health.results import Result


def write(logger: Any, event: str, check: Check, result: Result) -> None:
    """
    Write a line for `failed`, `degraded`, `recovered` or `slow`, and never raise.

    This is where the reason of a failure goes, and the only place unless details are asked for.
    """
    said: dict[str, Any] = {"check": check.name, "probe": check.probe}
    if event == "slow":
        said |= {"duration_seconds": round(result.seconds, 3), "timeout_seconds": check.timeout}
    elif not result.is_up:
        said["reason"] = result.reason
    with contextlib.suppress(Exception):
        (logger.info if event == "recovered" else logger.warning)(f"check.{event}", **said)
