"""What is known of one check."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections.abc import Callable, Iterable

from scaleobs._health.check import Check, Result, late
from scaleobs._health.run import Run, is_async

_SLOW = 0.5
"""Which share of its timeout makes a run slow: there is still time to act before it fails."""

_SOONEST = 0.001
"""Seconds between two polls of a check in the background, at least."""

OnEvent = Callable[[str, Check, Result], None]


class CheckState:
    """
    What is known of one check, and its run where there is one. Any thread may call any method.

    A run that has not ended keeps the check from being run again. When its time is up it has failed, and from then on
    nobody waits for the check until a run has ended in time.

    Args:
        check: the check.
        on_event: called with `failed`, `degraded` or `recovered` once per change, and `slow` once per episode.

    Attributes:
        reported: what a probe reports; `None` before the first run has ended or taken too long.
        loop: the event loop of the application, where one was seen.
        is_critical: whether its failure fails the probe. A check of the start is critical until the start is over.
    """

    def __init__(self, check: Check, on_event: OnEvent) -> None:
        self.check = check
        self._on_event = on_event
        self.loop: asyncio.AbstractEventLoop | None = None
        self.forget()

    def forget(self) -> None:
        """Begin anew, in a child process that has none of its parent's threads."""
        self.reported: Result | None = None
        self.loop = None
        self.is_critical = self.check.critical
        self._last: Result | None = None
        self._run: Run | None = None
        self._fresh_until = 0.0
        self._is_waited_for = True
        self._is_slow = False
        self._failures = 0
        self._lock = threading.Lock()

    def request_run(self) -> Run | None:
        """
        Begin a run where one is due, and return the one to wait for, `None` where the answer is known.

        Only the probe that begins a run waits for it; others report what is known, where something is. With
        `every`, that is how all of them are answered.
        """
        now = time.monotonic()
        if now < self._fresh_until:
            return None
        if self.check.every is not None and self.reported is not None:
            return None
        run, is_new = self._current(now)
        if run is None or not (is_new or self.reported is None):
            return None
        return run if self._is_waited_for else None

    def poll(self) -> float:
        """Begin a run in the background where one is due, and return when to come again."""
        now = time.monotonic()
        self.expire()
        every = self.check.every or self.check.cache
        if self._is_at_rest():
            return now + every
        if now >= self._fresh_until:
            self._current(now)
        run, due = self._run, self._fresh_until
        if run is not None and not run.is_late:
            due = run.begun + every
            due = due if now < due < run.deadline else run.deadline
        return max(due, now + _SOONEST)

    def expire(self) -> None:
        """Note that the run's time is up, where it is; runs nothing."""
        run = self._run
        if run is not None and not run.is_late and run.is_over(time.monotonic()):
            self._note(run, late(self.check.timeout))

    def current(self) -> Result | None:
        """Return what a probe would report now, by a run whose time is up as well; runs nothing, and notes nothing."""
        with self._lock:
            overdue = self._overdue()
            return self.reported if overdue is None else self._verdict(overdue)[0]

    def end_startup(self) -> None:
        """Note that the service has started, with this check passed: from here on its failure degrades the service."""
        with self._lock:
            if self.reported is None:
                return  # It was registered since.
            self.is_critical = False
            if not self.reported.is_up:
                self.reported = self.reported._replace(is_up=True, is_degraded=True)

    def last_run(self) -> Result | None:
        """Return how the last run went, or that its time is up; runs nothing, and notes nothing."""
        with self._lock:
            return self._overdue() or self._last

    def _is_at_rest(self) -> bool:
        """Whether the loop of an async check is closed: nobody serves the application any more."""
        return self.loop is not None and self.loop.is_closed() and is_async(self.check.function)

    def _current(self, now: float) -> tuple[Run | None, bool]:
        """Return the run that has time left, one that begins now where one is due, and whether this call began it."""
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
            self._note(run, late(self.check.timeout))
            return None, False
        return run, is_new

    def _ended(self, run: Run, result: Result | None) -> None:
        if result is not None:
            self._note(run, result, has_ended=True)
        else:
            with self._lock:
                self._run = None if self._run is run else self._run
        run.make_known()

    def _note(self, run: Run, result: Result, *, has_ended: bool = False) -> None:
        """Take a run's result over, or that its time is up; again and again while it hangs, once per period."""
        check, now = self.check, time.monotonic()
        is_late = run.is_over(now)
        events = []
        with self._lock:
            if self._run is not run:
                return  # It was given up, with its event loop or with the process that this one was forked from.
            was_late, run.is_late = run.is_late, is_late
            if has_ended:
                self._run = None
                # An answer that comes after all says that it's worth waiting for the next one.
                self._is_waited_for = result.is_up or not is_late
            else:
                self._is_waited_for = False
            if was_late and (has_ended or now < self._fresh_until):
                return  # That it takes too long is noted already.
            if is_late and result.is_up:
                result = late(check.timeout)
            result = result._replace(seconds=now - run.begun, at=now)
            if check.every is None:
                self._fresh_until = now + check.cache
            else:
                self._fresh_until = now + check.every if is_late else run.begun + check.every
            events = self._judge(result, is_late=is_late)
        for event in events:
            self._on_event(event, check, result)
        run.make_known()

    def _overdue(self) -> Result | None:
        """Return the failure of a run whose time is up and that `expire` hasn't noted yet."""
        run, now = self._run, time.monotonic()
        if run is None or run.is_late or not run.is_over(now):
            return None
        return late(self.check.timeout)._replace(seconds=now - run.begun, at=now)

    def _verdict(self, result: Result) -> tuple[Result, int]:
        """Return what a probe reports by one more result, and how many runs in a row have failed then."""
        before = self.reported
        failures = 0 if result.is_up else self._failures + 1
        is_damped = before is not None and _passes(before) and failures < self.check.failure_threshold
        is_failing = not result.is_up and not is_damped
        is_down, is_degraded = is_failing and self.is_critical, is_failing and not self.is_critical
        return result._replace(is_up=not is_down, is_degraded=is_degraded), failures

    def _judge(self, result: Result, *, is_late: bool) -> list[str]:
        """Take one more result over, and return the events that it is."""
        was_up = self.reported is None or _passes(self.reported)
        self._last = result
        self.reported, self._failures = self._verdict(result)
        is_up = _passes(self.reported)
        events = []
        if was_up and not is_up:
            events.append("failed" if self.is_critical else "degraded")
        elif is_up and not was_up:
            events.append("recovered")
        is_slow = result.seconds > _SLOW * self.check.timeout
        if is_slow and not self._is_slow and not is_late:
            events.append("slow")
        self._is_slow = is_slow
        return events


def _passes(reported: Result) -> bool:
    return reported.is_up and not reported.is_degraded


class Background:
    """
    Begins runs when they are due, and notes when their time is up.

    The checks run on their event loop or in threads of their own, so none delays another. The thread is there while
    there are such checks, and ends with the process at the latest.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew, in a child process that has none of its parent's threads."""
        # Weakly, so that an application that is dropped, as tests do, stops being checked.
        self._states: weakref.WeakSet[CheckState] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._thread: threading.Thread | None = None

    def take(self, states: Iterable[CheckState]) -> None:
        """
        Run these, too.

        Raises:
            RuntimeError: the process has no thread left.
        """
        with self._lock:
            self._states.update(states)
            self._changed.set()
            if self._thread is None and self._states:
                thread = threading.Thread(target=self._go_on, name="scaleobs-checks", daemon=True)
                thread.start()
                self._thread = thread

    def _go_on(self) -> None:
        while True:
            self._changed.clear()
            with self._lock:
                states = list(self._states)
                if not states:
                    self._thread = None
                    return
            due = min(one.poll() for one in states)
            del states
            self._changed.wait(max(0.0, due - time.monotonic()))


background = Background()
