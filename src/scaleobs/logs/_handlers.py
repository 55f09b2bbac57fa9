"""
What the handlers of stdlib logging write to, and who has added them.

scaleobs replaces the handlers that write to the console: those that a framework adds by itself always, the user's only
if a setting requires it. All others stay: files and exporters.
"""

from __future__ import annotations

import gc
import logging
import logging.handlers
import sys
import sysconfig
from collections.abc import Iterable
from typing import Any

_MAX_DEPTH = 4
_LITESTAR = "%(levelname)s - %(asctime)s - %(name)s - %(module)s - %(message)s"
_DAPHNE = "%(asctime)-15s %(levelname)-8s %(message)s"
_INSTALLED = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})


def is_console(handler: logging.Handler, depth: int = 0) -> bool:
    """Return whether a handler writes to stdout or stderr: by itself, through a queue, rich's console or loguru."""
    if isinstance(handler, logging.FileHandler):
        return False
    if isinstance(handler, logging.StreamHandler):
        return _is_standard(getattr(handler, "stream", None))
    if _forwards_to_loguru(handler) or is_ours(handler):
        return True
    console = getattr(handler, "console", None)
    if console is not None and hasattr(console, "file"):
        return _is_standard(console.file)
    return depth < _MAX_DEPTH and any(is_console(one, depth + 1) for one in _targets(handler))


def is_default(name: str, handler: logging.Handler) -> bool:
    """
    Return whether a framework has added a handler of the console by itself, without a configuration of the user.

    Args:
        name: the logger's name; `root` for the root logger.
        handler: one of its handlers.
    """
    kind, formats = type(handler).__module__.partition(".")[0], _format_of(handler)
    if kind in ("prefect", "quart", "scaleobs"):
        return True
    if handler is getattr(sys.modules.get("flask.logging"), "default_handler", None):
        return True
    if name in ("django", "django.server"):
        parts = [type(one).__name__ for one in (*handler.filters, handler.formatter)]
        return bool({"RequireDebugTrue", "ServerFormatter"} & set(parts))
    if any(_format_of(one) == _LITESTAR for one in (handler, *_targets(handler))):
        return "litestar" in sys.modules
    if type(handler).__name__ == "RichHandler":
        is_plain = formats == "%(message)s" and getattr(handler.formatter, "datefmt", None) is None
        return is_plain and bool(getattr(handler, "rich_tracebacks", False)) and _is_loaded("mcp.server.")
    return name == "root" and formats == _DAPHNE and _is_loaded("daphne.")


def configured_by() -> str:
    """Return what the user has configured stdlib logging with, as a text; empty if it is nothing or writes no line."""
    for handler in logging.getLogger().handlers:
        if is_of_a_test_runner(handler) or is_default("root", handler):
            continue
        if is_console(handler) or not (isinstance(handler, logging.NullHandler) or _is_exporter(handler)):
            return f"{type(handler).__name__} of the root logger"
    return ""


def replaced(name: str, handlers: Iterable[logging.Handler]) -> list[logging.Handler]:
    """Return the handlers of a logger that stay if its lines are ours: those that write to no console."""
    return [one for one in handlers if is_of_a_test_runner(one) or not (is_console(one) or is_default(name, one))]


def reads_fields(handler: logging.Handler) -> bool:
    """Return whether the lines of a handler show the fields of `extra`, as those of a formatter for JSON do."""
    if is_ours(handler):
        return True
    record = logging.LogRecord("scaleobs", logging.INFO, "", 0, "probe", (), None)
    record.__dict__["route"] = probe = "/scaleobs/{probe}"
    try:
        return probe in handler.format(record)
    except Exception:  # A format with fields that this record does not have.
        return True


def is_ours(handler: logging.Handler) -> bool:
    """Return whether a handler is one of scaleobs."""
    return type(handler).__module__.startswith("scaleobs.")


def is_of_a_test_runner(handler: logging.Handler) -> bool:
    """Return whether a handler is pytest's, which only captures records."""
    return type(handler).__module__.startswith("_pytest.")


def _is_standard(stream: Any) -> bool:
    standard = (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)
    try:
        # Flask's stream is a proxy, which is equal to what it refers to.
        return stream is not None and (any(stream == one for one in standard) or stream.fileno() in (1, 2))
    except Exception:  # Not a file, or a closed one.
        return False


def _targets(handler: Any) -> list[logging.Handler]:
    """Return the handlers that a handler passes records to."""
    if isinstance(handler, logging.handlers.MemoryHandler):
        return [] if handler.target is None else [handler.target]
    if not isinstance(handler, logging.handlers.QueueHandler):
        return []
    listener = getattr(handler, "listener", None)
    if listener is None:  # Nothing refers to the listener but its thread.
        listeners = (one for one in gc.get_objects() if isinstance(one, logging.handlers.QueueListener))
        listener = next((one for one in listeners if one.queue is handler.queue), None)
    return list(getattr(listener, "handlers", ()))


def _forwards_to_loguru(handler: logging.Handler) -> bool:
    code = getattr(type(handler).emit, "__code__", None)
    if code is None or "loguru" not in sys.modules:
        return False
    names = type(handler).emit.__globals__
    return any(type(names.get(one)).__module__.startswith("loguru.") for one in code.co_names)


def _is_exporter(handler: logging.Handler) -> bool:
    """Return whether a class of the standard library or of an installed package, other than the console's, writes."""
    for base in type(handler).__mro__:
        if base is logging.Handler:
            return False
        path = getattr(sys.modules.get(base.__module__), "__file__", None) or ""
        if path.startswith(_INSTALLED):
            return True
    return False


def writes_twice(logger: logging.Logger) -> bool:
    """Return whether a logger writes to the console beside the root logger, or instead of it by a default."""
    reaches_root, one = True, logger
    while one.parent is not None:
        reaches_root, one = reaches_root and one.propagate, one.parent
    return any(is_console(one) if reaches_root else is_default(logger.name, one) for one in logger.handlers)


def _format_of(handler: logging.Handler) -> str | None:
    return getattr(handler.formatter, "_fmt", None)


def _is_loaded(prefix: str) -> bool:
    return any(name.startswith(prefix) for name in list(sys.modules))
