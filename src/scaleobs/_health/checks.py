"""The checks of one service."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterator

from scaleobs._fork import Step, after_fork
from scaleobs._health.check import Check, LastRun, Report, Result
from scaleobs._health.state import CheckState, OnEvent, background

_UNKNOWN = Result(is_up=False, reason="its first run was given up")
_UNASKED = Result(is_up=True)


class Checks:
    """
    The checks of one service. Any thread may call any method.

    Args:
        on_event: called with `failed`, `degraded` or `recovered` of a check that changes, and `slow` of one that has
            begun to take more than half of its timeout. Called from wherever the check ran, or from the probe that
            found its time up.

    Attributes:
        is_serving: whether what runs in the background does.
    """

    def __init__(self, on_event: OnEvent) -> None:
        self._on_event = on_event
        self._states: dict[tuple[str, str], CheckState] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self.is_serving = False
        _every.add(self)

    def add(self, check: Check) -> None:
        """
        Register a check.

        Raises:
            TypeError: it is none.
            ValueError: its name is taken for that probe.
        """
        if not isinstance(check, Check):
            msg = f"{check!r} is no check: give scaleobs.Check('postgres', function), or one of scaleobs.checks."
            raise TypeError(msg)
        key = (check.probe, check.name)
        if key in self._states:
            msg = f"There is a check {check.name!r} for the probe {check.probe!r} already: give this one another name."
            raise ValueError(msg)
        # A copy, since a probe in another thread may be reading the old one.
        state = CheckState(check, self._on_event)
        state.loop = self._loop
        self._states = {**self._states, key: state}
        if self.is_serving:
            self.serve()

    def serve(self) -> None:
        """Note that the application is served, from its event loop where it has one: what has `every` runs now."""
        self.note_loop()
        try:
            if every := [one for one in self._states.values() if one.check.every is not None]:
                background.take(every)
            self.is_serving = True
        except RuntimeError:  # The process has no thread left: the next request tries again.
            self.is_serving = False

    def note_loop(self) -> None:
        """Note the running event loop, where there is one, as the one that async checks run on."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return
        if loop is not self._loop:
            self._loop = loop
            for one in self._states.values():
                one.loop = loop

    def report(self, probe: str) -> Report:
        """
        Return what is known of a probe's checks, and run those that are due, side by side.

        Readiness requires the critical checks of the start, too, until the service has started.

        Waits for what this call began, or what was never known, up to the timeout of each; not for one that took too
        long the last time.
        """
        if not self.is_serving:
            self.serve()
        asked = self._asked_by(probe)
        for run in [one.request_run() for one in asked]:
            if run is not None:
                run.wait()
        return _report(probe, asked, _UNKNOWN)

    async def report_async(self, probe: str) -> Report:
        """Do the same as `report` on the running event loop of the application, without blocking it."""
        self.note_loop()
        if not self.is_serving:
            self.serve()
        asked = self._asked_by(probe)
        for run in [one.request_run() for one in asked]:
            if run is not None:
                await run.wait_async()
        return _report(probe, asked, _UNKNOWN)

    def report_at_once(self, probe: str) -> Report:
        """Return what is known of a probe's checks, and begin those that are due, without waiting for any."""
        asked = self._of(probe)
        for one in asked:
            one.request_run()
        return _report(probe, asked, _UNASKED)

    def end_startup(self) -> None:
        """Note that the service has started: from here on a check of the start that fails degrades it, and no more."""
        for one in self._of("startup"):
            if one.is_critical:
                one.end_startup()

    def all_up(self, probe: str) -> bool:
        """Return whether no check of a probe fails it, as far as is known; runs none."""
        current = [one.current() for one in self._of(probe)]
        return all(result is None or result.is_up for result in current)

    def last_runs(self) -> Iterator[LastRun]:
        """Yield how the last run of each check went, of those that have run; runs none."""
        for one in self._states.values():
            last = one.last_run()
            if last is not None:
                yield LastRun(one.check.probe, one.check.name, last.is_up, last.seconds)

    def forget(self) -> None:
        """Begin anew in a child process."""
        self._loop = None
        self.is_serving = False
        for one in self._states.values():
            one.forget()

    def _of(self, probe: str) -> list[CheckState]:
        return [one for one in self._states.values() if one.check.probe == probe]

    def _asked_by(self, probe: str) -> list[CheckState]:
        """Return the checks of a probe; those of the start that readiness requires come first."""
        required = [one for one in self._of("startup") if one.is_critical] if probe == "ready" else []
        return [*required, *self._of(probe)]


def _report(probe: str, asked: list[CheckState], unknown: Result) -> Report:
    results, is_started = [], True
    for one in asked:
        one.expire()
        result = unknown if one.reported is None else one.reported
        is_started = is_started and (result.is_up or one.check.probe != "startup")
        # A probe lists what it requires beside its own checks only if that is missing.
        if one.check.probe == probe or not result.is_up:
            results.append((one.check.name, result))
    return Report(all(result.is_up for _, result in results), tuple(results), is_started)


_every: weakref.WeakSet[Checks] = weakref.WeakSet()


def _forked() -> None:
    background.forget()
    for checks in list(_every):
        checks.forget()


after_fork(Step.HEALTH, _forked)
