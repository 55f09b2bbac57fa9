"""
Each log line is one JSON object on stdout, also those of stdlib logging, of servers and of Python's hooks.

`_chain` is the list of processors that a line passes through; `_redaction` is one of them, `_encoding` makes the text,
and `_context` holds the fields of the request. `_logger` has what calls the chain: structlog's logger, a handler of
stdlib logging, and Python's hooks. `_sink` writes and counts the lines. `_configure` connects all of this.
"""

from __future__ import annotations

from scaleobs.logs._chain import mark_logged, processors
from scaleobs.logs._configure import (
    LoggingState,
    configure_for,
    configure_logging,
    get_logger,
    has_exporters,
    is_configured,
    leave_alone,
    own_logger,
    server_handler,
    take_loggers,
)
from scaleobs.logs._context import RequestIds, bind_context, forget_request, request_context, request_id
from scaleobs.logs._logger import JSONFormatter, StdoutHandler
from scaleobs.logs._redaction import Redact

__all__ = [
    "JSONFormatter",
    "LoggingState",
    "Redact",
    "RequestIds",
    "StdoutHandler",
    "bind_context",
    "configure_for",
    "configure_logging",
    "forget_request",
    "get_logger",
    "has_exporters",
    "is_configured",
    "leave_alone",
    "mark_logged",
    "own_logger",
    "processors",
    "request_context",
    "request_id",
    "server_handler",
    "take_loggers",
]
