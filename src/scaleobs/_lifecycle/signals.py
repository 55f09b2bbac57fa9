"""
Wraps the current SIGTERM handler, so that the signal can be deferred and passed on.

uvicorn installs its handler before it loads the application if it is started by its command, and after if it is started
by a script or by gunicorn; gunicorn's other workers before, unless the application is preloaded; granian and hypercorn
on the event loop, granian for WSGI after. Therefore the wrapper is installed more than once. No class of a server is
changed.
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

from scaleobs import _workers as group


def shorter_limit(seconds: float) -> dict[str, Any] | None:
    """
    Return what to say about a limit that ends before a drain of so many seconds does; `None` where there is none.

    Only a limit that counts from SIGTERM on can be too short. Those of uvicorn (`timeout_graceful_shutdown`) and
    hypercorn (`graceful_timeout`) count from when the drain is over.
    """
    root = group.root()
    server = root.server if root is not None else ""
    name, limit = "", 0.0
    if server == "gunicorn":
        name, limit = "graceful_timeout", float(getattr(getattr(_gunicorn(), "cfg", None), "graceful_timeout", 0))
    elif server == "granian":
        name, limit = "workers_kill_timeout", _of_granian()
    if not limit or seconds < limit:
        return None
    fix = f"Set {name} above drain_seconds plus what the slowest request takes, or lower drain_seconds."
    return {"server": server, name: limit, "fix": fix}


def spawned_with(name: str) -> Any:
    """Return what a server handed to this process under a name when it started it by multiprocessing, or `None`."""
    process = sys.modules.get("multiprocessing.process")
    return None if process is None else getattr(process.current_process(), "_kwargs", {}).get(name)


def threads() -> int:
    """Return how many requests this WSGI worker serves at a time; 0 where that isn't known."""
    worker = _gunicorn()
    kind = str(getattr(worker.cfg, "worker_class_str", "")) if worker is not None else ""
    if kind != "gthread":
        return int(kind == "sync")
    # While requests wait it has as many as it will get: in Python 3.11 fewer now and then (cpython#88354).
    pool = worker.tpool
    return len(pool._threads) if pool._work_queue.qsize() else int(worker.cfg.threads)  # noqa: SLF001


def _gunicorn() -> Any:
    """Return the worker of gunicorn that this process is, of any kind but `asgi`, or `None`."""
    # The handler that uvicorn inside it leaves alone.
    worker: Any = getattr(signal.getsignal(signal.SIGUSR1), "__self__", None)
    return worker if hasattr(worker, "cfg") else None


def _of_granian() -> float:
    option = "--workers-kill-timeout"
    said = [os.environ.get("GRANIAN_WORKERS_KILL_TIMEOUT", "")]
    for place, word in enumerate(sys.argv):
        if word.startswith(option + "="):
            said.append(word.partition("=")[2])
        elif word == option:
            said.extend(sys.argv[place + 1 : place + 2])
    try:
        return float(said[-1] or 0)
    except ValueError:  # With a unit, which granian takes too.
        return 0.0


def is_reloading() -> bool:
    """Return whether the server ends its worker whenever the code changes, for someone who waits for the new one."""
    config = spawned_with("config")
    root = group.root()
    if root is not None and root.server == "granian":
        return "--reload" in sys.argv
    return bool(getattr(config, "reload", False) or getattr(config, "use_reloader", False))  # uvicorn's, hypercorn's.


_WAKEUP = signal.SIGURG
"""The signal by which a thread calls the main thread: ignored if nothing handles it, and Go uses it so, too."""


