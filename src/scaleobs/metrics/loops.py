"""A timer on each event loop that serves an application: how late it runs is how late everything else does."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import Callable
from contextvars import Context
from time import monotonic

from scaleobs.metrics import pools
from scaleobs.metrics.runtime import runtime

EVERY = 0.25
"""Seconds between two looks; what is shorter may fall between them."""

_latest: weakref.ref[asyncio.AbstractEventLoop] | None = None


def watch(on_fault: Callable[[Exception], None]) -> None:
    """
    Look at the running event loop from now on, if there is one, and never raise.

    May be called by every application and with every request: a loop is looked at once, and costs nothing but a
    comparison from then on. It ends with the loop, which it holds weakly and keeps neither running nor open.

    Args:
        on_fault: hears why a loop can't be looked at, once.
    """
    global _latest  # noqa: PLW0603 - The answer for all requests but the first.
    loop = asyncio._get_running_loop()  # noqa: SLF001
    if loop is None or (_latest is not None and loop is _latest()):
        return
    try:
        _latest = weakref.ref(loop)
        if runtime.begin(loop):
            _Watch(loop).ask(loop)
    except Exception as error:
        on_fault(error)


def forked() -> None:
    """Begin anew in a child process, whose loops are other ones."""
    global _latest  # noqa: PLW0603 - See there.
    _latest = None
    runtime.forked()


class _Watch:
    """
    The looks at one event loop.

    Args:
        loop: the event loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.ref(loop)
        # That of the request that came first would live as long as the loop, with all that it holds.
        self._context = Context()
        self._due = 0.0

    def ask(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have the loop call when it is time for the next look."""
        # By a clock of our own: uvloop's stands still while it runs what is due.
        self._due = monotonic() + EVERY
        loop.call_later(EVERY, self._look, context=self._context)

    def _look(self) -> None:
        at, loop = monotonic(), self._loop()
        if loop is None or not runtime.has(loop):
            return
        with contextlib.suppress(Exception):  # The loop would write it, four times a second.
            try:
                runtime.looked(loop, at=at, late=max(0.0, at - self._due), pools=pools.numbers_of(loop))
            finally:  # Whoever sees no pulse takes the worker for stuck.
                self.ask(loop)
