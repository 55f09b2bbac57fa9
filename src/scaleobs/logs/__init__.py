"""
One JSON object per line on stdout, wherever the line began.

`chain` is the list of small functions that a line passes through: `redaction` and `ecs` are two of them, `exceptions`,
`encoding` and `fitting` make a line of whatever is in it. `context` is what a line carries of its request. `output` and
`stdout` write it, `pipe` also where several processes share a pipe, and `counts` says how many. `configuration`
connects structlog, stdlib logging, the servers' own loggers and Python's hooks (`uncaught`) to them.
"""

from __future__ import annotations

from scaleobs.logs.chain import mark_logged, processors
from scaleobs.logs.configuration import (
    configure_for,
    configure_logging,
    get_logger,
    is_configured,
    own_logger,
    server_handler,
    take_server_loggers,
)
from scaleobs.logs.configured import Configured
from scaleobs.logs.context import bind_context, forget_request, new_context, request_context
from scaleobs.logs.output import JSONFormatter, StdoutHandler
from scaleobs.logs.redaction import Redact

__all__ = [
    "Configured",
    "JSONFormatter",
    "Redact",
    "StdoutHandler",
    "bind_context",
    "configure_for",
    "configure_logging",
    "forget_request",
    "get_logger",
    "is_configured",
    "mark_logged",
    "new_context",
    "own_logger",
    "processors",
    "request_context",
    "server_handler",
    "take_server_loggers",
]
