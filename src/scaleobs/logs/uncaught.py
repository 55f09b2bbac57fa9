"""What Python would print to stderr as plain text: uncaught exceptions, and warnings."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Any, TextIO

from scaleobs.logs import encoding

Tell = Callable[..., None]
"""Writes one line: the level, the logger's name, the event, and what belongs to it."""


class Hooks:
    """
    Python's hooks, in whose place a line is written; a hook of somebody else's hears of it as well.

    What asyncio says of a task whose exception nobody retrieved needs none: it goes to the logger `asyncio`.

    Args:
        tell: writes a line.
    """

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._theirs: tuple[Callable[..., Any], ...] = ()

    def install(self) -> Callable[[], None]:
        """Put the hooks in place, and return what takes them away again."""
        before: tuple[Any, ...] = sys.excepthook, threading.excepthook, sys.unraisablehook, warnings.showwarning
        self._theirs = tuple(map(_unless_usual, before))
        sys.excepthook = self._uncaught
        threading.excepthook = self._uncaught_in_thread
        sys.unraisablehook = self._unraisable
        warnings.showwarning = self._warned

        def restore() -> None:
            sys.excepthook, threading.excepthook, sys.unraisablehook, warnings.showwarning = before

        return restore

    def _uncaught(self, kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if hasattr(sys, "ps1"):  # Someone types at an interpreter.
            sys.__excepthook__(kind, error, traceback)
            return
        level = "info" if issubclass(kind, KeyboardInterrupt) else "critical"
        self._tell(level, "root", "exception.uncaught", exc_info=error.with_traceback(traceback))
        self._theirs[0](kind, error, traceback)

    def _uncaught_in_thread(self, args: threading.ExceptHookArgs) -> None:
        if args.exc_type is SystemExit:
            return
        error = args.exc_value if args.exc_value is not None else args.exc_type()
        thread = args.thread.name if args.thread is not None else None
        self._tell("error", "threading", "exception.uncaught", thread=thread, exc_info=error)
        self._theirs[1](args)

    def _unraisable(self, args: Any) -> None:
        error = args.exc_value if args.exc_value is not None else args.exc_type()
        said = args.err_msg or "Exception ignored in"
        self._tell("error", "root", "exception.ignored", reason=said, where=encoding.text(args.object), exc_info=error)
        self._theirs[2](args)

    def _warned(  # noqa: PLR0917 - The standard library's.
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if file is not None:
            file.write(warnings.formatwarning(message, category, filename, lineno, line))
            return
        where = {"category": category.__name__, "file": filename, "line": lineno}
        self._tell("warning", "py.warnings", str(message), **where)


def _unless_usual(hook: Callable[..., Any]) -> Callable[..., Any]:
    """Return a hook, and what does nothing where it is Python's own, which would print, or ours."""
    usual = (sys.__excepthook__, threading.__excepthook__, sys.__unraisablehook__)
    if hook in usual or isinstance(getattr(hook, "__self__", None), Hooks):
        return lambda *_: None
    return hook
