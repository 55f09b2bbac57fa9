"""The state of one check, and the runs in the background."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from scaleobs._health.check import Check, Result, Run, is_async, result_of_timeout, without_secrets
from scaleobs._trio import Loop

if TYPE_CHECKING:
    from scaleobs.logs import Redact

_SLOW_SHARE = 0.5
"""A run that takes longer than this share of its timeout is slow: there is still time to act before it fails."""

_MIN_POLL_SECONDS = 0.001
"""The shortest time between two polls of a check in the background."""

OnEvent = Callable[[str, Check, Result], None]


class CheckState:
    """
    The state of one check: its last result, and its current run if it has one. Any thread may call any method.

    While a run has not ended, no other one begins. A run whose time is over has failed; after it, no probe waits for
    the check until a run has ended in time.

    Args:
        check: the check.
        on_event: called with `failed`, `degraded` or `recovered` for each change, and with `slow` for the first of
            several slow runs.
        redact: removes secrets from the data and the reason of each result.

    Attributes:
        reported: the result that a probe reports; `None` until the first run has ended or its time is over.
        loop: the event loop of the application, if it has one.
        is_critical: whether its failure fails the probe. A start-up check is critical until the service has started.
    """

    def __init__(self, check: Check, on_event: OnEvent, redact: Redact | None = None) -> None:
        self.check = check
        self._on_event = on_event
        self._redact = redact
        self.loop: Loop | None = None
        self.reset()

    def reset(self) -> None:
        """Reset in a child process, which has none of its parent's threads."""
        self.reported: Result | None = None
        self.loop = None
        self.is_critical = self.check.critical
        self._last: Result | None = None
        self._run: Run | None = None
        self._fresh_until = 0.0
        self._probes_wait = True
        self._is_slow = False
        self._failures = 0
        self._lock = threading.Lock()

    def request_run(self) -> Run | None:
        """
        Begin a run if one is due; return the run to wait for, or `None` if the probe answers from the last result.

        Only the probe that begins a run waits for it. Others report the last result, if there is one; with `every`,
        all probes do.
        """
        now = time.monotonic()
        if now < self._fresh_until:
            return None
        if self.check.every is not None and self.reported is not None:
            return None
        run, is_new = self._current_run(now)
        if run is None or not (is_new or self.reported is None):
            return None
        return run if self._probes_wait else None

    def poll(self) -> float:
        """Begin a run in the background if one is due; return the time of the next poll, by `time.monotonic`."""
        now = time.monotonic()
        self.expire()
        every = self.check.every or self.check.cache
        if self._is_loop_closed():
            return now + every
        if now >= self._fresh_until:
            self._current_run(now)
        run, due = self._run, self._fresh_until
        if run is not None and not run.is_late:
            due = run.begun + every
            due = due if now < due < run.deadline else run.deadline
        return max(due, now + _MIN_POLL_SECONDS)

    def expire(self) -> None:
        """Record a timeout if the time of the run is over; runs nothing."""
        run = self._run
        if run is not None and not run.is_late and run.is_over(time.monotonic()):
            self._record(run, result_of_timeout(self.check.timeout))

    def current(self) -> Result | None:
        """Return the result that a probe would report now, with a timeout that `expire` would record; runs nothing."""
        with self._lock:
            overdue = self._overdue()
            return self.reported if overdue is None else self._reported_after(overdue)[0]

    def end_startup(self) -> None:
        """From now on a failure degrades the service: it has started, and this check has passed."""
        with self._lock:
            if self.reported is None:
                return  # It was registered after that.
            self.is_critical = False
            if not self.reported.is_up:
                self.reported = self.reported._replace(is_up=True, is_degraded=True)

    def last_run(self) -> Result | None:
        """Return the result of the last run, or of a run whose time is over; runs nothing."""
        with self._lock:
            return self._overdue() or self._last

    def _is_loop_closed(self) -> bool:
        """Return whether the loop of an async check is closed: the application is not served any more."""
        return self.loop is not None and self.loop.is_closed() and is_async(self.check.function)

    def _current_run(self, now: float) -> tuple[Run | None, bool]:
        """Return the run that has time left, or a new one if one is due, and whether this call began it."""
        with self._lock:
            run, is_new = self._run, False
            if run is None or run.is_lost():
                if now < self._fresh_until:
                    return None, False
                run, is_new = Run(self.check, self._ended), True
                self._run = run
        if is_new:
            run.start(self.loop)
        elif run.is_over(now):
            self._record(run, result_of_timeout(self.check.timeout))
            return None, False
        return run, is_new

    def _ended(self, run: Run, result: Result | None) -> None:
        if result is not None:
            self._record(run, result, has_ended=True)
        else:
            with self._lock:
                self._run = None if self._run is run else self._run
        run.release()

    def _record(self, run: Run, result: Result, *, has_ended: bool = False) -> None:
        """Record the result of a run, or its timeout; for a run that hangs, once for each period."""
        check, now = self.check, time.monotonic()
        is_late = run.is_over(now)
        result = without_secrets(result, self._redact)
        events = []
        with self._lock:
            if self._run is not run:
                return  # It belongs to a closed event loop, or to the parent process.
            was_late, run.is_late = run.is_late, is_late
            if has_ended:
                self._run = None
                # After a run that passed in time, probes wait for the next run again.
                self._probes_wait = result.is_up or not is_late
            else:
                self._probes_wait = False
            if was_late and (has_ended or now < self._fresh_until):
                return  # The timeout is recorded already.
            if is_late and result.is_up:
                result = result_of_timeout(check.timeout)
            result = result._replace(seconds=now - run.begun, at=now)
            if check.every is None:
                self._fresh_until = now + check.cache
            else:
                self._fresh_until = now + check.every if is_late else run.begun + check.every
            events = self._update(result, is_late=is_late)
        for event in events:
            self._on_event(event, check, result)
        run.release()

    def _overdue(self) -> Result | None:
        """Return the timeout of a run, if `expire` has not recorded it yet."""
        run, now = self._run, time.monotonic()
        if run is None or run.is_late or not run.is_over(now):
            return None
        return result_of_timeout(self.check.timeout)._replace(seconds=now - run.begun, at=now)

    def _reported_after(self, result: Result) -> tuple[Result, int]:
        """Return what a probe reports after one more result, and how many runs in a row have failed then."""
        before = self.reported
        failures = 0 if result.is_up else self._failures + 1
        is_damped = before is not None and _passes(before) and failures < self.check.failure_threshold
        is_failing = not result.is_up and not is_damped
        is_down, is_degraded = is_failing and self.is_critical, is_failing and not self.is_critical
        return result._replace(is_up=not is_down, is_degraded=is_degraded), failures

    def _update(self, result: Result, *, is_late: bool) -> list[str]:
        """Update the state by one more result; return its events."""
        was_up = self.reported is None or _passes(self.reported)
        self._last = result
        self.reported, self._failures = self._reported_after(result)
        is_up = _passes(self.reported)
        events = []
        if was_up and not is_up:
            events.append("failed" if self.is_critical else "degraded")
        elif is_up and not was_up:
            events.append("recovered")
        is_slow = result.seconds > _SLOW_SHARE * self.check.timeout
        if is_slow and not self._is_slow and not is_late:
            events.append("slow")
        self._is_slow = is_slow
        return events


def _passes(reported: Result) -> bool:
    return reported.is_up and not reported.is_degraded


class Background:
    """
    A thread that begins the runs of checks with `every`, and records their timeouts.

    The checks run on their event loop or in threads of their own, so none delays another. The thread runs while there
    are such checks.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Reset in a child process, which has none of its parent's threads."""
        # Weak, so that the checks of an application that is dropped, as in tests, end.
        self._states: weakref.WeakSet[CheckState] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, states: Iterable[CheckState]) -> None:
        """
        Run these checks from now on.

        Raises:
            RuntimeError: the process has no thread left.
        """
        with self._lock:
            self._states.update(states)
            self._changed.set()
            if self._thread is None and self._states:
                thread = threading.Thread(target=self._run, name="scaleobs-checks", daemon=True)
                thread.start()
                self._thread = thread

    def _run(self) -> None:
        while True:
            self._changed.clear()
            with self._lock:
                states = list(self._states)
                if not states:
                    self._thread = None
                    return
            due = min(state.poll() for state in states)
            del states
            self._changed.wait(max(0.0, due - time.monotonic()))


background = Background()
