"""One check: its options, one run of it, and the results."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import math
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future, InvalidStateError
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypedDict

from scaleobs._trio import Loop, TookTooLongError, TrioLoop, explained, running_trio

if TYPE_CHECKING:
    from scaleobs.logs import Redact

_MAX_REASON = 1000


class CheckFailed(Exception):  # noqa: N818
    """
    Raise this in a check to fail with a reason that needs no stack trace.

    The reason is logged. A probe shows it only with `details`.
    """


class Result(NamedTuple):
    """
    The result of a check.

    Attributes:
        is_up: whether the probe may answer 200, as far as this check is concerned.
        reason: why the last run failed, even if that does not fail the probe.
        data: what a passing check returned for the probe to show.
        is_degraded: whether the check fails and is not critical.
        seconds: the duration of the run, until now if it has not ended.
        at: the time of the result, by `time.monotonic`.
    """

    is_up: bool
    reason: str = ""
    data: Mapping[str, Any] | None = None
    is_degraded: bool = False
    seconds: float = 0.0
    at: float = 0.0


class Report(NamedTuple):
    """
    The answer of a probe: each check's name with its result, in the order of registration.

    Attributes:
        is_up: whether the probe may answer 200, as far as checks are concerned.
        checks: those of the probe; for readiness, the start-up checks that have not passed come first.
        is_started: whether the start-up checks have passed, for readiness and start-up.
    """

    is_up: bool
    checks: tuple[tuple[str, Result], ...] = ()
    is_started: bool = True


class LastRun(NamedTuple):
    """The result of a check's last run, which the metrics show; the probe may report another one."""

    probe: str
    name: str
    is_up: bool
    seconds: float


def result_of_value(value: Any) -> Result:
    """Return the result of a run by the value that the check returned."""
    if value is None or value is True:
        return Result(is_up=True)
    if value is False:
        return Result(is_up=False, reason="the check returned False")
    if isinstance(value, Mapping):
        return Result(is_up=True, data=value)
    return Result(is_up=False, reason=f"the check returned {value!r}, not True, False, None or a mapping to show")


def result_of_error(error: BaseException) -> Result:
    """Return the result of a run by the exception that the check raised."""
    try:
        reason = str(error)
    except Exception:
        reason = "its message can't be read"
    if isinstance(error, CheckFailed):
        return Result(is_up=False, reason=reason or "the check failed")
    return Result(is_up=False, reason=f"{type(error).__name__}: {reason}")


def result_of_timeout(timeout: float) -> Result:
    """Return the result of a run that took too long."""
    return Result(is_up=False, reason=f"no answer within {timeout:g} s")


def without_secrets(result: Result, redact: Redact | None) -> Result:
    """Return a result to log and to show; its reason is shortened last, since half a secret would not be found."""
    reason, data = result.reason, result.data
    if redact is not None:
        reason = redact.text(reason)
        redacted = redact(None, "", {"data": data})["data"]
        data = {"data": redacted} if isinstance(redacted, str) else redacted
    return result._replace(reason=reason[:_MAX_REASON], data=data)


Probe = Literal["ready", "startup", "live"]
CheckFunction = Callable[[], Any] | Callable[[], Awaitable[Any]]

_PROBES = ("ready", "startup", "live")


class Options(TypedDict, total=False):
    """The options of a check; see `Check`."""

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
    A check of a probe, for `instrument(checks=[...])`; `Observer.check` makes one of a function.

    The check passes if the function, sync or async, returns `None`, `True`, or a mapping, which is shown as its data.
    It fails if the function raises (`CheckFailed`, if a reason is enough), returns `False`, or takes longer than the
    timeout. A check has one run at a time, however many probes request it, so one that hangs costs one thread; until
    the run has ended, probes answer from the last result.

    Attributes:
        name: its name in the probe.
        function: takes no arguments. Under ASGI, an async one runs on the application's event loop, where its
            connection pools are; a sync one runs in a thread of its own.
        probe: `ready`, `startup`, or `live`, which needs `restart_container`. Until the service has started, readiness
            requires the critical checks of `startup` too, and runs them; after that, one that fails degrades it.
        timeout: in seconds; a run that takes longer has failed. After half of it, a warning is logged.
        every: the seconds between two runs in the background, if it has them; probes then answer from the last run.
            The first run begins with the first request or probe.
        cache: without `every`, for how many seconds all probes reuse a result.
        critical: whether its failure fails the probe. Otherwise the service is degraded: the check is UP with
            `{"state": "DEGRADED"}` as its data, and the probe answers 200.
        failure_threshold: how many runs in a row must fail before a check that was UP fails. A check that was never
            UP fails at once.
        restart_container: must be `True` for a liveness check, whose failure makes the orchestrator restart the
            container: confirms that a restart heals it. A liveness probe never waits for its checks.

    Raises:
        ValueError: a value is not valid; the message has the value and the fix.
        TypeError: the function is not callable.
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
                "probe='live' with restart_container=True if a restart heals it."
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


_TIMER_ERROR = 1e-4
"""Seconds by which a timer may be early."""


