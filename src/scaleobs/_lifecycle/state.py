"""The state of the process between its start and its end, and the start-up tasks."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any, Literal

from scaleobs._lifecycle.hooks import Hook, start_hook
from scaleobs._trio import Loop, running_trio

State = Literal["new", "starting", "ready", "draining", "failed", "stopping"]
TaskState = Literal["waiting", "running", "done", "failed"]


class Lifecycle:
    """
    The state on which readiness and start-up depend.

    Each method is one assignment, so any thread may call it. The lifespan of an ASGI application changes the state. If
    the server opens no lifespan, or the application has none, start-up is over at the first HTTP request, since
    servers send no request earlier. Start-up tasks may take longer.

    Args:
        manual_start: whether only `started()` ends start-up.
        is_draining: returns whether the process drains, in which case it isn't ready.

    Attributes:
        state: by the events of the server and the application, without start-up tasks and drain.
        is_over: whether the application has left its lifespan after its shutdown or a failed start-up.
        tasks: the state of each start-up task.
    """

    def __init__(self, *, manual_start: bool, is_draining: Callable[[], bool] = lambda: False) -> None:
        self._manual_start = manual_start
        self._is_draining = is_draining
        self.state: State = "new"
        self.is_over = False
        self.tasks: dict[str, TaskState] = {}

    @property
    def is_started(self) -> bool:
        """Whether start-up has succeeded."""
        return self.state in ("ready", "stopping") and self._are_tasks_done()

    @property
    def is_ready(self) -> bool:
        """Whether the process can serve requests, without regard to its checks."""
        return self.state == "ready" and self._are_tasks_done() and not self._is_draining()

    def probe_data(self, *, has_passed: bool = True) -> dict[str, Any]:
        """
        Return the data for a probe's body: the state, and the start-up tasks unless all are done.

        Args:
            has_passed: whether the start-up checks have passed.
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
        """Start-up is over: the application has called this itself, or an event below implies it."""
        if self.state in ("new", "starting"):
            self.state = "ready"

    def lifespan_begun(self) -> None:
        """The server has opened a lifespan: the first one or, as test clients do, another one after its end."""
        self.is_over = False
        if self.state != "ready":
            self.state = "starting"

    def lifespan_exited(self) -> None:
        """The application has left its lifespan. Without an answer, servers conclude that it has none."""
        self.is_over = self.state in ("stopping", "failed")
        if self.state == "starting":
            self.state = "new"

    def lifespan_started(self) -> None:
        """The application's start-up is complete."""
        if not self._manual_start:
            self.started()

    def lifespan_failed(self) -> None:
        """The application's start-up has failed. It never becomes ready."""
        self.state = "failed"

    def lifespan_stopping(self) -> None:
        """The server has requested the application's shutdown."""
        self.state = "stopping"

    def request_received(self) -> None:
        """A request has arrived."""
        if self.state == "new":
            self.lifespan_started()

    def _are_tasks_done(self) -> bool:
        # A copy, since a task may be registered during a probe.
        return all(task == "done" for task in list(self.tasks.values()))


Failed = Callable[[str, BaseException], None]


class StartupTasks:
    """
    The start-up tasks of one service; each runs once in a process.

    Args:
        lifecycle: receives the state of each task.
        failed: called with the name of a task that raised, and with the exception.
    """

    def __init__(self, lifecycle: Lifecycle, failed: Failed) -> None:
        self._lifecycle = lifecycle
        self._failed = failed
        self._tasks: dict[str, Hook] = {}
        self._begun_in = 0
        self._loop: Loop | None = None

    def add(self, task: Hook) -> None:
        """
        Register a task. If the tasks have begun, it begins at once.

        Raises:
            ValueError: another task has this name.
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
        """Whether the tasks have begun in this process, and not only in one from which it was forked."""
        return self._begun_in == os.getpid()

    def begin(self) -> None:
        """Begin the tasks, once; async tasks run on the running event loop, if the caller is in one."""
        if self.is_begun:
            return
        self._begun_in = os.getpid()
        self._loop = asyncio._get_running_loop() or running_trio()  # noqa: SLF001 - It raises nothing.
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
