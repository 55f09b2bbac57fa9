"""Life: one service from its start-up to its drain."""

from __future__ import annotations

import contextlib
from typing import Any, TypeVar

from scaleobs import logs
from scaleobs.drain import Draining
from scaleobs.hooks import Hook
from scaleobs.lifecycle import Lifecycle
from scaleobs.settings import Settings
from scaleobs.startup import Startup

_Hook = TypeVar("_Hook", bound=Hook)


class Life:
    """
    One service from its start-up to its drain; what `Observer` has of it.

    Args:
        settings: how the service is observed.
    """

    def __init__(self, settings: Settings) -> None:
        self.drain = Draining(settings.drain_seconds, self._tell)
        self.lifecycle = Lifecycle(manual_start=settings.manual_start, is_draining=self.drain.is_on)
        self._startup = Startup(self.lifecycle, self._task_failed)

    def startup_task(self, task: _Hook) -> _Hook:
        """
        Register the decorated function, sync or async, as a task that has to be done before the service is ready.

        It is begun once in each process, when the lifespan has completed, or where there is none with the first request
        or probe: async ones on the application's event loop, where there is one, others in a thread. Until all are done
        `/startup` and `/ready` answer 503 and show how far each is; requests are served meanwhile. One that raises is
        logged and never done.

        Raises:
            ValueError: there is one of this name.
        """
        self._startup.add(task)
        return task

    def on_drain(self, hook: _Hook) -> _Hook:
        """
        Register the decorated function, sync or async, to be called once when the process begins to drain.

        All are begun at once and side by side: async ones on the application's event loop, where there is one, others
        in a thread each. They have as long as the drain takes; what one raises, or that it is late, is logged. None is
        called where there is no drain: with `drain_seconds=0`, and where the process is interrupted or killed.
        """
        self.drain.hooks.append(hook)
        return hook

    def started(self) -> None:
        """End start-up, for an application that was instrumented with `manual_start=True`."""
        self.lifecycle.started()

    def is_served(self) -> bool:
        """Return whether a server has begun to serve the application, as far as it shows."""
        return self.lifecycle.state != "new"

    def lifespan_started(self) -> None:
        """Note that the application's lifespan has completed its start-up."""
        self.lifecycle.lifespan_started()
        # The application may have put handlers of its own meanwhile.
        self.drain.serving()
        self._startup.begin()

    def lifespan_stopping(self) -> None:
        """Note that the server asked the application to shut down."""
        self.lifecycle.lifespan_stopping()
        self.drain.stopping()

    def _request_served(self) -> None:
        """Note a request or probe; the first one does what a lifespan would have done."""
        if not self.drain.is_noted:
            self.drain.serving()
        if self.lifecycle.state == "ready" and not self._startup.is_begun:
            self._startup.begin()

    @staticmethod
    def _tell(level: str, event: str, **about: Any) -> None:
        with contextlib.suppress(Exception):
            getattr(logs.own_logger(), level)(event, **about)

    def _task_failed(self, name: str, error: BaseException) -> None:
        self._tell("warning", "startup.task_failed", task=name, exc_info=error)
