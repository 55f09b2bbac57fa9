"""
Each log line is one JSON object on stdout, also those of stdlib logging, of servers and of Python's hooks.

`_chain` is the list of processors that a line passes through; `_redaction` is one of them, `_encoding` makes the text,
and `_context` holds the fields of the request. `_logger` has what calls the chain: structlog's logger, a handler of
stdlib logging, and Python's hooks. `_sink` writes and counts the lines. `_configure` connects all of this.
"""

from __future__ import annotations

from scaleobs.logs._chain import processors
from scaleobs.logs._configure import LoggingState, configure_logging, get_logger, server_handler
from scaleobs.logs._context import bind_context, request_id
from scaleobs.logs._logger import JSONFormatter, StdoutHandler
from scaleobs.logs._redaction import Redact

__all__ = [
    "JSONFormatter",
    "LoggingState",
    "Redact",
    "StdoutHandler",
    "bind_context",
    "configure_logging",
    "get_logger",
    "processors",
    "request_id",
    "server_handler",
]
