"""All that happens in a process that is forked from this one, in an order that does not depend on imports."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from contextlib import ExitStack
from enum import Enum, auto


class Step(Enum):
    """The steps in a forked process, in this order."""

    REQUEST_IDS = auto()
    """Ids get a seed of their own. Before all steps that may make an id."""
    LOG_COUNTS = auto()
    """The lock, which another thread of the parent may hold, is replaced. Before any line is written."""
    STDOUT = auto()
    """The stream and its locks are replaced. Before any line is written: the steps below may report a fault."""
    HEALTH = auto()
    """Checks drop the event loop, threads and runs of the parent. Before MANAGEMENT, whose probes run them."""
    METRICS = auto()
    """
    The process leaves the group of its parent, counts from 0, and joins its own group.

    Before DRAIN and MANAGEMENT, which find siblings and the lock of the port in the group.
    """
    DRAIN = auto()
    """The drain of the parent is dropped. Before MANAGEMENT, whose probes show the drain."""
    TRACES = auto()
    """The lock is replaced, and the thread that exports the last spans is started. Before any request is served."""
    MANAGEMENT = auto()
    """A worker opens the management port. Last, since its answers depend on all steps above."""


_functions: dict[Step, Callable[[], object]] = {}

_pid = os.getpid()
"""The process in which the steps were done last."""


def after_fork(step: Step, function: Callable[[], object]) -> None:
    """
    Call a function in each process that is forked from this one, at its step.

    A step has one function, which is never removed: it must refer weakly to objects that may be dropped. If a function
    raises, the interpreter reports the error, and the other steps are done.
    """
    _functions[step] = function


def catch_up() -> None:
    """
    Do the steps now, unless they were done in this process.

    Code in C may fork without the hooks of Python, as uWSGI does.
    """
    if os.getpid() != _pid:
        _forked()


def _forked() -> None:
    global _pid  # noqa: PLW0603 - A fork changes it.
    _pid = os.getpid()
    with ExitStack() as stack:  # Calls all, the last one first, even if one raises.
        for step in reversed(Step):
            if step in _functions:
                stack.callback(_functions[step])


if hasattr(os, "register_at_fork"):
    # Hooks are called in the order of registration; the one of `logging` releases locks that a line needs.
    importlib.import_module("logging")
    os.register_at_fork(after_in_child=_forked)
