"""Connects structlog, stdlib logging and the servers' own loggers to the chain."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog
from structlog.typing import Processor

from scaleobs.logs import chain
from scaleobs.logs.output import ConsoleFormatter, JSONFormatter, Output, StdoutHandler
from scaleobs.settings import Settings

SERVER_LOGGERS = ("uvicorn", "uvicorn.error", "uvicorn.asgi", "gunicorn.error")
ACCESS_LOGGERS = ("uvicorn.access", "gunicorn.access")
"""The servers' access lines, which `request.finished` replaces."""


def configure_logging(
    *, service: str = "service", version: str = "unknown", log_format: str = "auto", log_level: str = "info"
) -> None:
    """
    Send structlog, stdlib logging and the servers' own lines to stdout, one JSON object per line.

    May be called again; the last call counts. `instrument` calls it unless logging was configured already.

    Args:
        service: added to every line.
        version: added to every line.
        log_format: `json`, `console`, or `auto`: console where stdout is a terminal, JSON elsewhere.
        log_level: the least severe level that is written, such as `info`.

    Raises:
        SettingsError: a value can't be used.
    """
    given = {"service": service, "version": version, "log_format": log_format, "log_level": log_level}
    checked = Settings.read(given, environ={})
    log_format, level = checked.log_format, logging.getLevelNamesMapping()[checked.log_level.upper()]
    if log_format == "console" or (log_format == "auto" and _is_terminal()):
        rendering: list[Processor] = [*chain.processors(), structlog.dev.ConsoleRenderer()]
        formatter: logging.Formatter = ConsoleFormatter()
    else:
        rendering = [*chain.processors(service, version), structlog.processors.format_exc_info, chain.render_json]
        formatter = JSONFormatter(service=service, version=version)
    structlog.configure(
        processors=rendering,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=Output,
        cache_logger_on_first_use=False,
    )
    handler = StdoutHandler()
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [*filter(_is_of_a_test_runner, root.handlers), handler]
    root.setLevel(level)
    take_server_loggers()


def is_configured() -> bool:
    """Return whether somebody has said where log lines go: the application, or scaleobs for another one."""
    return structlog.is_configured() or not all(map(_is_of_a_test_runner, logging.getLogger().handlers))


def take_server_loggers() -> None:
    """
    Let the servers' loggers end where all others do, where that is with us, and silence their access lines.

    A server that is started with an application object configures its loggers after `instrument` did, so this is said
    again when the application starts.
    """
    if not any(isinstance(handler, StdoutHandler) for handler in logging.getLogger().handlers):
        return
    for name in (*SERVER_LOGGERS, *ACCESS_LOGGERS):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = name in SERVER_LOGGERS


def get_logger(name: str | None = None, **values: Any) -> Any:
    """
    Return a structlog logger whose lines carry the request they were written in.

    Args:
        name: shown as `logger`.
        values: added to each of its lines.
    """
    return structlog.get_logger(name or "root", **values)


def own_logger() -> Any:
    """Return the logger for scaleobs's own lines: structlog where it is configured, otherwise the stdlib's."""
    if structlog.is_configured():
        return get_logger("scaleobs")
    return structlog.wrap_logger(
        logging.getLogger("scaleobs"),
        processors=[structlog.stdlib.render_to_log_kwargs],
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def _is_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


def _is_of_a_test_runner(handler: logging.Handler) -> bool:
    """Return whether a handler watches beside whatever is configured, as pytest's do."""
    return type(handler).__module__.startswith("_pytest.")
