"""
One JSON object per line on stdout, wherever the line began.

`chain` is the list of small functions that a line passes through, `context` what it carries of its request, `encoding`
makes JSON of whatever is in it, `output` writes it, and `configuration` connects structlog, stdlib logging and the
servers' own loggers to them.
"""

from __future__ import annotations

from scaleobs.logs.chain import mark_logged
from scaleobs.logs.configuration import (
    configure_logging,
    get_logger,
    is_configured,
    own_logger,
    take_server_loggers,
)
from scaleobs.logs.context import bind_context, forget_request, new_context, request_context
from scaleobs.logs.output import JSONFormatter

__all__ = [
    "JSONFormatter",
    "bind_context",
    "configure_logging",
    "forget_request",
    "get_logger",
    "is_configured",
    "mark_logged",
    "new_context",
    "own_logger",
    "request_context",
    "take_server_loggers",
]