class SignalWrapper:
    """
    Wraps the current SIGTERM handler.

    Args:
        defers_signal: called inside the handler each time the signal comes; returns whether it is deferred.
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
        Wrap what handles SIGTERM now, unless that is done, and return whether nothing is left to do.

        Any thread may call. Handlers are the main thread's; a call from another one reaches it a moment later, if
        `arm_main_thread` was called there before. Until it has, call again: a signal that comes just as the main thread
        begins to wait doesn't wake it. If SIGTERM is ignored, or handled by no Python, nothing is done.
        """
        try:
            for number in self._defers_by_signal:
                if not self._wrap_loop(number):
                    self._wrap_handler(number)
        except ValueError:
            # Only the main thread may; a handler that has replaced ours meanwhile is sent no signal.
            handler = signal.getsignal(_WAKEUP)
            is_expected = isinstance(handler, MainThreadWakeup) and not handler.is_done
            if is_expected:
                # Sent to the process, it may be taken by a thread that is about to start another one, and the main
                # thread would sleep on.
                signal.pthread_kill(threading.main_thread().ident or 0, _WAKEUP)
            return not is_expected
        self._wrap_event()
        return True

    def arm_main_thread(self) -> None:
        """Let a later call of `install` from another thread reach the main thread, if this is that one."""
        with contextlib.suppress(ValueError):
            if signal.getsignal(_WAKEUP) == signal.SIG_DFL:
                signal.signal(_WAKEUP, MainThreadWakeup(self))

    @staticmethod
    def disarm_main_thread() -> None:
        """Restore the signal that `arm_main_thread` took."""
        with contextlib.suppress(ValueError):
            if isinstance(signal.getsignal(_WAKEUP), MainThreadWakeup):
                signal.signal(_WAKEUP, signal.SIG_DFL)

    def _wrap_handler(self, number: signal.Signals) -> None:
        now = signal.getsignal(number)
        root = group.root()
        server = "" if root is None else root.server
        left_alone: list[Any] = [None, signal.SIG_IGN]
        if number == signal.SIGINT:
            # Where nobody handles it, it ends the process; asyncio looks whether Python's own handler is there.
            left_alone += [signal.SIG_DFL, signal.default_int_handler]
            if server == "hypercorn":  # Its workers ignore it, since the main process stops them by an event.
                left_alone.remove(signal.SIG_IGN)
        if isinstance(now, _Handler) or now in left_alone:
            return
        signal.signal(number, _Handler(self._defers_by_signal[number], now))
        if number == signal.SIGTERM and server == "gunicorn":
            # gunicorn lets the signal interrupt no system call; Python forgets that with each handler.
            signal.siginterrupt(number, False)

    def _wrap_loop(self, number: signal.Signals) -> bool:
        """Return whether the running loop handles a signal itself."""
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
            # uvloop shows nobody what it calls. The servers that let the loop handle SIGTERM, which are granian and
            # hypercorn, do the same for SIGINT.
            loop.add_signal_handler(number, _LoopHandler(self._defers_by_signal[number], _interrupt))
        return True

    def _wrap_event(self) -> None:
        """Wrap the event by which hypercorn's main process stops its workers, which get no signal."""
        root = group.root()
        if root is None or root.server != "hypercorn":
            return
        event: Any = spawned_with("shutdown_event")
        if event is not None and not isinstance(event.is_set, _Event):
            event.is_set = _Event(event.is_set, self._defers_event)


class _Handler:
    """A handler that passes the signal on to the one before, unless it is deferred."""

    def __init__(self, defers: Callable[[], bool], before: Any) -> None:
        self._defers = defers
        self._before = before

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self._defers():
            return
        if callable(self._before):
            self._before(number, frame)
        elif self._before == signal.SIG_DFL:
            signal.signal(number, self._before)
            os.kill(os.getpid(), number)


class _LoopHandler:
    """The same for a handler of an event loop."""

    def __init__(self, defers: Callable[[], bool], before: Callable[[], Any]) -> None:
        self._defers = defers
        self._before = before

    def __call__(self) -> None:
        if not self._defers():
            self._before()


class _Event:
    """An event's `is_set` that is false for as long as it is deferred."""

    def __init__(self, before: Callable[[], bool], defers: Callable[[], bool]) -> None:
        self._before = before
        self._defers = defers

    def __call__(self) -> bool:
        return self._before() and not self._defers()


class MainThreadWakeup:
    """Installs the wrapper on the main thread, once; after that it wakes that thread."""

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
    Wake this thread, the main one, for each signal that the process gets from now on.

    The kernel wakes it, too, but another thread may take the signal first, and this one sleeps on: granian's workers
    for WSGI missed one in five SIGTERMs under load.
    """
    read, write = os.pipe()
    os.set_blocking(write, False)
    before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    if before != -1:  # An event loop's, which is woken by it.
        signal.set_wakeup_fd(before)
        os.close(read)
        os.close(write)
        return
    sleeper = threading.get_ident()

    def wake() -> None:
        while came := os.read(read, 64):
            if any(number != _WAKEUP for number in came):
                for _ in range(2):  # Once more, since it may have been about to fall asleep.
                    signal.pthread_kill(sleeper, _WAKEUP)
                    time.sleep(0.05)

    with contextlib.suppress(RuntimeError):  # No more threads.
        _thread.start_new_thread(wake, ())


def _interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)
