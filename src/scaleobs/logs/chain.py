"""
The processor chain: small functions of one shape, in the order in which they run.

`processors` returns it as a list, which `configure_logging(processors=...)` takes back in any other order, with more or
with fewer. Lines of structlog and of the standard library go through the same one; the latter have their record as
`_record`, as structlog has it. Every list ends with what makes the line.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

import structlog
from structlog.typing import EventDict, Processor

from scaleobs import tracing
from scaleobs.logs import ecs, encoding, exceptions, fitting
from scaleobs.logs.context import request_context
from scaleobs.logs.encoding import DELETE, OPTION, dumps, plain
from scaleobs.logs.fitting import LONGEST
from scaleobs.logs.redaction import Redact

REQUEST_KEYS = ("request_id", "trace_id", "span_id")

_LOGGED_MARK = "_scaleobs_logged"
_LEVELS = {"exception": "error", "warn": "warning", "fatal": "critical", "msg": "info", "notset": "debug"}
# structlog keeps each variable that was ever bound here; looking through the whole context costs a microsecond.
_bound: Mapping[str, ContextVar[Any]] | None = getattr(structlog.contextvars, "_CONTEXT_VARS", None)
_PREFIX = len(getattr(structlog.contextvars, "STRUCTLOG_KEY_PREFIX", ""))


def processors(
    service: str | None = None, version: str = "unknown", *, schema: str = "scaleobs", redact: Iterable[str] = ()
) -> list[Processor]:
    """
    Return the chain that makes one line of JSON of an event.

    Args:
        service: added to every line; left out where it is not given.
        version: added beside it.
        schema: `scaleobs`, or `ecs` for the Elastic Common Schema.
        redact: see `Redact`.
    """
    return [
        add_bound_values,
        add_request,
        format_exception,
        Redact(redact),
        AddStandardKeys(service, version),
        *([ecs.rename] if schema == "ecs" else []),
        render_json,
    ]


def console(redact: Iterable[str] = ()) -> list[Processor]:
    """Return the chain that makes a coloured line for a person."""
    return [
        add_bound_values,
        add_request,
        tell_exception_once,
        Redact(redact),
        AddStandardKeys(),
        structlog.dev.ConsoleRenderer(),
    ]


def add_bound_values(logger: Any, method: str, event: EventDict) -> EventDict:
    """Add what `structlog.contextvars` has bound; what the line says itself counts more."""
    if _bound is None:
        return structlog.contextvars.merge_contextvars(logger, method, event)
    if _bound:
        for name, variable in list(_bound.items()):
            value = variable.get(...)
            if value is not ...:
                event.setdefault(name[_PREFIX:], value)
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


class AddStandardKeys:
    """
    Puts what every line has in front: timestamp, level, event, logger, service, version, and what identifies a request.

    What the application calls by one of those names is kept with an underscore behind it.

    Args:
        service: left out where it is not given, and the version with it.
        version: which release runs.
    """

    def __init__(self, service: str | None = None, version: str = "unknown") -> None:
        self._own = dict.fromkeys(("timestamp", "level", "event", "logger"), "")
        if service is not None:
            self._own |= {"service": service, "version": version}

    def __call__(self, logger: Any, method: str, event: EventDict) -> EventDict:
        """Add them."""
        if "_record" in event:
            record = event.pop("_record")
            seconds, name = record.created, record.name
        else:
            seconds, name = time.time(), getattr(logger, "name", "root")
        try:
            said = event["event"]
        except KeyError:
            said = event["event"] = ""
        # A request's come first, since `add_request` puts them there.
        if next(iter(event), None) != "request_id" and ("request_id" in event or "trace_id" in event):
            event = {**{key: event[key] for key in REQUEST_KEYS if key in event}, **event}
        # Log stores expect a string of the event's key. uvicorn ends some with a line break.
        text = (said if type(said) is str else encoding.text(said)).rstrip("\n")
        level = _LEVELS.get(method, method)
        at = timestamp(seconds)
        own = self._own
        # Both have `event`. Dicts that are copied and merged whole take half the time of others.
        line = own.copy()
        line["timestamp"] = at
        line["level"] = level
        line["logger"] = name
        line |= event
        if len(line) == len(own) + len(event) - 1:
            if text is not said:
                line["event"] = text
            return line
        line = {**own, "timestamp": at, "level": level, "event": text, "logger": name}
        for key, value in event.items():
            if key != "event":
                keep(line, key, value)
        return line


def keep(line: EventDict, key: str, value: Any) -> None:
    """Add a value to a line, under a name of its own where another one has that name."""
    while key in line and line[key] is not value:
        key += "_"
    line[key] = value


def timestamp(seconds: float) -> str:
    """Return a time as RFC 3339 in UTC, with microseconds."""
    global _second  # noqa: PLW0603 - Most lines are of the same second as the one before.
    whole = int(seconds)
    known = _second
    if known[0] != whole:
        known = _second = whole, datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S.%%06dZ")
    return known[1] % ((seconds - whole) * 1e6)  # Half the time of an f-string's.


_second = (-1, "")


def tell_exception_once(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Leave out an exception that a line of ours has told already; the server is handed the same one."""
    error = event.get("exc_info")
    if error is None:
        return event
    error = error[1] if isinstance(error, tuple) else error
    if isinstance(error, BaseException) and getattr(error, _LOGGED_MARK, False):
        del event["exc_info"]
    return event


def format_exception(logger: Any, method: str, event: EventDict) -> EventDict:
    """Make text of an exception; `truncated` says where that is not all of it."""
    if "exc_info" in event and "exc_info" in tell_exception_once(logger, method, event):
        error = exceptions.exception_of(event.pop("exc_info"))
        if error is not None:
            told, is_cut = exceptions.told(error)
            if "exception" in event:
                keep(event, "exception_", event["exception"])
            event["exception"] = told
            if is_cut:
                event["truncated"] = True
    return event


def render_json(_logger: Any, _method: str, event: EventDict) -> bytes:
    """Return the event as one line of JSON, whatever is in it and however much."""
    try:
        line = dumps(event, plain, OPTION)
    except Exception:  # Whatever a value of the application's raises.
        return fitting.line_of(event)
    # Nearly all lines are short and plain, and this is all that there is to be done for them.
    if len(line) < LONGEST and line.isascii() and DELETE not in line:
        return line
    return fitting.line_of(event)


def mark_logged(error: BaseException) -> None:
    """Remember on an exception that its stack trace has been written."""
    try:
        setattr(error, _LOGGED_MARK, True)
    except (AttributeError, TypeError):  # An exception with slots; it is told twice, which loses nothing.
        return
