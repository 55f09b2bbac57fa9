"""What happens in a process that is forked from this one: all of it, in one order, whatever is imported first."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from contextlib import ExitStack
from enum import Enum, auto


class Step(Enum):
    """What happens in a forked process, in this order."""

    REQUEST_IDS = auto()
    """Ids get a seed of their own. Before whatever may make one."""
    LOG_COUNTS = auto()
    """The lock that another thread of the parent may hold is replaced. Before any line is written."""
    STDOUT = auto()
    """The stream is looked up again, with its locks. Before any line is written: the steps below may report a fault."""
    HEALTH = auto()
    """Checks have no event loop, thread or run of the parent's. Before MANAGEMENT, whose probes run them."""
    METRICS = auto()
    """
    The process leaves the group of its parent, counts from 0, and joins its own group.

    Before DRAIN and MANAGEMENT, which find the siblings and the owner of the port in the group.
    """
    DRAIN = auto()
    """The process doesn't drain. Before MANAGEMENT, whose probes show whether it does."""
    TRACES = auto()
    """The lock is replaced, and the thread that exports the last spans started. Before any request is served."""
    MANAGEMENT = auto()
    """A worker opens the management port. Last: its thread answers from all of the above."""


_functions: dict[Step, Callable[[], object]] = {}


def after_fork(step: Step, function: Callable[[], object]) -> None:
    """
    Call a function in each process that is forked from this one, at its step.

    A step has one function, which is kept for good: it refers to objects that may go before weakly. If it raises, the
    interpreter reports that, and the other steps are done all the same.
    """
    _functions[step] = function


def _forked() -> None:
    with ExitStack() as stack:  # Calls all of them, the last one first, also after one that raises.
        for step in reversed(Step):
            if step in _functions:
                stack.callback(_functions[step])


if hasattr(os, "register_at_fork"):
    # Hooks are called in the order of their registration, and that of logging frees the locks which a line needs.
    importlib.import_module("logging")
    os.register_at_fork(after_in_child=_forked)
