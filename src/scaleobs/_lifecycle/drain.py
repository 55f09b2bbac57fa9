"""The drain of this process, of which there is one, since there is one SIGTERM."""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import os
import signal
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from scaleobs import _workers as group
from scaleobs._fork import Step, after_fork
from scaleobs._lifecycle import hooks
from scaleobs._lifecycle.signals import SignalWrapper, is_reloading, shorter_limit
from scaleobs._workers.kinds import Kind
from scaleobs._workers.recognition import started

_KEY = b"drain"


def mark() -> group.Slots:
    """
    Return one number that the other workers read: a worker drains where it is its pid.

    It isn't a flag, so that who takes over a dead worker's ledger doesn't seem to drain. Without a place to meet nobody
    reads it.
    """
    with contextlib.suppress(Exception):
        mine = group.join()
        if mine is not None:
            return mine.slots(Kind.DRAIN, _KEY, 1)
    return [0.0]


def all_others_drain() -> bool:
    """
    Return whether every other living worker drains as well; true where there is none, or no place to meet.

    A worker that was started after this one and hasn't loaded the application yet is one that doesn't drain. Costs as
    much as reading the others' ledgers; asked by a worker that drains, and by no other.
    """
    try:
        mine = group.join()
        if mine is None:
            return True
        known = {os.getpid()}
        for sibling in mine.others():
            if sibling.is_living:
                entry = sibling.find(Kind.DRAIN, _KEY, 1)
                if entry is None or sibling.part(entry)[0] != sibling.owner:
                    return False
                known.add(sibling.owner)
        return all(pid in known for pid in _younger_siblings(mine.root.pid))
    except Exception:  # The place is gone, or a ledger is damaged: better out of the way than silent.
        return True


