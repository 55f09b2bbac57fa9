"""The processor chain: small functions of one shape, in the order in which they run."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import structlog
from structlog.typing import EventDict, Processor

from scaleobs import tracing
from scaleobs.logs import encoding
from scaleobs.logs.context import request_context

FIRST_KEYS = ("timestamp", "level", "event", "logger", "service", "version", "request_id", "trace_id", "span_id")
"""The keys that a person looks for, in the order in which they stand; the others follow."""

_add_extra = structlog.stdlib.ExtraAdder()
_LOGGED_MARK = "_scaleobs_logged"


def processors(service: str | None = None, version: str = "unknown") -> list[Processor]:
    """
    Return the chain up to rendering.

    Args:
        service: added to every line; left out where it is not given.
        version: added beside it.
    """
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        add_timestamp,
        add_request,
        *([] if service is None else [AddService(service, version)]),
        make_event_text,
        drop_server_colours,
        tell_exception_once,
    ]


def add_extra(logger: Any, method: str, event: EventDict) -> EventDict:
    """Add what a stdlib record's `extra` brought, which must not replace what was said."""
    said = event["event"]
    event = _add_extra(logger, method, event)
    event["event"] = said
    # What a formatter before ours leaves on the record.
    event.pop("message", None)
    event.pop("asctime", None)
    return event


def add_timestamp(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Add the time as RFC 3339 in UTC."""
    event["timestamp"] = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return event


def add_request(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Add what identifies the request that is being served, and the current OpenTelemetry span where there is one."""
    if "request_id" in event:  # An access line: it says itself which request and which span it is of.
        return event
    context = request_context.get()
    span = tracing.current_span()
    if span is not None:
        event["trace_id"], event["span_id"] = span.trace_id, span.span_id
    # In one step, since another thread of the request may bind meanwhile.
    return event if context is None else {**context, **event}


class AddService:
    """Adds what the service is called."""

    def __init__(self, service: str, version: str) -> None:
        self._service = service
        self._version = version

    def __call__(self, _logger: Any, _method: str, event: EventDict) -> EventDict:
        """Add the service's name and version."""
        event["service"] = self._service
        event["version"] = self._version
        return event


def make_event_text(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Make what was said a string, as log stores expect of one key, without a line break of uvicorn's at its end."""
    event["event"] = encoding.text(event.get("event", "")).rstrip("\n")
    return event


def drop_server_colours(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Leave out uvicorn's copy of a message with escape codes in it."""
    event.pop("color_message", None)
    return event


def tell_exception_once(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Leave out an exception that a line of ours has told already; the server is handed the same one."""
    error = event.get("exc_info")
    error = error[1] if isinstance(error, tuple) else error
    if isinstance(error, BaseException) and getattr(error, _LOGGED_MARK, False):
        del event["exc_info"]
    return event


def render_json(_logger: Any, _method: str, event: EventDict) -> str:
    """Return the event as one line of JSON, whatever is in it."""
    ordered = {key: event.pop(key) for key in FIRST_KEYS if key in event}
    ordered.update(event)
    return encoding.encode(ordered)


def mark_logged(error: BaseException) -> None:
    """Remember on an exception that its stack trace has been written."""
    try:
        setattr(error, _LOGGED_MARK, True)
    except (AttributeError, TypeError):  # An exception with slots; it is told twice, which loses nothing.
        return
