"""
The processor chain: small functions of one shape, in the order in which they run.

`processors` returns it as a list. `configure_logging(processors=...)` accepts the list in another order, with more or
with fewer processors. Lines of structlog and of stdlib logging pass through the same chain; the latter have their
record as `_record`, as in structlog. The last processor returns the finished line.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from typing import Any

import structlog
from structlog.typing import EventDict, Processor

from scaleobs import _tracing
from scaleobs.logs._context import REQUEST_KEYS, request_context, without_ids
from scaleobs.logs._encoding import DELETE, MAX_LINE_BYTES, OPTION, dumps, encode_line, text_of, to_plain
from scaleobs.logs._exceptions import exception_of, exception_text
from scaleobs.logs._handled import is_in_other_line
from scaleobs.logs._redaction import Redact

_LEVELS = {"exception": "error", "warn": "warning", "fatal": "critical", "msg": "info", "notset": "debug"}
# All variables that structlog has ever bound. A search in the whole context would take a microsecond.
_bound: Mapping[str, ContextVar[Any]] | None = getattr(structlog.contextvars, "_CONTEXT_VARS", None)
_PREFIX = len(getattr(structlog.contextvars, "STRUCTLOG_KEY_PREFIX", ""))


def processors(
    service: str | None = None, version: str = "unknown", *, schema: str = "scaleobs", redact: Iterable[str] = ()
) -> list[Processor]:
    """
    Return the chain that makes one line of JSON of an event.

    Args:
        service: a field of every line; `None` leaves it and the version out.
        version: a field of every line.
        schema: `scaleobs`, or `ecs` for the Elastic Common Schema.
        redact: see `Redact`.
    """
    secrets = Redact(redact)
    return [
        add_bound_values,
        add_request,
        FormatException(secrets.part),
        secrets,
        AddStandardKeys(service, version),
        *([rename_to_ecs] if schema == "ecs" else []),
        render_json,
    ]


def console(redact: Iterable[str] = ()) -> list[Processor]:
    """Return the chain that makes a coloured line for a terminal."""
    secrets = Redact(redact)
    return [
        add_bound_values,
        add_request,
        FormatException(secrets.part),
        secrets,
        AddStandardKeys(),
        escape_control,
        # The local variables of a prettier traceback may be secrets.
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback),
    ]


def add_bound_values(logger: Any, method: str, event: EventDict) -> EventDict:
    """Add the values bound by `structlog.contextvars`; fields of the line take precedence."""
    if _bound is None:
        return structlog.contextvars.merge_contextvars(logger, method, event)
    if _bound:
        for name, variable in list(_bound.items()):
            value = variable.get(...)
            if value is not ...:
                event.setdefault(name[_PREFIX:], value)
    return event


def add_request(logger: Any, _method: str, event: EventDict) -> EventDict:
    """Add the fields of the current request, and the ids of the current OpenTelemetry span if there is one."""
    if "request_id" in event and getattr(event.get("_record", logger), "name", None) == "scaleobs":
        return event  # A line of scaleobs itself, such as an access line, has the ids of its request and span.
    context = request_context.get()
    span = _tracing.current_span()
    if context is None and span is None:
        return event
    # In one step, since another thread of the request may bind fields at the same time.
    line: dict[str, Any] = {} if context is None else context.copy()
    if span is not None:
        line["trace_id"], line["span_id"] = span.trace_id, span.span_id
    line |= without_ids(event, line)
    return line


def _name_of(logger: Any, event: EventDict) -> str | None:
    """Return the name of the logger of a line."""
    return getattr(event.get("_record", logger), "name", None)


class AddStandardKeys:
    """
    Adds the keys of every line, in front: timestamp, level, event, logger, service, version, and the request's ids.

    A field of the application with one of these names is kept under the name with an underscore after it.

    Args:
        service: `None` leaves it and the version out.
        version: the release that runs.
    """

    def __init__(self, service: str | None = None, version: str = "unknown") -> None:
        self._own = dict.fromkeys(("timestamp", "level", "event", "logger"), "")
        if service is not None:
            self._own |= {"service": service, "version": version}

    def __call__(self, logger: Any, method: str, event: EventDict) -> EventDict:
        """Return the event with the standard keys."""
        if "_record" in event:
            record = event.pop("_record")
            seconds, name = record.created, record.name or "root"
        else:
            seconds, name = time.time(), getattr(logger, "name", "root")
        try:
            message = event["event"]
        except KeyError:
            message = event["event"] = ""
        # The request's ids come first, since `add_request` puts them there.
        if next(iter(event), None) != "request_id" and ("request_id" in event or "trace_id" in event):
            event = {**{key: event[key] for key in REQUEST_KEYS if key in event}, **event}
        # Log stores expect a string as the event. Some messages of uvicorn end with a line break.
        text = (message if type(message) is str else text_of(message)).rstrip("\n")
        level = _LEVELS.get(method, method)
        at = timestamp(seconds)
        own = self._own
        # Both have `event`. To copy and merge whole dicts takes half the time of single keys.
        line = own.copy()
        line["timestamp"] = at
        line["level"] = level
        line["logger"] = name
        line |= event
        if len(line) == len(own) + len(event) - 1:
            if text is not message:
                line["event"] = text
            return line
        line = {**own, "timestamp": at, "level": level, "event": text, "logger": name}
        for key, value in event.items():
            if key != "event":
                add_renamed(line, key, value)
        return line


def add_renamed(line: EventDict, key: str, value: Any) -> None:
    """Add a value to a line, with underscores after its key if the line has the key with another value."""
    while key in line and line[key] is not value:
        key += "_"
    line[key] = value


def timestamp(seconds: float) -> str:
    """Return seconds since the epoch as RFC 3339 in UTC, with microseconds."""
    global _second  # noqa: PLW0603 - Most lines are of the same second as the line before.
    whole = int(seconds)
    cached = _second
    if cached[0] != whole:
        # `strftime` imports a module, which fails while the interpreter ends.
        year, month, day, hour, minute, second = time.gmtime(whole)[:6]
        cached = _second = whole, f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.%06dZ"
    return cached[1] % ((seconds - whole) * 1e6)  # Half the time of an f-string.


_second = (-1, "")


def drop_logged_exception(logger: Any, _method: str, event: EventDict) -> EventDict:
    """Leave out an exception that is in another line: the framework or the server logs the same one again."""
    error = event.get("exc_info")
    if error is None:
        return event
    try:
        error = error[1] if issubclass(type(error), tuple) else error
    except IndexError:  # It has no exception.
        return event
    if isinstance(error, BaseException) and is_in_other_line(error, _name_of(logger, event)):
        del event["exc_info"]
    return event


class FormatException:
    """
    Replaces `exc_info` by the text `exception`; `truncated` is true if that is not the whole traceback: a processor.

    Args:
        redact: returns a text without its secrets; called for a text of which a part is left out.
    """

    def __init__(self, redact: Callable[[str], str]) -> None:
        self._redact = redact

    def __call__(self, logger: Any, method: str, event: EventDict) -> EventDict:
        """Return the event."""
        if "exc_info" in event and "exc_info" in drop_logged_exception(logger, method, event):
            error = exception_of(event.pop("exc_info"))
            if error is not None:
                text, is_truncated = exception_text(error, self._redact)
                if "exception" in event:
                    add_renamed(event, "exception_", event["exception"])
                event["exception"] = text
                if is_truncated:
                    event["truncated"] = True
        return event


# C0 but for the line break and the tab, DEL, C1, other line breaks, and what changes the direction of a text.
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069]")
_STEERING_IN_FIELDS = re.compile(f"[\\n\\t]|{_STEERING.pattern}")
_OF_SEVERAL_LINES = ("event", "exception", "stack")


def escape_control(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Escape what would steer a terminal, in keys and texts; values of other types are shown as their `repr`."""
    line: EventDict = {}
    for key, value in event.items():
        if isinstance(value, str):
            expression = _STEERING if key in _OF_SEVERAL_LINES else _STEERING_IN_FIELDS
            value = expression.sub(_escaped, value)  # noqa: PLW2901
        line[_STEERING_IN_FIELDS.sub(_escaped, key)] = value
    return line


