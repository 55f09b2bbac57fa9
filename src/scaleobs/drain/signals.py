"""
Standing before whatever handles SIGTERM, so that it can be held back and passed on.

uvicorn handles it before it loads the application where it is started by its command, and after where it is started by
a script or by gunicorn; gunicorn's other workers before, unless the application is preloaded; granian and hypercorn on
the event loop, granian for WSGI after. Therefore what is installed is looked at more than once. No class of a server is
changed.
"""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from scaleobs import group
from scaleobs.drain import servers

_ELSEWHERE = signal.SIGURG
"""What brings a thread's wish to the main thread: ignored where nobody handles it, and Go uses it so, too."""


class Gate:
    """
    Stands before what handles SIGTERM.

    Args:
        holds_signal: asked inside the handler, each time the signal comes, whether it is held back.
        holds_event: the same where a server tells its workers by an event; asked again and again.
        interrupted: hears inside the handler of each SIGINT, which is never held back.
    """

    def __init__(
        self, holds_signal: Callable[[], bool], holds_event: Callable[[], bool], interrupted: Callable[[], None]
    ) -> None:
        self._holds_event = holds_event

        def holds_interrupt() -> bool:
            interrupted()
            return False

        self._asked = {signal.SIGTERM: holds_signal, signal.SIGINT: holds_interrupt}

    def close(self) -> bool:
        """
        Stand before what handles SIGTERM now, unless that is so already, and return whether nothing is left to do.

        Any thread may call. Handlers are the main thread's; a call from another one reaches it a moment later, if
        `expect_call` was called there before. Until it has, call again: a signal that comes just as the main thread
        begins to wait doesn't wake it. Where SIGTERM is ignored, or handled by no Python, nothing is done.
        """
        try:
            for number in self._asked:
                if not self._close_loop(number):
                    self._close_handler(number)
        except ValueError:
            # Only the main thread may; and who has put another handler there meanwhile hears of nothing new.
            handler = signal.getsignal(_ELSEWHERE)
            is_expected = isinstance(handler, _Elsewhere) and not handler.is_done
            if is_expected:
                # Sent to the process, it may be taken by a thread that is about to start another one, and the main
                # thread would sleep on.
                signal.pthread_kill(threading.main_thread().ident or 0, _ELSEWHERE)
            return not is_expected
        self._close_event()
        return True

    def expect_call(self) -> None:
        """Let a later call of `close` from another thread reach the main thread, if this is that one."""
        with contextlib.suppress(ValueError):
            if signal.getsignal(_ELSEWHERE) == signal.SIG_DFL:
                signal.signal(_ELSEWHERE, _Elsewhere(self))

    @staticmethod
    def expect_no_call() -> None:
        """Leave the signal that `expect_call` took as it was."""
        with contextlib.suppress(ValueError):
            if isinstance(signal.getsignal(_ELSEWHERE), _Elsewhere):
                signal.signal(_ELSEWHERE, signal.SIG_DFL)

    def _close_handler(self, number: signal.Signals) -> None:
        now = signal.getsignal(number)
        root = group.root()
        server = "" if root is None else root.server
        left_alone: list[Any] = [None, signal.SIG_IGN]
        if number == signal.SIGINT:
            # Where nobody handles it, it ends the process; asyncio looks whether Python's own handler is there.
            left_alone += [signal.SIG_DFL, signal.default_int_handler]
            if server == "hypercorn":  # Its workers ignore it, since the main process tells them by an event.
                left_alone.remove(signal.SIG_IGN)
        if isinstance(now, _Handler) or now in left_alone:
            return
        signal.signal(number, _Handler(self._asked[number], now))
        if number == signal.SIGTERM and server == "gunicorn":
            # gunicorn lets the signal interrupt no system call; Python forgets that with each handler.
            signal.siginterrupt(number, False)

    def _close_loop(self, number: signal.Signals) -> bool:
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
            if not isinstance(handle._callback, _LoopHandler):  # noqa: SLF001 - The loop tells it in no other way.
                loop.add_signal_handler(number, _LoopHandler(self._asked[number], handle._run))  # noqa: SLF001
            return True
        if getattr(now, "__self__", None) is not loop:
            return False
        if number == signal.SIGTERM and getattr(signal.getsignal(signal.SIGINT), "__self__", None) is loop:
            # uvloop shows nobody what it calls. The servers that let the loop handle SIGTERM, which are granian and
            # hypercorn, do the same for SIGINT.
            loop.add_signal_handler(number, _LoopHandler(self._asked[number], _interrupt))
        return True

    def _close_event(self) -> None:
        """Stand before the event by which hypercorn's main process tells its workers to stop, who get no signal."""
        root = group.root()
        if root is None or root.server != "hypercorn":
            return
        event: Any = servers.spawned_with("shutdown_event")
        if event is not None and not isinstance(event.is_set, _Event):
            event.is_set = _Event(event.is_set, self._holds_event)


class _Handler:
    """A handler that passes the signal on to the one before, unless it is held back."""

    def __init__(self, holds: Callable[[], bool], before: Any) -> None:
        self._holds = holds
        self._before = before

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self._holds():
            return
        if callable(self._before):
            self._before(number, frame)
        elif self._before == signal.SIG_DFL:
            signal.signal(number, self._before)
            os.kill(os.getpid(), number)


class _LoopHandler:
    """The same for a handler of an event loop."""

    def __init__(self, holds: Callable[[], bool], before: Callable[[], Any]) -> None:
        self._holds = holds
        self._before = before

    def __call__(self) -> None:
        if not self._holds():
            self._before()


class _Event:
    """An event's `is_set` that is false for as long as it is held back."""

    def __init__(self, before: Callable[[], bool], holds: Callable[[], bool]) -> None:
        self._before = before
        self._holds = holds

    def __call__(self) -> bool:
        return self._before() and not self._holds()


class _Elsewhere:
    """Closes the gate on the main thread, once; after that it is there to wake that thread."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self.is_done = False

    def __call__(self, _: int, __: FrameType | None) -> None:
        if not self.is_done:
            self.is_done = True
            self._gate.close()
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
            if any(number != _ELSEWHERE for number in came):
                for _ in range(2):  # Once more, since it may have been about to fall asleep.
                    signal.pthread_kill(sleeper, _ELSEWHERE)
                    time.sleep(0.05)

    with contextlib.suppress(RuntimeError):  # No more threads.
        _thread.start_new_thread(wake, ())


def _interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)
