"""The one thread of a process that begins the runs of checks that have `every`."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterable

from scaleobs.health.state import CheckState


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
