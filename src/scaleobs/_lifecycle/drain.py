"""The drain: requests are served after SIGTERM, `/ready` answers 503, and the server receives the signal later."""

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

from scaleobs._fork import Step, after_fork
from scaleobs._lifecycle import hooks
from scaleobs._lifecycle.signals import SignalWrapper, is_reloading, shorter_limit
from scaleobs._trio import Loop, explained, running_trio
from scaleobs._workers import Slots, find_root, join_group
from scaleobs._workers.kinds import Kind
from scaleobs._workers.recognition import start_ticks

ECHO_SECONDS = 2.0
"""
For so many seconds a worker ignores a second SIGTERM: a supervisor may send the signal to every process of a service,
and then the main process sends it to its workers again.
"""

_POLL_SECONDS = 0.05

_LATE_LOG_SECONDS = 1.0
"""The seconds after the drain in which late hooks are logged."""

_KEY = b"drain"

Stage = Literal["begun", "ended"]
Write = Callable[..., None]


def drain_slot() -> Slots:
    """
    Return the slot that siblings read: this worker drains if it contains the worker's pid.

    A pid and not a flag: a worker that takes over the ledger of a dead one must not appear to drain. If there is no
    group, the slot is in this process's own memory.
    """
    with contextlib.suppress(Exception):
        group = join_group()
        if group is not None:
            return group.slots(Kind.DRAIN, _KEY, 1)
    return [0.0]


def all_siblings_drain() -> bool:
    """
    Return whether every living sibling drains as well; `True` if there are no siblings or no group.

    A worker that was started after this one and still loads the application counts as one that doesn't drain. Reads
    the ledgers of all siblings; called only in a worker that drains.
    """
    try:
        group = join_group()
        if group is None:
            return True
        draining = {os.getpid()}
        for sibling in group.siblings():
            if sibling.is_living:
                entry = sibling.find(Kind.DRAIN, _KEY, 1)
                if entry is None or sibling.read_slots(entry)[0] != sibling.owner:
                    return False
                draining.add(sibling.owner)
        return all(pid in draining for pid in _younger_processes(group.root.pid))
    except Exception:  # The directory was removed, or a ledger is damaged: not ready is safer than ready.
        return True


