"""The handlers of exceptions of a Starlette or FastAPI application, which note what they handle."""

from __future__ import annotations

import contextlib
import functools
import inspect
from typing import Any, TypeVar

from scaleobs._routes.exceptions import note_error
from scaleobs._routes.objects import attribute, unwrapped

App = TypeVar("App")

_HOOKED = "is_scaleobs_hook"


def note_handled(app: Any) -> None:
    """Make the handlers of an application note what they handle: once it has built its middlewares."""
    stack, build = attribute(app, "middleware_stack"), getattr(app, "build_middleware_stack", None)
    if stack is not None:
        note_in_handlers(stack)
    elif build is not None and not hasattr(build, _HOOKED):

        def build_and_note() -> Any:
            return note_in_handlers(build())

        setattr(build_and_note, _HOOKED, True)
        app.build_middleware_stack = build_and_note


def note_in_handlers(stack: App) -> App:
    """Make the handlers in a stack of middlewares note what they handle, and return the stack; never raises."""
    with contextlib.suppress(Exception):
        for middleware in unwrapped(stack):
            if type(middleware).__name__ == "ExceptionMiddleware":
                for name in ("_exception_handlers", "_status_handlers"):
                    _replace(attribute(middleware, name) or {})
    return stack


def _replace(handlers: dict[Any, Any]) -> None:
    for kind, handler in handlers.items():
        if not hasattr(handler, _HOOKED):
            handlers[kind] = _noting(handler)


def _noting(handler: Any) -> Any:
    """Return a handler that notes an exception first; Starlette calls in a thread what is no coroutine function."""

    @functools.wraps(handler, updated=())
    def note_and_handle(connection: Any, error: Exception) -> Any:
        if connection.scope["type"] == "http":
            note_error(error, lambda: connection.scope)
        return handler(connection, error)

    @functools.wraps(handler, updated=())
    async def note_and_handle_async(connection: Any, error: Exception) -> Any:
        if connection.scope["type"] == "http":
            note_error(error, lambda: connection.scope)
        return await handler(connection, error)

    noting = note_and_handle_async if _is_async(handler) else note_and_handle
    setattr(noting, _HOOKED, True)
    return noting


def _is_async(handler: Any) -> bool:
    while isinstance(handler, functools.partial):
        handler = handler.func
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(type(handler).__call__)
