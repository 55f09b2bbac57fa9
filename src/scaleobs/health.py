"""Checks, and the report that a probe makes of them."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

_LONGEST = 1000

Probe = Literal["ready", "startup"]
CheckFunction = Callable[[], Any] | Callable[[], Awaitable[Any]]


class CheckFailed(Exception):  # noqa: N818
    """
    Raise this in a check to fail with a reason that needs no stack trace.

    The reason goes to the log, never into the probe's body.
    """


class Result(NamedTuple):
    """What one run of a check said; `data` is what a passing check returned to be shown."""

    is_up: bool
    reason: str = ""
    data: Mapping[str, Any] | None = None


class Report(NamedTuple):
    """What a probe answers: each check's name with its result, in the order of registration."""

    is_up: bool
    checks: tuple[tuple[str, Result], ...] = ()


@dataclass(eq=False, slots=True)
class Check:
    """One registered check. It has at most one run at a time, however many probes ask."""

    name: str
    probe: Probe
    function: CheckFunction
    timeout: float
    last: Result | None = None
    running: Future[Result] | None = None
    started_at: float = 0.0
    task: asyncio.Task[None] | None = None
    loop: asyncio.AbstractEventLoop | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, loop: asyncio.AbstractEventLoop | None) -> Future[Result]:
        """
        Return the run that is under way, or start one.

        Asynchronous checks run on the loop that is given, where their connection pools live; everything else
        gets a daemon thread, which a hanging function can keep without holding up the process's end.
        """
        with self.lock:
            # A loop that was closed in the middle of a run, as tests do, took the run with it.
            is_lost = self.loop is not None and self.loop.is_closed()
            if self.running is not None and not self.running.done() and not is_lost:
                return self.running
            future: Future[Result] = Future()
            self.running = future
            self.started_at = time.monotonic()
        if loop is not None and inspect.iscoroutinefunction(self.function):
            self.loop = loop
            self.task = loop.create_task(self._run_async(future))
            return future
        try:
            threading.Thread(target=self._run, args=(future,), name=f"scaleobs-check-{self.name}", daemon=True).start()
        except RuntimeError as error:  # The process has no thread left.
            future.set_result(_failed(error))
        return future

    def remaining(self) -> float:
        """Return the seconds that the current run has left."""
        return max(0.0, self.started_at + self.timeout - time.monotonic())

    def timed_out(self) -> Result:
        """Return the result of a run that took too long, and end the run where that can be done."""
        if self.task is not None:
            self.task.cancel()
        return Result(is_up=False, reason=f"no answer within {self.timeout:g} s")

    def _run(self, future: Future[Result]) -> None:
        try:
            value = self.function()
            if inspect.isawaitable(value):
                value = asyncio.run(_awaited(value))
            future.set_result(_judged(value))
        except BaseException as error:  # A check may raise anything; the probe still answers.
            future.set_result(_failed(error))

    async def _run_async(self, future: Future[Result]) -> None:
        try:
            future.set_result(_judged(await self.function()))
        except BaseException as error:
            future.set_result(_failed(error))


class Checks:
    """
    The checks of one service.

    Args:
        on_change: told of a check whose result differs from its last one. Called from the probe that saw it.
    """

    def __init__(self, on_change: Callable[[Check, Result], None]) -> None:
        self._on_change = on_change
        self._checks: dict[tuple[str, str], Check] = {}

    def add(self, check: Check) -> None:
        """
        Register a check.

        Raises:
            ValueError: its name is taken for that probe, or a value can't be used.
        """
        if check.probe not in ("ready", "startup"):
            why = (
                "a failing liveness check makes the orchestrator restart the container, which heals no dependency"
                if check.probe in ("live", "health")
                else "there is no such probe"
            )
            msg = f"The check {check.name!r} is for the probe {check.probe!r}: {why}. Give 'ready' or 'startup'."
            raise ValueError(msg)
        if not isinstance(check.name, str) or not check.name or not check.name.isprintable():
            msg = f"A check is named {check.name!r}: give a short printable name, e.g. 'postgres'."
            raise ValueError(msg)
        if not callable(check.function):
            msg = f"The check {check.name!r} is {check.function!r}: give a function without arguments."
            raise TypeError(msg)
        if not isinstance(check.timeout, int | float) or not 0 < check.timeout < float("inf"):
            msg = f"The check {check.name!r} has timeout={check.timeout!r}: give seconds above 0, e.g. timeout=1.0."
            raise ValueError(msg)
        if (check.probe, check.name) in self._checks:
            msg = f"There is a check {check.name!r} for the probe {check.probe!r} already: give this one another name."
            raise ValueError(msg)
        self._checks[check.probe, check.name] = check

    def of(self, probe: str) -> list[Check]:
        """Return the checks that a probe asks."""
        return [check for check in self._checks.values() if check.probe == probe]

    def all_up(self, probe: str) -> bool:
        """Return whether no check of a probe failed when it was last asked; asks none now."""
        return all(check.last is None or check.last.is_up for check in self.of(probe))

    def report(self, probe: str) -> Report:
        """Ask every check of a probe, side by side, and return the report within the longest timeout."""
        runs = [(check, check.begin(None)) for check in self.of(probe)]
        results = []
        for check, future in runs:
            try:
                result = future.result(check.remaining())
            except TimeoutError:
                result = check.timed_out()
            results.append((check.name, self._noted(check, result)))
        return _report(results)

    async def report_async(self, probe: str) -> Report:
        """Do the same as `report` on the running event loop, without blocking it."""
        loop = asyncio.get_running_loop()
        runs = [(check, check.begin(loop)) for check in self.of(probe)]
        results = []
        for check, future in runs:
            # asyncio.wait leaves what it waits for alone when the time is over: other probes share the run.
            done, _ = await asyncio.wait([asyncio.wrap_future(future)], timeout=check.remaining())
            result = future.result() if done else check.timed_out()
            results.append((check.name, self._noted(check, result)))
        return _report(results)

    def _noted(self, check: Check, result: Result) -> Result:
        with check.lock:
            before, check.last = check.last, result
        if result.is_up != (before is None or before.is_up):
            self._on_change(check, result)
        return result


async def _awaited(value: Awaitable[Any]) -> Any:
    return await value


def _judged(value: Any) -> Result:
    if value is None or value is True:
        return Result(is_up=True)
    if value is False:
        return Result(is_up=False, reason="the check returned False")
    if isinstance(value, Mapping):
        return Result(is_up=True, data=value)
    return Result(is_up=False, reason=f"the check returned {value!r:.100}, not True, False, None or a mapping to show")


def _failed(error: BaseException) -> Result:
    try:
        said = str(error)
    except Exception:
        said = "it can't say why"
    if isinstance(error, CheckFailed):
        return Result(is_up=False, reason=said[:_LONGEST] or "the check failed")
    return Result(is_up=False, reason=f"{type(error).__name__}: {said}"[:_LONGEST])


def _report(results: list[tuple[str, Result]]) -> Report:
    return Report(all(result.is_up for _, result in results), tuple(results))
