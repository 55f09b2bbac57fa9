"""
Wraps the current SIGTERM handler, so that the signal can be deferred and passed on.

When a server installs its handler: uvicorn before it loads the application if it is started by its command, and after
if it is started by a script or by gunicorn; gunicorn's other workers before, unless the application is preloaded;
granian and hypercorn on the event loop, granian for WSGI after. Therefore the wrapper is installed more than once. No
class of a server is changed.
"""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from scaleobs._workers import find_root

_STOPPED_BY_EVENT = ("hypercorn", "anycorn")
"""Servers whose main process stops its workers by an event, and not by a signal."""

_WAKEUP = signal.SIGURG
"""The signal by which a thread wakes the main thread: ignored if nothing handles it, and Go uses it for the same."""


class SignalWrapper:
    """
    Wraps the current SIGTERM handler.

    Args:
        defers_signal: called inside the handler for each SIGTERM; returns whether it is deferred.
        defers_event: the same if a server stops its workers by an event; called again and again.
        interrupted: called inside the handler for each SIGINT, which is never deferred.
    """

    def __init__(
        self, defers_signal: Callable[[], bool], defers_event: Callable[[], bool], interrupted: Callable[[], None]
    ) -> None:
        self._defers_event = defers_event

        def defers_interrupt() -> bool:
            interrupted()
            return False

        self._defers_by_signal = {signal.SIGTERM: defers_signal, signal.SIGINT: defers_interrupt}

    def install(self) -> bool:
        """
        Wrap the current SIGTERM handler, unless that is done, and return whether nothing is left to do.

        Any thread may call it. Only the main thread can set handlers. A call from another thread wakes the main thread
        for that, if `arm_main_thread` was called there before. As long as the result is false, call again: a signal
        that arrives just as the main thread begins to wait doesn't wake it. Nothing is done if SIGTERM is ignored, or
        handled outside Python.
        """
        try:
            for number in self._defers_by_signal:
                if not self._wrap_loop(number):
                    self._wrap_handler(number)
        except ValueError:
            # This isn't the main thread. If another handler has replaced ours meanwhile, it receives no signal.
            handler = signal.getsignal(_WAKEUP)
            is_expected = isinstance(handler, MainThreadWakeup) and not handler.is_done
            if is_expected:
                # If the signal were sent to the process, a thread that is about to start another one might take it,
                # and the main thread would sleep on.
                signal.pthread_kill(threading.main_thread().ident or 0, _WAKEUP)
            return not is_expected
        self._wrap_event()
        return True

    def arm_main_thread(self) -> None:
        """Make a later call of `install` from another thread reach the main thread; does nothing in other threads."""
        with contextlib.suppress(ValueError):
            if signal.getsignal(_WAKEUP) == signal.SIG_DFL:
                signal.signal(_WAKEUP, MainThreadWakeup(self))

    @staticmethod
    def disarm_main_thread() -> None:
        """Undo `arm_main_thread`."""
        with contextlib.suppress(ValueError):
            if isinstance(signal.getsignal(_WAKEUP), MainThreadWakeup):
                signal.signal(_WAKEUP, signal.SIG_DFL)

    def _wrap_handler(self, number: signal.Signals) -> None:
        now = signal.getsignal(number)
        root = find_root()
        server = "" if root is None else root.server
        not_wrapped: list[Any] = [None, signal.SIG_IGN]
        if number == signal.SIGINT:
            # The default ends the process; asyncio checks whether Python's own handler is set.
            not_wrapped += [signal.SIG_DFL, signal.default_int_handler]
            if server in _STOPPED_BY_EVENT:  # Their workers ignore SIGINT.
                not_wrapped.remove(signal.SIG_IGN)
        if isinstance(now, _Handler) or now in not_wrapped:
            return
        signal.signal(number, _Handler(self._defers_by_signal[number], now))
        if number == signal.SIGTERM and server == "gunicorn":
            # gunicorn sets that the signal interrupts no system call; Python resets that with each new handler.
            signal.siginterrupt(number, False)

    def _wrap_loop(self, number: signal.Signals) -> bool:
        """Wrap the running event loop's handler of a signal; return whether it has one."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return False
        now = signal.getsignal(number)
        handles = getattr(loop, "_signal_handlers", None)
        if isinstance(handles, dict):
            handle = handles.get(number)
            if handle is None or getattr(now, "__module__", "") != "asyncio.unix_events":
                return False
            if not isinstance(handle._callback, _LoopHandler):  # noqa: SLF001 - The loop has no other way to read it.
                loop.add_signal_handler(number, _LoopHandler(self._defers_by_signal[number], handle._run))  # noqa: SLF001
            return True
        if getattr(now, "__self__", None) is not loop:
            return False
        if number == signal.SIGTERM and getattr(signal.getsignal(signal.SIGINT), "__self__", None) is loop:
            # uvloop doesn't expose its callbacks. The servers whose SIGTERM the loop handles, granian and hypercorn,
            # do the same for SIGINT.
            loop.add_signal_handler(number, _LoopHandler(self._defers_by_signal[number], _interrupt))
        return True

    def _wrap_event(self) -> None:
        """Wrap the event by which some servers stop their workers, which receive no signal."""
        root = find_root()
        if root is None or root.server not in _STOPPED_BY_EVENT:
            return
        event: Any = _spawned_with("shutdown_event")
        if event is not None and not isinstance(event.is_set, _Event):
            event.is_set = _Event(event.is_set, self._defers_event)


class _Handler:
    """A signal handler that calls the previous one, unless the signal is deferred."""

    def __init__(self, defers: Callable[[], bool], previous: Any) -> None:
        self._defers = defers
        self._previous = previous

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self._defers():
            return
        if callable(self._previous):
            self._previous(number, frame)
        elif self._previous == signal.SIG_DFL:
            signal.signal(number, self._previous)
            os.kill(os.getpid(), number)


class _LoopHandler:
    """The same for a handler of an event loop."""

    def __init__(self, defers: Callable[[], bool], previous: Callable[[], Any]) -> None:
        self._defers = defers
        self._previous = previous

    def __call__(self) -> None:
        if not self._defers():
            self._previous()


class _Event:
    """An event's `is_set` that returns false as long as the event is deferred."""

    def __init__(self, previous: Callable[[], bool], defers: Callable[[], bool]) -> None:
        self._previous = previous
        self._defers = defers

    def __call__(self) -> bool:
        return self._previous() and not self._defers()