class Run:
    """
    One run of a check.

    Args:
        check: what to run.
        on_end: called with the run and its result when it has ended, which may be long after its timeout; the result
            is `None` if its task was cancelled with the event loop. Called on the thread or loop of the run.

    Attributes:
        begun: when it began, by `time.monotonic`.
        deadline: when its time is over, by the same clock.
        is_late: whether its timeout was recorded.
    """

    def __init__(self, check: Check, on_end: Callable[[Run, Result | None], None]) -> None:
        self._check = check
        self._on_end = on_end
        self._loop: Loop | None = None
        self._task: asyncio.Task[None] | None = None
        self.begun = time.monotonic()
        self.deadline = self.begun + check.timeout
        self.is_late = False
        self._released: Future[None] = Future()

    def start(self, loop: Loop | None) -> None:
        """
        Begin.

        Args:
            loop: the application's event loop, if it has one. Async checks run there, where their connection pools
                are. All other checks get a daemon thread: one that hangs does not delay the end of the process.
        """
        try:
            if loop is not None and not loop.is_closed() and is_async(self._check.function):
                self._loop = loop
                if isinstance(loop, TrioLoop):
                    loop.start(self._check.function, self.remaining()).add_done_callback(self._ended_on_trio)
                elif asyncio._get_running_loop() is loop:  # noqa: SLF001 - It raises nothing.
                    self._start_task(loop)
                else:
                    loop.call_soon_threadsafe(self._start_task, loop)
            else:
                name = f"scaleobs-check-{self._check.name}"
                threading.Thread(target=self._in_thread, args=(loop,), name=name, daemon=True).start()
        except RuntimeError as error:  # The process has no thread left, or the loop was just closed.
            self._on_end(self, result_of_error(error))

    def is_lost(self) -> bool:
        """Return whether its event loop was closed before its end, as in tests: it will never end."""
        return self._loop is not None and self._loop.is_closed()

    def is_over(self, now: float) -> bool:
        """Return whether its time is over."""
        return now >= self.deadline - _TIMER_ERROR

    def remaining(self) -> float:
        """Return the seconds until its deadline."""
        return max(0.0, self.deadline - time.monotonic())

    def release(self) -> None:
        """End each wait, since there is a result; any thread may call this any number of times."""
        with contextlib.suppress(InvalidStateError):
            self._released.set_result(None)

    def wait(self) -> None:
        """Block until there is a result, or the time is over."""
        with contextlib.suppress(TimeoutError):
            self._released.result(self.remaining())

    async def wait_async(self) -> None:
        """Do the same without blocking the running event loop; don't wait on a loop of another kind."""
        loop = asyncio._get_running_loop()  # noqa: SLF001
        if loop is None:
            trio = running_trio()
            if trio is not None:
                await trio.wait(self._released, self.remaining())
            return
        done = loop.create_future()

        def finish() -> None:
            if not done.done():
                done.set_result(None)

        def wake(_: Future[None]) -> None:
            with contextlib.suppress(RuntimeError):  # The loop that waited is closed.
                loop.call_soon_threadsafe(finish)

        # Not `asyncio.wrap_future`: one caller that is cancelled would cancel the future for all others.
        self._released.add_done_callback(wake)
        await asyncio.wait([done], timeout=self.remaining())

    def _start_task(self, loop: asyncio.AbstractEventLoop) -> None:
        self._task = loop.create_task(self._on_loop())

    def _in_thread(self, loop: Loop | None) -> None:
        try:
            value = self._check.function()
            if not inspect.isawaitable(value):
                result = result_of_value(value)
            elif isinstance(loop, TrioLoop):
                result = result_of_value(loop.run(value, self.remaining()))
            else:
                result = asyncio.run(self._await(value))
        except BaseException as error:  # A check may raise anything; the probe still answers.
            result = self._result_of_error(error, loop)
        self._on_end(self, result)

    def _ended_on_trio(self, future: Future[Any]) -> None:
        if future.cancelled():
            result = None
        else:
            error = future.exception()
            result = result_of_value(future.result()) if error is None else self._result_of_error(error, self._loop)
        self._on_end(self, result)

    def _result_of_error(self, error: BaseException, loop: Loop | None) -> Result:
        if isinstance(error, TookTooLongError):
            return result_of_timeout(self._check.timeout)
        result = result_of_error(error)
        return result._replace(reason=explained(loop, error, result.reason))

    async def _on_loop(self) -> None:
        try:
            result: Result | None = await self._await(self._check.function())
        except GeneratorExit:  # Its loop was closed, and it is collected; a finalizer must take no lock.
            return
        except BaseException as error:
            task = asyncio.current_task()
            is_cancelled = task is not None and task.cancelling()
            result = None if is_cancelled else result_of_error(error)
        self._on_end(self, result)

    async def _await(self, value: Awaitable[Any]) -> Result:
        limit = asyncio.timeout(self.remaining())
        try:
            async with limit:
                return result_of_value(await value)
        except TimeoutError as error:
            return result_of_timeout(self._check.timeout) if limit.expired() else result_of_error(error)


def is_async(function: Any) -> bool:
    """Return whether a call of a function returns a coroutine."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def write_event(logger: Any, event: str, check: Check, result: Result) -> None:
    """
    Log `failed`, `degraded`, `recovered` or `slow`; never raises.

    Unless `details` are set, only this line contains the reason of a failure.
    """
    fields: dict[str, Any] = {"check": check.name, "probe": check.probe}
    if event == "slow":
        fields |= {"duration_seconds": round(result.seconds, 3), "timeout_seconds": check.timeout}
    elif not result.is_up:
        fields["reason"] = result.reason
    with contextlib.suppress(Exception):
        (logger.info if event == "recovered" else logger.warning)(f"check.{event}", **fields)
