"""uWSGI, which forks its workers in C, so that Python's own hooks are not called."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

_HOOK = "post_fork_hook"


def after_fork_of_uwsgi(function: Callable[[], object]) -> None:
    """
    Call a function in each process that uWSGI forks from this one. Does nothing without uWSGI; may be called again.

    uWSGI calls one hook. The application, or uWSGI's own decorators, may set it before this call or after it: theirs is
    called as well.
    """
    uwsgi = sys.modules.get("uwsgi")  # Only uWSGI itself provides this module.
    if uwsgi is None or type(uwsgi) is not ModuleType:
        return

    class Module(ModuleType):
        """uWSGI's module, which keeps our hook before any other one."""

        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, _before(function, value) if name == _HOOK else value)

    uwsgi.__class__ = Module
    setattr(uwsgi, _HOOK, getattr(uwsgi, _HOOK, None))


def _before(function: Callable[[], object], other: Any) -> Callable[[], None]:
    def hook() -> None:
        with contextlib.suppress(Exception):  # A worker starts also if it can't count.
            function()
        if other is not None:
            other()

    return hook