def _escaped(found: re.Match[str]) -> str:
    return ascii(found[0])[1:-1]


ECS_VERSION = "8.11.0"

ECS_NAMES = {
    "timestamp": "@timestamp",
    "level": "log.level",
    "event": "message",
    "logger": "log.logger",
    "service": "service.name",
    "version": "service.version",
    "request_id": "http.request.id",
    "trace_id": "trace.id",
    "span_id": "span.id",
    "exception": "error.stack_trace",
    "method": "http.request.method",
    "route": "http.route",
    "path": "url.path",
    "status_code": "http.response.status_code",
    "client": "client.address",
}
"""The names of the Elastic Common Schema; `http.route` is OpenTelemetry's, since ECS has none. Others stay."""

_ECS_RESERVED = frozenset({*ECS_NAMES.values(), "ecs.version", "event.duration"})


def rename_to_ecs(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Give a line the names of the Elastic Common Schema, so that Elastic's tools read it."""
    line: EventDict = {}
    for key, value in event.items():
        if key == "duration_seconds" and isinstance(value, int | float):
            line["event.duration"] = round(value * 1e9)  # Nanoseconds.
            continue
        name = ECS_NAMES.get(key, key)
        # A field of the application with a name of the schema.
        while name in line or (name == key and name in _ECS_RESERVED):
            name += "_"
        line[name] = value
        if key == "event":
            line["ecs.version"] = ECS_VERSION
    return line


def render_json(_logger: Any, _method: str, event: EventDict) -> bytes:
    """Return the event as one line of JSON, for any values of any size."""
    try:
        line = dumps(event, to_plain, OPTION)
    except Exception:  # A value of the application raised.
        return encode_line(event)
    # Nearly all lines are short and in ASCII, and are finished at this point.
    if len(line) < MAX_LINE_BYTES and line.isascii() and DELETE not in line:
        return line
    return encode_line(event)
