"""One run of a check: in a thread of its own, or on the application's event loop."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, InvalidStateError
from typing import Any

from scaleobs._health.check import Check, Result, failed, judged, late

_EARLY = 1e-4
"""Seconds by which a timer may be early."""


class Run:
    """
    One run of a check.

    Args:
        check: what to run.
        on_end: told of the run and what it said, once it has really ended, which may be long after its time; `None`
            where its event loop was ended under it. Called from wherever it ran.
    """

    def __init__(self, check: Check, on_end: Callable[[Run, Result | None], None]) -> None:
        self._check = check
        self._on_end = on_end
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self.begun = time.monotonic()
        self.deadline = self.begun + check.timeout
        self.is_late = False
        """Whether it was noted that its time is up."""
        self._known: Future[None] = Future()

    def start(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """
        Begin.

        Args:
            loop: the application's event loop, where there is one. Async checks run there, where their connection
                pools live. Everything else gets a daemon thread, which a hanging function can keep without holding up
                the end of the process.
        """
        try:
            if loop is not None and not loop.is_closed() and is_async(self._check.function):
                self._loop = loop
                if _running_loop() is loop:
                    self._start_task(loop)
                else:
                    loop.call_soon_threadsafe(self._start_task, loop)
            else:
                name = f"scaleobs-check-{self._check.name}"
                threading.Thread(target=self._in_thread, name=name, daemon=True).start()
        except RuntimeError as error:  # The process has no thread left, or the loop was closed this moment.
            self._on_end(self, failed(error))

    def is_lost(self) -> bool:
        """Return whether its event loop was closed in the middle of it, as tests do, and it will never end."""
        return self._loop is not None and self._loop.is_closed()

    def is_over(self, now: float) -> bool:
        """Return whether its time is up."""
        return now >= self.deadline - _EARLY

    def remaining(self) -> float:
        """Return the seconds that it has left."""
        return max(0.0, self.deadline - time.monotonic())

    def make_known(self) -> None:
        """Say that there is something to answer from; any number of times, from any thread."""
        with contextlib.suppress(InvalidStateError):
            self._known.set_result(None)

    def wait(self) -> None:
        """Block until there is something to answer from, or its time is up."""
        with contextlib.suppress(TimeoutError):
            self._known.result(self.remaining())

    async def wait_async(self) -> None:
        """Do the same without blocking the running event loop."""
        loop = asyncio.get_running_loop()
        done = loop.create_future()

        def finish() -> None:
            if not done.done():
                done.set_result(None)

        def wake(_: Future[None]) -> None:
            with contextlib.suppress(RuntimeError):  # Nobody waits any more: that loop is closed.
                loop.call_soon_threadsafe(finish)

        # Not asyncio.wrap_future: who gives up waiting would cancel what others wait for, too.
        self._known.add_done_callback(wake)
        await asyncio.wait([done], timeout=self.remaining())

    def _start_task(self, loop: asyncio.AbstractEventLoop) -> None:
        self._task = loop.create_task(self._on_loop())

    def _in_thread(self) -> None:
        try:
            value = self._check.function()
            result = asyncio.run(self._awaited(value)) if inspect.isawaitable(value) else judged(value)
        except BaseException as error:  # A check may raise anything; the probe still answers.
            result = failed(error)
        self._on_end(self, result)

    async def _on_loop(self) -> None:
        try:
            result: Result | None = await self._awaited(self._check.function())
        except GeneratorExit:  # It was given up with its loop, and is collected; a finalizer must take no lock.
            return
        except BaseException as error:
            task = asyncio.current_task()
            is_ended_from_outside = task is not None and task.cancelling()
            result = None if is_ended_from_outside else failed(error)
        self._on_end(self, result)

    async def _awaited(self, value: Awaitable[Any]) -> Result:
        limit = asyncio.timeout(self.remaining())
        try:
            async with limit:
                return judged(await value)
        except TimeoutError as error:
            return late(self._check.timeout) if limit.expired() else failed(error)


def is_async(function: Any) -> bool:
    """Return whether calling a function gives a coroutine."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
