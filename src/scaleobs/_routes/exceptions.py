"""The exceptions that a framework answers by itself, as its hooks report them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from scaleobs import _tracing
from scaleobs._routes.interface import Request
from scaleobs.logs import _handled
from scaleobs.logs._exceptions import as_exc_info

HANDLED_ERROR = "scaleobs.error"
"""The key of the exception in a scope or environ, for the span of a request without a line."""


def note_error(error: BaseException, find_request: Callable[[], Request], *, is_logged: bool = False) -> None:
    """
    Add an exception to the line and the span of the current request if that has a 5xx; raises nothing.

    Args:
        error: what the framework answers.
        find_request: returns the scope or environ.
        is_logged: whether a logger of the framework will log it, too.
    """
    with contextlib.suppress(Exception):
        if not _handled.note_handled(error, is_logged=is_logged) and _tracing.is_configured():
            find_request()[HANDLED_ERROR] = as_exc_info(error)


def without_trace(log: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of a framework that logs `sys.exc_info()`, its last argument, without the noted exception."""

    def log_without_trace(*args: Any) -> Any:
        return _handled.log_without_trace(args[-1][1], lambda: log(*args))

    return log_without_trace
