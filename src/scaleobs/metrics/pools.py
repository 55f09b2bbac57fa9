"""How busy the worker threads of an event loop are, as far as that can be known."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from collections.abc import Callable
from typing import Any

Numbers = tuple[float, float, float]
"""Threads in use, calls that wait for one, threads that there may be; the last is 0 where there is no pool."""

POOLS: tuple[str, ...] = ("anyio", "asyncio")

NO_POOL: Numbers = (0.0, 0.0, 0.0)


def numbers_of(loop: asyncio.AbstractEventLoop) -> list[float]:
    """
    Return the numbers of each of `POOLS`; to be called by the loop, in a context of nobody else's.

    What isn't there, or isn't as it is known here, is no pool.
    """
    return [*_contained(_of_anyio), *_contained(lambda: _of_asyncio(loop))]


def _contained(read: Callable[[], Numbers]) -> Numbers:
    try:
        return read()
    except Exception:  # It is private, and may be another thing in another version.
        return NO_POOL


def _of_anyio() -> Numbers:
    """Return the numbers of the limiter that anyio, and with it Starlette, uses by default on this loop."""
    threads = sys.modules.get("anyio.to_thread")
    # Before that is loaded no thread has been asked for, and asking would load it.
    if threads is None or "anyio._backends._asyncio" not in sys.modules:
        return NO_POOL
    sniffio = sys.modules.get("sniffio")
    if sniffio is not None:
        # It looks for a task otherwise, and a timer has none.
        sniffio.current_async_library_cvar.set("asyncio")
    said = threads.current_default_thread_limiter().statistics()
    return float(said.borrowed_tokens), float(said.tasks_waiting), float(said.total_tokens)


def _of_asyncio(loop: asyncio.AbstractEventLoop) -> Numbers:
    """Return the numbers of what `asyncio.to_thread` and `run_in_executor(None, …)` use."""
    executor = _default_executor(loop)
    if executor is None:
        return NO_POOL
    return _busy(executor), float(executor._work_queue.qsize()), float(executor._max_workers)  # noqa: SLF001


def _default_executor(loop: asyncio.AbstractEventLoop) -> Any:
    futures = sys.modules.get("concurrent.futures.thread")
    if futures is None:  # Nobody has made one.
        return None
    if hasattr(loop, "_default_executor"):
        return loop._default_executor  # noqa: SLF001
    # uvloop has it where only the garbage collector sees it, and no other one.
    return next((one for one in gc.get_referents(loop) if isinstance(one, futures.ThreadPoolExecutor)), None)


def _busy(executor: Any) -> float:
    """
    Return how many threads do something else than wait for work.

    The executor's own count of the idle won't do: in Python 3.11 it grows with each call that had to wait
    (cpython#88354).
    """
    threads = tuple(executor._threads)  # noqa: SLF001 - Another thread may be adding one.
    if not threads:
        return 0.0
    waits = sys.modules["concurrent.futures.thread"]._worker.__code__  # noqa: SLF001
    frames = sys._current_frames()  # noqa: SLF001
    # With this very frame in it, it would live until the garbage collector comes, and all frames with it.
    del frames[threading.get_ident()]
    tops = [frames[thread.ident] for thread in threads if thread.ident in frames]
    return float(sum(top.f_code is not waits for top in tops))
