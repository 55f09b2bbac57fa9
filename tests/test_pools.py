"""The numbers of the thread pools of an event loop."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import anyio.to_thread
import pytest

from scaleobs._metrics import runtime as pools
from scaleobs._metrics.runtime import NO_POOL, POOLS
from support import servers

ANYIO, ASYNCIO = (slice(3 * place, 3 * place + 3) for place in range(len(POOLS)))


def numbers():
    """Return the numbers as read by a timer, outside of any task."""

    async def main():
        loop = asyncio.get_running_loop()
        seen = loop.create_future()
        loop.call_soon(lambda: seen.set_result(pools.pool_numbers(loop)))
        return await seen

    return main()


async def until(place, expected):
    """Wait until a pool has these numbers."""
    limit = time.monotonic() + servers.LIMIT
    while (seen := (await numbers())[place]) != expected:
        assert time.monotonic() < limit, seen
        await asyncio.sleep(0.001)


def test_reading_makes_no_pool():
    """A loop that has requested no thread has no pool, and no module is loaded."""
    code = """
import asyncio, sys
from scaleobs._metrics import runtime as pools
import anyio.to_thread

async def main():
    before = set(sys.modules)
    print(pools.pool_numbers(asyncio.get_running_loop()), asyncio.get_running_loop()._default_executor)
    print(set(sys.modules) - before)

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert ["[0.0, 0.0, 0.0, 0.0, 0.0, 0.0] None", "set()"] == done.stdout.splitlines()


def test_anyio():
    """The numbers are busy and waiting calls, and the size that the application has set, also outside of a task."""
    hold = threading.Event()

    async def main():
        anyio.to_thread.current_default_thread_limiter().total_tokens = 3
        calls = [asyncio.create_task(anyio.to_thread.run_sync(hold.wait)) for _ in range(5)]
        await until(ANYIO, [3, 2, 3])
        hold.set()
        await asyncio.gather(*calls)
        await until(ANYIO, [0, 0, 3])

    asyncio.run(main())


def test_asyncio():
    """Idle threads are not busy, even if calls had to wait for them before."""
    hold = threading.Event()

    async def main():
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(2))
        await until(ASYNCIO, [0, 0, 2])
        calls = [loop.run_in_executor(None, hold.wait) for _ in range(9)]
        await until(ASYNCIO, [2, 7, 2])
        hold.set()
        await asyncio.gather(*calls)
        await until(ASYNCIO, [0, 0, 2])
        hold.clear()
        call = loop.run_in_executor(None, hold.wait)
        await until(ASYNCIO, [1, 0, 2])
        hold.set()
        await call

    asyncio.run(main())


def test_executor_that_only_the_garbage_collector_sees():
    """The default executor is found even if the loop has no attribute for it, as in uvloop."""

    class Loop:
        __slots__ = ("_its_own",)

    loop = Loop()

    assert NO_POOL == pools._asyncio_numbers(loop)
    loop._its_own = ThreadPoolExecutor(4)
    assert (0, 0, 4) == pools._asyncio_numbers(loop)


def test_no_frame_is_kept():
    """Reading the frames of threads keeps no object of the caller until the next garbage collection."""

    class Held:
        pass

    def call(loop):
        held = Held()
        pools.pool_numbers(loop)
        return weakref.ref(held)

    async def main():
        await asyncio.to_thread(int)
        gc.disable()
        try:
            return call(asyncio.get_running_loop())()
        finally:
            gc.enable()

    assert asyncio.run(main()) is None


@pytest.mark.parametrize("executor", [object(), 7])
def test_another_thing_than_is_known(executor):
    """Unexpected attributes of another version of Python count as no pool, and no error is raised."""

    class Loop:
        _default_executor = executor

    found = contextvars.copy_context().run(pools.pool_numbers, Loop())  # Reading changes a variable of the context.

    assert list(NO_POOL) == found[ASYNCIO]
