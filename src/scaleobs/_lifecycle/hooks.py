"""Running what an application gives to be run: its start-up tasks, and its hooks of the drain."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future
from typing import Any

Hook = Callable[[], Any] | Callable[[], Awaitable[Any]]


class TooLateError(Exception):
    """A hook isn't done in time."""


Failed = Callable[[Hook, BaseException], None]


def run(hooks: Iterable[tuple[Hook, asyncio.AbstractEventLoop | None]], until: float, failed: Failed) -> None:
    """
    Run hooks side by side, and come back when they are done or it is too late.

    Async ones run on the application's event loop, or on one of their own where there is none; the others in a thread
    each. One that raises or is late is reported and leaves the others alone. A late async hook is cancelled, a late
    thread is left.

    Args:
        hooks: each with its application's loop.
        until: when it is too late, by `time.monotonic`.
        failed: called with each hook that raised or is late, and with the exception.
    """
    running = [(hook, start_hook(hook, loop)) for hook, loop in hooks]
    for hook, future in running:
        try:
            future.result(max(until - time.monotonic(), 0))
        except BaseException as error:
            failed(hook, error if future.done() else TooLateError())
            future.cancel()


def start_hook(hook: Hook, loop: asyncio.AbstractEventLoop | None) -> Future[Any]:
    """Begin one hook, from any thread, and return its result to come."""
    if inspect.iscoroutinefunction(hook) and loop is not None and loop.is_running():
        return asyncio.run_coroutine_threadsafe(_called(hook), loop)
    future: Future[Any] = Future()

    def call() -> None:
        try:
            done = hook()
            result = asyncio.run(_awaited(done)) if inspect.isawaitable(done) else done
        except BaseException as error:
            with contextlib.suppress(Exception):  # It was too late, and is cancelled.
                future.set_exception(error)
        else:
            with contextlib.suppress(Exception):
                future.set_result(result)

    try:
        threading.Thread(target=call, name="scaleobs hook", daemon=True).start()
    except RuntimeError as error:  # No more threads.
        future.set_exception(error)
    return future


async def _called(hook: Callable[[], Awaitable[Any]]) -> Any:
    return await hook()


async def _awaited(done: Awaitable[Any]) -> Any:
    return await done
