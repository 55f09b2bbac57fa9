"""One check, the results of its runs, and the lines that are logged about it."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal, NamedTuple, TypedDict

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


Probe = Literal["ready", "startup", "live"]
CheckFunction = Callable[[], Any] | Callable[[], Awaitable[Any]]

_PROBES = ("ready", "startup", "live")


class Options(TypedDict, total=False):
    """What may be said about a check beside its name and its function; see `Check`."""

    probe: Probe
    timeout: float
    every: float | None
    cache: float
    critical: bool
    failure_threshold: int
    restart_container: bool


@dataclass(frozen=True, slots=True)
class Check:
    """
    A check of a probe, to be given to `instrument(checks=[...])`; `Observer.check` makes one of a function.

    The function, sync or async, passes by returning `None`, `True`, or a mapping to show as its data. It fails by
    raising (`CheckFailed` where a reason is enough), by returning `False`, or by taking longer than its timeout. It
    has one run at a time, however often it is asked, so one that hangs costs one thread; until it has ended, probes
    answer from what is known.

    Attributes:
        name: what the probe calls it.
        function: takes no arguments. An async one runs on the application's event loop under ASGI, where its
            connection pools live; a sync one in a thread of its own.
        probe: `ready`, `startup`, or `live`, which needs `restart_container`. Until the service has started, readiness
            requires the critical checks of `startup`, too, and runs them; after that, one that fails degrades it.
        timeout: in seconds; a run that takes longer has failed. Past half of it, a warning is logged.
        every: run it so often, in seconds, in the background; probes then answer from its last run. It begins
            with the first request or probe.
        cache: without `every`, for how many seconds a result is good for every probe that asks.
        critical: whether its failure fails the probe. Otherwise the service is degraded: the check is UP with
            `{"state": "DEGRADED"}` as its data, and the probe answers 200.
        failure_threshold: how many runs in a row have to fail before what was UP fails. One that was never UP fails
            at once.
        restart_container: a liveness check that fails makes the orchestrator restart the container. Give `True` for
            one that a restart heals; a probe of liveness never waits for it.

    Raises:
        ValueError: a value can't be used; the message has it, and the fix.
        TypeError: the function is none.
    """

    name: str
    function: CheckFunction
    _: KW_ONLY
    probe: Probe = "ready"
    timeout: float = 1.0
    every: float | None = None
    cache: float = 1.0
    critical: bool = True
    failure_threshold: int = 1
    restart_container: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name or not self.name.isprintable():
            msg = f"A check is named {self.name!r}: give a short printable name, e.g. 'postgres'."
            raise ValueError(msg)
        self._refuse_wrong_probe()
        if not callable(self.function):
            msg = f"The check {self.name!r} is {self.function!r}: give a function without arguments."
            raise TypeError(msg)
        self._require_seconds("timeout", "timeout=1.0")
        if self.every is not None:
            self._require_seconds("every", "every=10.0")
        if self.cache != 0:
            self._require_seconds("cache", "cache=1.0, or 0 to keep nothing")
        threshold = self.failure_threshold
        if not isinstance(threshold, int) or isinstance(threshold, bool) or threshold < 1:
            msg = f"The check {self.name!r} has failure_threshold={threshold!r}: give a whole number, 1 or more."
            raise ValueError(msg)

    def _refuse_wrong_probe(self) -> None:
        if self.probe in ("live", "health") and not self.restart_container:
            msg = (
                f"The check {self.name!r} is for the probe {self.probe!r}: a failing liveness check makes the "
                "orchestrator restart the container, which heals no dependency. Give 'ready' or 'startup', or "
                "probe='live' with restart_container=True where a restart is what heals it."
            )
            raise ValueError(msg)
        if self.probe not in _PROBES:
            msg = (
                f"The check {self.name!r} is for the probe {self.probe!r}: there is no such probe. "
                "Give 'ready' or 'startup'."
            )
            raise ValueError(msg)
        if self.restart_container and self.probe != "live":
            msg = (
                f"The check {self.name!r} has restart_container=True for the probe {self.probe!r}, which restarts "
                "nothing: leave it out, or give probe='live'."
            )
            raise ValueError(msg)

    def _require_seconds(self, name: str, example: str) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            msg = f"The check {self.name!r} has {name}={value!r}: give seconds above 0, e.g. {example}."
            raise ValueError(msg)


def write_event(logger: Any, event: str, check: Check, result: Result) -> None:
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
