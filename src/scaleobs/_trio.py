"""
trio in place of asyncio: what scaleobs needs of an event loop, for a server that runs the application under trio.

trio is never imported: an application under trio has imported it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import sys
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any

_FOREIGN = ("no running event loop", "no current event loop", "inside a task", "unrecognized yield message")
"""Parts of the messages of asyncio and trio if a coroutine of asyncio runs under trio."""

_EXPLANATION = "the server runs the application under trio, where asyncio can't be used"


class TrioLoop:
    """
    One run of trio. Any thread may call `start` and the questions; the others must be called in a task of the run.

    Args:
        trio: the module.
        token: of the run.
    """

    def __init__(self, trio: Any, token: Any) -> None:
        self._trio = trio
        self._token = token

    def is_closed(self) -> bool:
        """Return whether the run is over."""
        try:
            self._token.run_sync_soon(_do_nothing, idempotent=True)
        except self._trio.RunFinishedError:
            return True
        return False

    def is_running(self) -> bool:
        """Return whether the run is not over."""
        return not self.is_closed()

    def start(self, function: Callable[[], Awaitable[Any]], seconds: float = math.inf) -> Future[Any]:
        """
        Start an async function in a task of its own, and return a future with its result.

        The task is none of a request: its context is that of the run. The future is cancelled if the run ends first;
        if the future is cancelled, the task is too.

        Args:
            function: takes no arguments.
            seconds: after these the task is cancelled, and the future's exception is `TookTooLongError`.

        Raises:
            RuntimeError: the run is over.
        """
        trio, future = self._trio, Future[Any]()

        async def call() -> None:
            result: Any = None
            try:
                with trio.move_on_after(seconds) as scope:
                    future.add_done_callback(lambda _: self._cancel(future, scope))
                    result = await function()
            except GeneratorExit:  # It is collected with its run; a finalizer must take no lock.
                return
            except BaseException as error:  # An exception that left the task would end the server.
                if _has_type(error, trio.Cancelled):
                    future.cancel()
                else:
                    if _is_of_asyncio(error):
                        error.add_note(_EXPLANATION)
                    _set(future.set_exception, error)
                return
            if scope.cancelled_caught:
                _set(future.set_exception, TookTooLongError())
            else:
                _set(future.set_result, result)

        def spawn() -> None:
            try:
                trio.lowlevel.spawn_system_task(call)
            except RuntimeError:  # The run is about to end; an error here would end the server with another one.
                future.cancel()

        self._token.run_sync_soon(spawn)
        return future

    def _cancel(self, future: Future[Any], scope: Any) -> None:
        if future.cancelled():
            with contextlib.suppress(RuntimeError):  # The run is over.
                self._token.run_sync_soon(scope.cancel)

    def run(self, awaitable: Awaitable[Any], seconds: float = math.inf) -> Any:
        """
        Run an awaitable on a new run of trio in the calling thread, which has none; return its result.

        Raises:
            TookTooLongError: it took longer than `seconds`.
        """
        trio = self._trio

        async def main() -> Any:
            with trio.move_on_after(seconds):
                return await awaitable
            raise TookTooLongError

        return trio.run(main)

    async def wait(self, future: Future[Any], seconds: float) -> None:
        """Wait until a future is done, at most for some seconds; must be called in a task of this run."""
        trio = self._trio
        done = trio.Event()

        def wake(_: Future[Any]) -> None:
            with contextlib.suppress(RuntimeError):  # The run is over.
                self._token.run_sync_soon(done.set)

        future.add_done_callback(wake)
        with trio.move_on_after(seconds):
            await done.wait()

    async def sleep(self, seconds: float) -> None:
        """Sleep, or with 0 seconds let other tasks run; must be called in a task of this run."""
        await self._trio.sleep(seconds)

    def threads(self) -> tuple[float, float, float]:
        """
        Return how many threads of the pool are in use, how many calls wait for one, and the size of the pool.

        Must be called in a task of this run. The pool is trio's own, which anyio uses too.
        """
        statistics = self._trio.to_thread.current_default_thread_limiter().statistics()
        return float(statistics.borrowed_tokens), float(statistics.tasks_waiting), float(statistics.total_tokens)


class TookTooLongError(Exception):
    """A function has not ended in its time."""


Loop = asyncio.AbstractEventLoop | TrioLoop
"""An event loop of asyncio, or a run of trio."""

_current: Any = None
"""A variable of trio whose value is the `TrioLoop` of each run."""


def running_trio() -> TrioLoop | None:
    """Return the run of trio on this thread, the same object each time; `None` if there is none. Never raises."""
    global _current  # noqa: PLW0603 - Only trio's module can make it.
    trio: Any = sys.modules.get("trio")
    if trio is None:
        return None
    try:
        token = trio.lowlevel.current_trio_token()
        if _current is None:
            _current = trio.lowlevel.RunVar("scaleobs_loop")
        loop: TrioLoop | None = _current.get(None)
        if loop is None:
            loop = TrioLoop(trio, token)
            _current.set(loop)
    except Exception:  # There is no run on this thread, or the module is none of trio's.
        return None
    return loop


def explained(loop: Loop | None, error: BaseException, reason: str) -> str:
    """Return the reason of an error; if a function has used asyncio under trio, that is added."""
    return f"{reason} ({_EXPLANATION})" if isinstance(loop, TrioLoop) and _is_of_asyncio(error) else reason


def _is_of_asyncio(error: BaseException) -> bool:
    """Return whether an error shows that a coroutine of asyncio runs under trio."""
    with contextlib.suppress(Exception):  # It has no text.
        text = str(error).lower()
        return isinstance(error, RuntimeError | TypeError) and any(part in text for part in _FOREIGN)
    return False


def _has_type(error: BaseException, kind: type[BaseException]) -> bool:
    """Return whether an exception, or one of its group, is of a type."""
    if isinstance(error, BaseExceptionGroup):
        return error.subgroup(kind) is not None
    return isinstance(error, kind)


def _set(function: Callable[[Any], None], value: Any) -> None:
    with contextlib.suppress(Exception):  # The future is cancelled.
        function(value)


def _do_nothing() -> None:
    """Do nothing; trio calls one function once, however often it was passed on."""
