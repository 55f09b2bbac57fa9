"""The checks of one service, and the report of a probe."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING

from scaleobs._fork import Step, after_fork
from scaleobs._health.check import Check, LastRun, Report, Result
from scaleobs._health.state import CheckState, OnEvent, background
from scaleobs._trio import Loop, running_trio

if TYPE_CHECKING:
    from scaleobs.logs import Redact

_CANCELLED = Result(is_up=False, reason="its first run was given up")
_NOT_RUN = Result(is_up=True)


class Checks:
    """
    The checks of one service. Any thread may call any method.

    Args:
        on_event: called with `failed`, `degraded` or `recovered` of a check that changes, and with `slow` of one that
            has begun to take more than half of its timeout. Called on the thread or loop where the check ran, or by
            the probe that recorded the timeout.
        redact: removes secrets from what checks return and raise, before it is logged or shown.

    Attributes:
        is_serving: whether the checks with `every` run in the background.
    """

    def __init__(self, on_event: OnEvent, redact: Redact | None = None) -> None:
        self._on_event = on_event
        self._redact = redact
        self._states: dict[tuple[str, str], CheckState] = {}
        self._loop: Loop | None = None
        self.is_serving = False
        _instances.add(self)

    def add(self, check: Check) -> None:
        """
        Register a check.

        Raises:
            TypeError: it is not a check.
            ValueError: that probe has a check of this name.
        """
        if not isinstance(check, Check):
            msg = f"{check!r} is no check: give scaleobs.Check('postgres', function), or one of scaleobs.checks."
            raise TypeError(msg)
        key = (check.probe, check.name)
        if key in self._states:
            msg = f"There is a check {check.name!r} for the probe {check.probe!r} already: give this one another name."
            raise ValueError(msg)
        # A copy, since a probe in another thread may iterate over the old one.
        state = CheckState(check, self._on_event, self._redact)
        state.loop = self._loop
        self._states = {**self._states, key: state}
        if self.is_serving:
            self.serve()

    def serve(self) -> None:
        """Run the checks with `every` from now on; must be called on the application's event loop, if it has one."""
        self.note_loop()
        try:
            if states := [state for state in self._states.values() if state.check.every is not None]:
                background.add(states)
            self.is_serving = True
        except RuntimeError:  # The process has no thread left; the next request tries again.
            self.is_serving = False

    def note_loop(self) -> None:
        """From now on run async checks on the running event loop, if there is one."""
        loop = asyncio._get_running_loop() or running_trio()  # noqa: SLF001 - It raises nothing.
        if loop is not None and loop is not self._loop:
            self._loop = loop
            for state in self._states.values():
                state.loop = loop

    def report(self, probe: str) -> Report:
        """
        Return the results of a probe's checks, after those that are due have run side by side.

        Readiness requires the critical start-up checks too, until the service has started.

        Waits for runs that this call begins, and for checks without a result, up to the timeout of each; not for a
        check whose last run took too long.
        """
        if not self.is_serving:
            self.serve()
        states = self._required_by(probe)
        for run in [state.request_run() for state in states]:
            if run is not None:
                run.wait()
        return _report(probe, states, _CANCELLED)

    async def report_async(self, probe: str) -> Report:
        """Do the same as `report` on the application's running event loop, without blocking it."""
        self.note_loop()
        if not self.is_serving:
            self.serve()
        states = self._required_by(probe)
        for run in [state.request_run() for state in states]:
            if run is not None:
                await run.wait_async()
        return _report(probe, states, _CANCELLED)

    def report_at_once(self, probe: str) -> Report:
        """Return the last results of a probe's checks, and begin those that are due, without waiting for any."""
        states = self._of(probe)
        for state in states:
            state.request_run()
        return _report(probe, states, _NOT_RUN)

    def end_startup(self) -> None:
        """From now on a start-up check that fails only degrades the service, which has started."""
        for state in self._of("startup"):
            if state.is_critical:
                state.end_startup()

    def all_up(self, probe: str) -> bool:
        """Return whether no check of a probe fails it, by the last results; runs none."""
        current = [state.current() for state in self._of(probe)]
        return all(result is None or result.is_up for result in current)

    def last_runs(self) -> Iterator[LastRun]:
        """Yield the result of the last run of each check that has run; runs none."""
        for state in self._states.values():
            last = state.last_run()
            if last is not None:
                yield LastRun(state.check.probe, state.check.name, last.is_up, last.seconds)

    def reset(self) -> None:
        """Reset in a child process."""
        self._loop = None
        self.is_serving = False
        for state in self._states.values():
            state.reset()

    def _of(self, probe: str) -> list[CheckState]:
        return [state for state in self._states.values() if state.check.probe == probe]

    def _required_by(self, probe: str) -> list[CheckState]:
        """Return the checks of a probe; for readiness, the critical start-up checks come first."""
        startup = [state for state in self._of("startup") if state.is_critical] if probe == "ready" else []
        return [*startup, *self._of(probe)]


def _report(probe: str, states: list[CheckState], default: Result) -> Report:
    """Return the report of a probe; a check without a result has the default one."""
    results, is_started = [], True
    for state in states:
        state.expire()
        result = default if state.reported is None else state.reported
        is_started = is_started and (result.is_up or state.check.probe != "startup")
        # Readiness lists start-up checks only if they fail.
        if state.check.probe == probe or not result.is_up:
            results.append((state.check.name, result))
    return Report(all(result.is_up for _, result in results), tuple(results), is_started)


_instances: weakref.WeakSet[Checks] = weakref.WeakSet()


def _forked() -> None:
    background.reset()
    for checks in list(_instances):
        checks.reset()


after_fork(Step.HEALTH, _forked)
