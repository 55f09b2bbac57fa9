"""What a run of a check said, and the report that a probe answers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

_LONGEST = 1000


class CheckFailed(Exception):  # noqa: N818
    """
    Raise this in a check to fail with a reason that needs no stack trace.

    The reason goes to the log, never into the probe's body, unless `details` are asked for.
    """


class Result(NamedTuple):
    """
    What a check says.

    Attributes:
        is_up: whether the probe may answer 200, as far as this check goes.
        reason: why its last run failed, also where that doesn't fail the probe.
        data: what a passing check returned to be shown.
        is_degraded: it fails, and is not critical.
        seconds: how long the run took, or has taken, where it has not ended.
        at: when that was known, by `time.monotonic`.
    """

    is_up: bool
    reason: str = ""
    data: Mapping[str, Any] | None = None
    is_degraded: bool = False
    seconds: float = 0.0
    at: float = 0.0


class Report(NamedTuple):
    """
    What a probe answers: each check's name with its result, in the order of registration.

    Attributes:
        is_up: whether the probe may answer 200, as far as checks go.
        checks: those of the probe; for readiness, those of the start that have not passed come first.
        is_started: whether the checks of the start have passed, for readiness and start-up.
    """

    is_up: bool
    checks: tuple[tuple[str, Result], ...] = ()
    is_started: bool = True


class LastRun(NamedTuple):
    """What the metrics show of a check: how its last run went, whatever the probe makes of it."""

    probe: str
    name: str
    is_up: bool
    seconds: float


def judged(value: Any) -> Result:
    """Return what a check said by what it returned."""
    if value is None or value is True:
        return Result(is_up=True)
    if value is False:
        return Result(is_up=False, reason="the check returned False")
    if isinstance(value, Mapping):
        return Result(is_up=True, data=value)
    return Result(is_up=False, reason=f"the check returned {value!r:.100}, not True, False, None or a mapping to show")


def failed(error: BaseException) -> Result:
    """Return what a check said by what it raised."""
    try:
        said = str(error)
    except Exception:
        said = "it can't say why"
    if isinstance(error, CheckFailed):
        return Result(is_up=False, reason=said[:_LONGEST] or "the check failed")
    return Result(is_up=False, reason=f"{type(error).__name__}: {said}"[:_LONGEST])


def late(timeout: float) -> Result:
    """Return what is known of a check that took too long."""
    return Result(is_up=False, reason=f"no answer within {timeout:g} s")