def _younger_siblings(parent: int) -> Iterator[int]:
    """Yield the parent's children that are younger than this process."""
    born = started(os.getpid())
    for task in Path(f"/proc/{parent}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for pid in map(int, task.read_text().split()):
                since = started(pid)
                if since > born:
                    yield pid


ECHO_SECONDS = 2.0
"""
For how long a worker ignores a second SIGTERM: a supervisor may send it to every process of a service, and the main
process to its workers once more.
"""

_TICK = 0.05

_LOGGED_WITHIN = 1.0
"""Seconds after the drain within which late hooks have to be logged."""

Stage = Literal["begun", "ended"]
Write = Callable[..., None]


class Draining:
    """
    One service's part in the drain of its process.

    Args:
        seconds: for how long requests go on being served; with 0 this service takes no part.
        write: writes a log line; takes its level, its event and what it is about.
        on_drain: called on a thread of the drain's own, with `begun` before the hooks are run, and with `ended` before
            the server receives the signal.

    Attributes:
        hooks: what the application has registered to be called when the drain begins.
        loop: the application's event loop, where it has one.
    """

    def __init__(self, seconds: float, write: Write, on_drain: Callable[[Stage], None]) -> None:
        self.seconds = seconds
        self.write = write
        self.on_drain = on_drain
        self.hooks: list[hooks.Hook] = []
        self.loop: asyncio.AbstractEventLoop | None = None
        self._noted_in = 0
        if seconds:
            process_drain.add(self)

    def serving(self) -> None:
        """Wrap the current SIGTERM handler: the server serves, or is about to."""
        if not self.seconds:
            return
        with contextlib.suppress(RuntimeError):
            self.loop = asyncio.get_running_loop()
        is_noted = process_drain.serving()
        if self.loop is not None:
            process_drain.signals.disarm_main_thread()
        if is_noted and self._noted_in != os.getpid():
            self._noted_in = os.getpid()
            limit = shorter_limit(self.seconds)
            if limit is not None:
                self.write("warning", "drain.cut_short", drain_seconds=self.seconds, **limit)

    def loaded(self) -> None:
        """Do the same if this is a worker of a recognised server, which serves once its WSGI application is loaded."""
        if self.seconds and group.root() is not None:
            process_drain.serving()

    @property
    def is_noted(self) -> bool:
        """Whether the handler is wrapped in this process, and not only in one that it was forked from."""
        return not self.seconds or self._noted_in == os.getpid()

    @property
    def is_begun(self) -> bool:
        """Whether this process drains, or has drained, whatever the other workers do."""
        return bool(self.seconds and process_drain.begun)

    def stopping(self) -> None:
        """Note that the server has begun to stop."""
        if self.seconds:
            process_drain.stopping()

    def is_on(self) -> bool:
        """
        Return whether the service isn't ready since this process and every other worker of the service drain.

        Costs a comparison unless it drains.
        """
        return bool(self.seconds and process_drain.begun and all_others_drain())


class ProcessDrain:
    """
    The drain of all services of this process: it defers SIGTERM, runs their hooks, and passes the signal on.

    Inside the handler there is no lock, no log line and no wait: two numbers are set and a thread is started, by the
    one call that takes no lock in Python.

    Attributes:
        begun: when the drain began, by `time.monotonic`; 0 before.
        is_over: whether SIGTERM is passed on.
        is_serving: whether there is anything to drain.
    """

    def __init__(self) -> None:
        self._parts: weakref.WeakSet[Draining] = weakref.WeakSet()
        self.signals = SignalWrapper(self.defers_signal, self.defers_event, self.interrupted)
        self._forget()

    def _forget(self) -> None:
        self.begun = 0.0
        self.is_over = self.is_serving = False
        self._is_stopped_by_event = False
        self._is_worker = group.root() is not None
        self._mark: group.Slots = [0.0]

    def add(self, part: Draining) -> None:
        """Take a service in."""
        self._parts.add(part)
        self._is_worker = self._is_worker or group.root() is not None
        self.signals.arm_main_thread()
        self.signals.install()

    def serving(self) -> bool:
        """Note that there is something to drain, and return whether the SIGTERM handler is wrapped."""
        self._mark = mark()
        self.is_serving = not is_reloading()
        return self.signals.install()

    def forked(self) -> None:
        """Begin anew in a process forked from this one."""
        self._forget()

    def stopping(self) -> None:
        """Note that the server has begun to stop."""
        self.is_over = bool(self.begun)
        self.is_serving = False

    def interrupted(self) -> None:
        """Note a SIGINT, after which no signal is deferred any more."""
        self.is_over = True

    def defers_signal(self) -> bool:
        """Handle a SIGTERM: return whether it is deferred; the first one begins the drain."""
        if self._is_stopped_by_event:
            # hypercorn ends its other workers by SIGTERM as soon as one has stopped; they stop already, and in time.
            return True
        if self.is_over:
            return False
        if not self.begun:
            return self._begin()
        if self._is_worker and time.monotonic() - self.begun < ECHO_SECONDS:
            return True
        self.is_over = True
        return False

    def defers_event(self) -> bool:
        """Handle an event that is set: return whether it is deferred; the first call begins the drain."""
        if not self._is_stopped_by_event:
            self._is_stopped_by_event = True
            self.is_over = self.is_over or not (self.begun or self._begin())
        return not self.is_over

    def _begin(self) -> bool:
        if not self.is_serving or not self._parts:
            return False
        self.begun = time.monotonic()
        self._mark[0] = float(os.getpid())
        try:
            _thread.start_new_thread(self._drain, ())
        except RuntimeError:  # No more threads, or the interpreter ends.
            self.is_over = True
        return not self.is_over

    def _drain(self) -> None:
        """Run the hooks and wait, on a thread of its own; then let the server stop."""
        parts = list(self._parts)
        # At Ctrl-C a SIGINT and the main process's SIGTERM come together, and threads may see them in any order.
        time.sleep(_TICK)
        if self.is_over:
            return
        seconds = max((part.seconds for part in parts), default=0)
        until = self.begun + seconds
        try:
            for part in parts:
                part.on_drain("begun")
            self._write(parts[:1], "info", "drain.begun", seconds=seconds)
            has_ended = self._run_hooks(parts, until)
            # A late hook is logged before the signal is passed on, after which the process may end at once.
            while not self.is_over and time.monotonic() < (until if has_ended else until + _LOGGED_WITHIN):
                time.sleep(_TICK)
            for part in parts:
                part.on_drain("ended")
            self._write(parts[:1], "info", "drain.ended", seconds=round(time.monotonic() - self.begun, 3))
        finally:
            is_over, self.is_over = self.is_over, True
            if not is_over and not self._is_stopped_by_event:
                os.kill(os.getpid(), signal.SIGTERM)

    def _run_hooks(self, parts: list[Draining], until: float) -> list[bool]:
        """Begin the hooks, and return a list that isn't empty once each has ended or is logged as late."""
        # Their threads must not hold up what comes next, in a process that is to end soon.
        of = {hook: part for part in parts for hook in part.hooks}

        def failed(hook: hooks.Hook, error: BaseException) -> None:
            name = getattr(hook, "__name__", repr(hook))
            is_late = isinstance(error, hooks.TooLateError)
            reason = "It took longer than the drain." if is_late else f"{type(error).__name__}: {error}"
            self._write([of[hook]], "warning", "drain.hook_failed", hook=name, reason=reason)

        has_ended: list[bool] = []

        def run() -> None:
            try:
                hooks.run([(hook, part.loop) for hook, part in of.items()], until, failed)
            finally:
                has_ended.append(True)

        if of:
            _thread.start_new_thread(run, ())
        else:
            has_ended.append(True)
        return has_ended

    @staticmethod
    def _write(parts: list[Draining], level: str, event: str, **about: Any) -> None:
        for part in parts:
            with contextlib.suppress(Exception):
                part.write(level, event, **about)


process_drain = ProcessDrain()

after_fork(Step.DRAIN, process_drain.forked)