def _younger_processes(parent: int) -> Iterator[int]:
    """Yield the parent's children that are younger than this process."""
    own_start = start_ticks(os.getpid())
    for task in Path(f"/proc/{parent}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for pid in map(int, task.read_text().split()):
                if start_ticks(pid) > own_start:
                    yield pid


class ServiceDrain:
    """
    One service's part in the drain of its process.

    Args:
        seconds: how long requests are served after SIGTERM; with 0 this service has no drain.
        write: writes a log line; receives its level, its event and its fields.
        on_drain: called on the drain's own thread, with `begun` before the hooks run, and with `ended` before the
            server receives the signal.

    Attributes:
        hooks: the application's functions to be called when the drain begins.
        loop: the application's event loop, if it has one.
    """

    def __init__(self, seconds: float, write: Write, on_drain: Callable[[Stage], None]) -> None:
        self.seconds = seconds
        self.write = write
        self.on_drain = on_drain
        self.hooks: list[hooks.Hook] = []
        self.loop: Loop | None = None
        self._installed_in = 0
        if seconds:
            process_drain.add(self)

    def serving(self) -> None:
        """Wrap the current SIGTERM handler: the server serves, or is about to."""
        if not self.seconds:
            return
        self.loop = asyncio._get_running_loop() or running_trio() or self.loop  # noqa: SLF001 - It raises nothing.
        is_installed = process_drain.serving()
        if self.loop is not None:
            process_drain.signals.disarm_main_thread()
        if is_installed and self._installed_in != os.getpid():
            self._installed_in = os.getpid()
            limit = shorter_limit(self.seconds)
            if limit is not None:
                self.write("warning", "drain.cut_short", drain_seconds=self.seconds, **limit)

    def loaded(self) -> None:
        """Do the same in a worker of a recognised server, which serves once its WSGI application is loaded."""
        if self.seconds and find_root() is not None:
            process_drain.serving()

    @property
    def is_installed(self) -> bool:
        """Whether the handler is wrapped in this process, and not only in one from which it was forked."""
        return not self.seconds or self._installed_in == os.getpid()

    @property
    def is_begun(self) -> bool:
        """Whether this process drains or has drained, regardless of its siblings."""
        return bool(self.seconds and process_drain.begun)

    def stopping(self) -> None:
        """End the drain: the server has begun to stop."""
        if self.seconds:
            process_drain.stopping()

    def is_group_draining(self) -> bool:
        """
        Return whether the service isn't ready, because this process and all its siblings drain.

        Costs one comparison unless this process drains.
        """
        return bool(self.seconds and process_drain.begun and all_siblings_drain())


class ProcessDrain:
    """
    The drain of all services of this process: it defers SIGTERM, runs the hooks, and passes the signal on.

    There is one, since there is one SIGTERM. Inside the handler there is no lock, no log line and no wait: two numbers
    are set, and a thread is started by the one call that takes no lock in Python.

    Attributes:
        begun: the start of the drain, by `time.monotonic`; 0 before.
        is_over: whether SIGTERM is passed on.
        is_serving: whether there is anything to drain.
    """

    def __init__(self) -> None:
        self._services: weakref.WeakSet[ServiceDrain] = weakref.WeakSet()
        self.signals = SignalWrapper(self.defers_signal, self.defers_event, self.interrupted)
        self._reset()

    def _reset(self) -> None:
        self.begun = 0.0
        self.is_over = self.is_serving = False
        self._is_stopped_by_event = False
        self._is_worker = find_root() is not None
        self._slot: Slots = [0.0]

    def add(self, service: ServiceDrain) -> None:
        """Add a service."""
        self._services.add(service)
        self._is_worker = self._is_worker or find_root() is not None
        self.signals.arm_main_thread()
        self.signals.install()

    def serving(self) -> bool:
        """Prepare the drain, since there is something to drain; return whether the SIGTERM handler is wrapped."""
        if find_root() is not None:  # Otherwise there are no siblings that read the slot.
            self._slot = drain_slot()
        self.is_serving = not is_reloading()
        return self.signals.install()

    def forked(self) -> None:
        """Reset the state in a process that was forked from this one."""
        self._reset()

    def stopping(self) -> None:
        """End the drain: the server has begun to stop."""
        self.is_over = bool(self.begun)
        self.is_serving = False

    def interrupted(self) -> None:
        """Handle a SIGINT: after it no signal is deferred."""
        self.is_over = True

    def defers_signal(self) -> bool:
        """Handle a SIGTERM: return whether it is deferred; the first one begins the drain."""
        if self._is_stopped_by_event:
            # hypercorn sends SIGTERM to its other workers as soon as one has stopped; they stop already, and in time.
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
        if not self.is_serving or not self._services:
            return False
        self.begun = time.monotonic()
        self._slot[0] = float(os.getpid())
        try:
            _thread.start_new_thread(self._drain, ())
        except RuntimeError:  # No more threads, or the interpreter ends.
            self.is_over = True
        return not self.is_over

    def _drain(self) -> None:
        """Run the hooks and wait until the drain is over, on a thread of its own; then send SIGTERM again."""
        services = list(self._services)
        # At Ctrl-C a SIGINT and the main process's SIGTERM arrive together, in any order.
        time.sleep(_POLL_SECONDS)
        if self.is_over:
            return
        seconds = max((service.seconds for service in services), default=0)
        deadline = self.begun + seconds
        try:
            for service in services:
                service.on_drain("begun")
            self._write(services[:1], "info", "drain.begun", seconds=seconds)
            has_ended = self._run_hooks(services, deadline)
            # A late hook is logged before the signal is passed on, after which the process may end at once.
            while not self.is_over and time.monotonic() < (deadline if has_ended else deadline + _LATE_LOG_SECONDS):
                time.sleep(_POLL_SECONDS)
            for service in services:
                service.on_drain("ended")
            self._write(services[:1], "info", "drain.ended", seconds=round(time.monotonic() - self.begun, 3))
        finally:
            is_over, self.is_over = self.is_over, True
            if not is_over and not self._is_stopped_by_event:
                os.kill(os.getpid(), signal.SIGTERM)

    def _run_hooks(self, services: list[ServiceDrain], deadline: float) -> list[bool]:
        """Start the hooks; return a list that isn't empty any more once each has finished or is logged as late."""
        # On another thread, so that hooks can't delay the end of the drain.
        owners = {hook: service for service in services for hook in service.hooks}

        def failed(hook: hooks.Hook, error: BaseException) -> None:
            name = getattr(hook, "__name__", repr(hook))
            is_late = isinstance(error, hooks.TooLateError)
            reason = explained(owners[hook].loop, error, f"{type(error).__name__}: {error}")
            reason = "It took longer than the drain." if is_late else reason
            self._write([owners[hook]], "warning", "drain.hook_failed", hook=name, reason=reason)

        has_ended: list[bool] = []

        def run() -> None:
            try:
                hooks.run([(hook, service.loop) for hook, service in owners.items()], deadline, failed)
            finally:
                has_ended.append(True)

        if owners:
            _thread.start_new_thread(run, ())
        else:
            has_ended.append(True)
        return has_ended

    @staticmethod
    def _write(services: list[ServiceDrain], level: str, event: str, **fields: Any) -> None:
        for service in services:
            with contextlib.suppress(Exception):
                service.write(level, event, **fields)


process_drain = ProcessDrain()

after_fork(Step.DRAIN, process_drain.forked)
