"""Start-up tasks: what has to be done before the service is ready, beside its lifespan."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any

from scaleobs.hooks import Hook, start_hook
from scaleobs.lifecycle import Lifecycle

Failed = Callable[[str, BaseException], None]


class StartupTasks:
    """
    The start-up tasks of one service; each is run once in a process.

    Args:
        lifecycle: has how far each is.
        failed: called with the name of a task that raised, and with the exception.
    """

    def __init__(self, lifecycle: Lifecycle, failed: Failed) -> None:
        self._lifecycle = lifecycle
        self._failed = failed
        self._tasks: dict[str, Hook] = {}
        self._begun_in = 0
        self._loop: asyncio.AbstractEventLoop | None = None

    def add(self, task: Hook) -> None:
        """
        Take a task, which is begun at once where the service serves already.

        Raises:
            ValueError: there is one of this name.
        """
        name = getattr(task, "__name__", repr(task))
        if name in self._tasks:
            msg = f"There is a start-up task {name!r} already: give each function a name of its own."
            raise ValueError(msg)
        self._tasks[name] = task
        self._lifecycle.tasks[name] = "waiting"
        if self.is_begun:
            self._begin(name)

    @property
    def is_begun(self) -> bool:
        """Whether the tasks have been begun in this process, and not only in one that it was forked from."""
        return self._begun_in == os.getpid()

    def begin(self) -> None:
        """Begin the tasks, unless they are begun; async ones on the running loop, if this is in one."""
        if self.is_begun:
            return
        self._begun_in = os.getpid()
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None
        for name in list(self._tasks):
            self._begin(name)

    def _begin(self, name: str) -> None:
        def done(future: Future[Any]) -> None:
            error = CancelledError() if future.cancelled() else future.exception()
            self._lifecycle.tasks[name] = "done" if error is None else "failed"
            if error is not None:
                self._failed(name, error)

        self._lifecycle.tasks[name] = "running"
        start_hook(self._tasks[name], self._loop).add_done_callback(done)
