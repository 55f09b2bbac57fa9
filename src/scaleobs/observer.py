"""Observer: what users call of an instrumented service."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, Unpack

from scaleobs._health import Check, CheckFunction, Options
from scaleobs._lifecycle.hooks import Hook
from scaleobs._service import _Service
from scaleobs.settings import Arguments, Settings

__all__ = ["Observer"]

_Function = TypeVar("_Function", bound=CheckFunction)
_Hook = TypeVar("_Hook", bound=Hook)


class Observer:
    """
    One instrumented service: its settings, its checks, its start-up and its drain.

    `instrument` makes one; `observer_of(app)` returns it. Any thread may call any method.

    Args:
        settings: the arguments of `instrument`; see `scaleobs.settings.Settings`.

    Attributes:
        settings: the arguments, the environment and the defaults.

    Raises:
        SettingsError: a setting is unknown or has a value that can't be used.
        ValueError: the registry holds another library's metric of the same name.
    """

    def __init__(self, **settings: Unpack[Arguments]) -> None:
        self.settings: Settings = Settings.read(settings)
        self._service = _Service(self.settings)

    def check(self, name: str, **options: Unpack[Options]) -> Callable[[_Function], _Function]:
        """
        Register the decorated function, sync or async, as a check of a probe.

        Args:
            name: the name in the probe.
            options: when the check runs and what its failure means; see `scaleobs.Check`.

        Raises:
            ValueError: the name is taken, or a value can't be used.
        """

        def register(function: _Function) -> _Function:
            self._service.checks.add(Check(name, function, **options))
            return function

        return register

    def startup_task(self, task: _Hook) -> _Hook:
        """
        Register the decorated function, sync or async, as a task that must be done before the service is ready.

        Each process runs it once: when the lifespan has started, or at the first request or probe if there is no
        lifespan. An async task runs on the application's event loop if there is one; any other task has its own thread.
        Until all tasks are done, `/startup` and `/ready` answer 503 and show the state of each. Requests are served
        meanwhile. A task that raises is logged and never done.

        Raises:
            ValueError: a task has this name already.
        """
        self._service.startup_tasks.add(task)
        return task

    def on_drain(self, hook: _Hook) -> _Hook:
        """
        Register the decorated function, sync or async, to be called once when the process begins to drain.

        All hooks begin at the same time. An async hook runs on the application's event loop if there is one; any other
        hook has its own thread. They may run as long as the drain takes; exceptions and late hooks are logged. No hook
        is called without a drain: with `drain_seconds=0`, or if the process is interrupted or killed.
        """
        self._service.drain.hooks.append(hook)
        return hook

    def started(self) -> None:
        """End start-up, for an application that was instrumented with `manual_start=True`."""
        self._service.lifecycle.started()

    def is_ready(self) -> bool:
        """Return whether the readiness probe would answer 200, by the last results of its checks; runs none."""
        return self._service.is_ready()
