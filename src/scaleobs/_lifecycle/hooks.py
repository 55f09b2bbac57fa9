"""Runs functions of the application: its start-up tasks, and its hooks of the drain."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future
from typing import Any

from scaleobs._trio import Loop, TrioLoop

Hook = Callable[[], Any] | Callable[[], Awaitable[Any]]


class TooLateError(Exception):
    """A hook hasn't finished in time."""


Failed = Callable[[Hook, BaseException], None]


def run(hooks: Iterable[tuple[Hook, Loop | None]], deadline: float, failed: Failed) -> None:
    """
    Run hooks side by side; return when all have finished, or at the deadline.

    Async hooks run on the application's event loop, or on a new one if there is none. Each other hook runs in its own
    thread. A hook that raises or is late is reported and doesn't affect the others. A late async hook is cancelled, a
    late thread goes on.

    Args:
        hooks: each with the event loop of its application.
        deadline: by `time.monotonic`.
        failed: called with each hook that raised or is late, and with the exception.
    """
    running = [(hook, start_hook(hook, loop)) for hook, loop in hooks]
    for hook, future in running:
        try:
            future.result(max(deadline - time.monotonic(), 0))
        except BaseException as error:
            failed(hook, error if future.done() else TooLateError())
            future.cancel()


def start_hook(hook: Hook, loop: Loop | None) -> Future[Any]:
    """Start one hook, from any thread, and return a future with its result."""
    if inspect.iscoroutinefunction(hook) and loop is not None and loop.is_running():
        if isinstance(loop, TrioLoop):
            return loop.start(hook)
        return asyncio.run_coroutine_threadsafe(_as_coroutine(hook), loop)
    future: Future[Any] = Future()

    def call() -> None:
        try:
            returned = hook()
            if not inspect.isawaitable(returned):
                result = returned
            elif isinstance(loop, TrioLoop):
                result = loop.run(returned)
            else:
                result = asyncio.run(_await(returned))
        except BaseException as error:
            with contextlib.suppress(Exception):  # The future is cancelled, since the hook was late.
                future.set_exception(error)
        else:
            with contextlib.suppress(Exception):
                future.set_result(result)

    try:
        threading.Thread(target=call, name="scaleobs hook", daemon=True).start()
    except RuntimeError as error:  # No more threads.
        future.set_exception(error)
    return future


async def _as_coroutine(hook: Callable[[], Awaitable[Any]]) -> Any:
    return await hook()


async def _await(returned: Awaitable[Any]) -> Any:
    return await returned
