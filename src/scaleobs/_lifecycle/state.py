"""Where the process stands between start and end, and the start-up tasks."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any, Literal

from scaleobs._lifecycle.hooks import Hook, start_hook

State = Literal["new", "starting", "ready", "draining", "failed", "stopping"]
Progress = Literal["waiting", "running", "done", "failed"]


class Lifecycle:
    """
    The state that readiness and start-up answer from.

    Each method is one assignment, so any thread may call it. ASGI applications move by their lifespan; where
    a server sends none or the application has none, the first HTTP request says that start-up is over, since
    servers send no request before. Start-up tasks may go on for longer.

    Args:
        manual_start: only `started()` ends start-up.
        is_draining: asked whether the process drains, which takes it out of readiness.

    Attributes:
        state: what the server and the application have said, start-up tasks and the drain apart.
        tasks: how far each start-up task is.
    """

    def __init__(self, *, manual_start: bool, is_draining: Callable[[], bool] = lambda: False) -> None:
        self._manual_start = manual_start
        self._is_draining = is_draining
        self.state: State = "new"
        self.tasks: dict[str, Progress] = {}

    @property
    def is_started(self) -> bool:
        """Whether start-up is over and went well."""
        return self.state in ("ready", "stopping") and self._are_tasks_done()

    @property
    def is_ready(self) -> bool:
        """Whether the process can take requests, as far as it knows itself."""
        return self.state == "ready" and self._are_tasks_done() and not self._is_draining()

    def said(self, *, has_passed: bool = True) -> dict[str, Any]:
        """
        Return what a probe says of it: the state, and how far start-up is where it has tasks that aren't done.

        Args:
            has_passed: whether the checks of the start have passed.
        """
        state: State = self.state
        if self._are_tasks_done():
            if state == "ready" and self._is_draining():
                state = "draining"
            elif state == "ready" and not has_passed:
                state = "starting"
            return {"state": state}
        if state == "ready":
            state = "failed" if "failed" in self.tasks.values() else "starting"
        return {"state": state, "startup_tasks": dict(self.tasks)}

    def started(self) -> None:
        """Note that the application said itself that it has started."""
        if self.state in ("new", "starting"):
            self.state = "ready"

    def lifespan_begun(self) -> None:
        """Note that the server opened a lifespan, the first or, as test clients do, another one after its end."""
        if self.state != "ready":
            self.state = "starting"

    def lifespan_left(self) -> None:
        """Note that the application left its lifespan; without an answer, servers take it for having none."""
        if self.state == "starting":
            self.state = "new"

    def lifespan_started(self) -> None:
        """Note that the application's start-up is complete."""
        if not self._manual_start:
            self.started()

    def lifespan_failed(self) -> None:
        """Note that the application's start-up failed; it never becomes ready."""
        self.state = "failed"

    def lifespan_stopping(self) -> None:
        """Note that the server asked the application to shut down."""
        self.state = "stopping"

    def request_seen(self) -> None:
        """Note that a request came."""
        if self.state == "new":
            self.lifespan_started()

    def _are_tasks_done(self) -> bool:
        # A task may be registered while a probe asks.
        return all(progress == "done" for progress in list(self.tasks.values()))


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
