"""
Exceptions that a framework answers by itself, so that no middleware sees them.

A hook of the framework notes the exception, and the line of the request has it. So the framework's own line leaves out
the stack trace. If the request has no line, everything stays as the framework does it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

from scaleobs.logs._context import request_context
from scaleobs.logs._exceptions import as_exc_info, traceback_of, values_of

HANDLED = "event"
"""
The key of the exception in the context of a request.

Each line has an event of its own, so that no line takes this one. An access line finds it without a test of its own,
since the context then has more keys than usual.
"""

_MARK = "_scaleobs_logged"
_EXPECTED, _LEFT_OUT = "expected", "left out"
"""The marks of an exception: the line of its request will have it; a line of the framework has left it out for that."""

_FRAMEWORK_LOGGERS = ("django.request", "falcon")
_SERVER_ERROR = 500

Handled = tuple[type[BaseException], BaseException, Any]
"""An exception as `sys.exc_info` returns it: Starlette removes the stack trace from the exception itself."""

_OVER = object()


def note_handled(error: BaseException, *, is_logged: bool = False) -> bool:
    """
    Add an exception to the line of the current request if that has a 5xx, and return whether requests have lines.

    Args:
        error: what the framework answers.
        is_logged: whether a logger of the framework will log it, too.
    """
    context = request_context.get()
    if context is None:
        return False
    if context.get(HANDLED) is not _OVER:
        context[HANDLED] = as_exc_info(error)
        _set_mark(error, _EXPECTED if is_logged else None)
    return True


def take_handled(context: MutableMapping[str, Any] | None, *, is_failed: bool) -> Handled | None:
    """
    Return the exception that was noted last for the line that ends a request, and remove it: it refers to the context.

    Args:
        context: of the request, or `None`.
        is_failed: whether the framework has answered it as a failure; if not, it is in the line only if the framework's
            own line has left it out.
    """
    noted = None if context is None else context.pop(HANDLED, None)
    if noted is None or noted is _OVER:
        return None
    return noted if is_failed or _mark_of(noted[1]) == _LEFT_OUT else None


@contextlib.contextmanager
def restored_trace(noted: Handled | None) -> Iterator[BaseException | None]:
    """Return a noted exception if there is one, which has its stack trace in the block."""
    if noted is None:
        yield None
        return
    error = noted[1]
    is_removed = traceback_of(error) is None
    if is_removed:
        BaseException.with_traceback(error, noted[2])
    try:
        yield error
    finally:
        if is_removed:  # If it is raised again, frames would be added.
            BaseException.with_traceback(error, None)


def end_handled(context: MutableMapping[str, Any]) -> None:
    """Note no more exceptions: the line of the request is written."""
    context[HANDLED] = _OVER


def keep_bound(fields: dict[str, Any], context: MutableMapping[str, Any]) -> None:
    """
    Add to an access line the exception that the framework has answered, and what the application has bound.

    Values under names of the access line are kept under the name with an underscore after it.
    """
    noted = take_handled(context, is_failed=fields["status_code"] >= _SERVER_ERROR)
    if noted is not None:
        fields["exc_info"] = noted
    for key, value in context.items():
        name = key
        while name in fields and fields[name] is not value:
            name += "_"
        fields[name] = value


def mark_logged(error: BaseException, *, is_logged: bool = True) -> None:
    """Mark an exception whose stack trace is in a line; without `is_logged`, remove the mark of an earlier line."""
    _set_mark(error, is_logged or None)


def is_in_other_line(error: BaseException, logger: str | None) -> bool:
    """Return whether another line has an exception, or will have it, so that a line of this logger leaves it out."""
    mark = _mark_of(error)
    if mark == _EXPECTED and logger in _FRAMEWORK_LOGGERS:
        _set_mark(error, _LEFT_OUT)
        return True
    return mark is True


def log_without_trace(error: BaseException, log: Callable[[], Any]) -> Any:
    """Call a function of a framework that logs an exception, which the line of the request will have."""
    context = request_context.get()
    noted = None if context is None else context.get(HANDLED)
    if noted is None or noted is _OVER or noted[1] is not error:
        return log()
    _set_mark(error, True)
    try:
        return log()
    finally:
        _set_mark(error, _LEFT_OUT)


def _mark_of(error: BaseException) -> Any:
    return dict.get(values_of(error), _MARK)


def _set_mark(error: BaseException, mark: Any) -> None:
    if mark is None:
        dict.pop(values_of(error), _MARK, None)
    else:
        dict.__setitem__(values_of(error), _MARK, mark)