class MainThreadWakeup:
    """The handler of the wake-up signal: installs the wrapper on the main thread, once; later it only wakes it."""

    def __init__(self, wrapper: SignalWrapper) -> None:
        self._wrapper = wrapper
        self.is_done = False

    def __call__(self, _: int, __: FrameType | None) -> None:
        """Handle the signal."""
        if not self.is_done:
            self.is_done = True
            self._wrapper.install()
            _wake_for_signals()


def _wake_for_signals() -> None:
    """
    Wake this thread, the main one, for each signal that the process receives from now on.

    The kernel wakes it, too, but another thread may take the signal first, and the main thread sleeps on: granian's
    workers for WSGI missed one in five SIGTERMs under load.
    """
    read, write = os.pipe()
    os.set_blocking(write, False)
    previous = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    if previous != -1:  # That of an event loop, which it wakes.
        signal.set_wakeup_fd(previous)
        os.close(read)
        os.close(write)
        return
    main_thread = threading.get_ident()

    def wake() -> None:
        while numbers := os.read(read, 64):
            if any(number != _WAKEUP for number in numbers):
                for _ in range(2):  # Twice, since the thread may have been about to fall asleep.
                    signal.pthread_kill(main_thread, _WAKEUP)
                    time.sleep(0.05)

    with contextlib.suppress(RuntimeError):  # No more threads.
        _thread.start_new_thread(wake, ())


def _interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def is_reloading() -> bool:
    """Return whether the server restarts its worker whenever the code changes, as developers use it."""
    config = _spawned_with("config")
    root = find_root()
    if root is not None and root.server == "granian":
        return "--reload" in sys.argv
    return bool(getattr(config, "reload", False) or getattr(config, "use_reloader", False))  # uvicorn's, hypercorn's.


def shorter_limit(seconds: float) -> dict[str, Any] | None:
    """
    Return the fields of a warning about a limit that ends before a drain of `seconds`; `None` if there is none.

    Only a limit that begins at SIGTERM can be too short. Those of uvicorn (`timeout_graceful_shutdown`) and hypercorn
    (`graceful_timeout`) begin when the drain is over.
    """
    root = find_root()
    server = root.server if root is not None else ""
    name, limit = "", 0.0
    if server == "gunicorn":
        name, limit = "graceful_timeout", float(getattr(getattr(_gunicorn(), "cfg", None), "graceful_timeout", 0))
    elif server == "granian":
        name, limit = "workers_kill_timeout", _granian_kill_timeout()
    if not limit or seconds < limit:
        return None
    fix = f"Set {name} above drain_seconds plus the time of the slowest request, or lower drain_seconds."
    return {"server": server, name: limit, "fix": fix}


def threads() -> int:
    """Return how many requests this WSGI worker serves at a time; 0 if that is unknown."""
    worker = _gunicorn()
    kind = str(getattr(worker.cfg, "worker_class_str", "")) if worker is not None else ""
    if kind != "gthread":
        return int(kind == "sync")
    # While requests wait, the pool has all its threads: in Python 3.11 sometimes fewer than configured (cpython#88354).
    pool = getattr(worker, "tpool", None)
    if pool is None:  # In the fork the handler is still that of the master.
        return 0
    return len(pool._threads) if pool._work_queue.qsize() else int(worker.cfg.threads)  # noqa: SLF001


def _gunicorn() -> Any:
    """Return gunicorn's worker object in this process, of any class except `asgi`, or `None`."""
    # uvicorn inside it doesn't replace this handler.
    worker: Any = getattr(signal.getsignal(signal.SIGUSR1), "__self__", None)
    return worker if hasattr(worker, "cfg") else None


def _granian_kill_timeout() -> float:
    option = "--workers-kill-timeout"
    values = [os.environ.get("GRANIAN_WORKERS_KILL_TIMEOUT", "")]
    for index, word in enumerate(sys.argv):
        if word.startswith(option + "="):
            values.append(word.partition("=")[2])
        elif word == option:
            values.extend(sys.argv[index + 1 : index + 2])
    try:
        return float(values[-1] or 0)
    except ValueError:  # With a unit, which granian accepts, too.
        return 0.0


def _spawned_with(name: str) -> Any:
    """Return the argument that a server passed to this process when it started it by multiprocessing, or `None`."""
    process = sys.modules.get("multiprocessing.process")
    return None if process is None else getattr(process.current_process(), "_kwargs", {}).get(name)
