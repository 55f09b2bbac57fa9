"""The Elastic Common Schema: the same line under the names that Elastic's tools expect."""

from __future__ import annotations

from typing import Any

from structlog.typing import EventDict

ECS_VERSION = "8.11.0"

NAMES = {
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
"""Our names, and theirs; `http.route` is OpenTelemetry's, since theirs has none. Others stay as they are."""


def rename(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Give a line the names of the Elastic Common Schema, the three that its log readers look for first in front."""
    line: EventDict = {}
    for key, value in event.items():
        if key == "duration_seconds" and isinstance(value, int | float):
            line["event.duration"] = round(value * 1e9)  # Nanoseconds.
            continue
        name = NAMES.get(key, key)
        # What the application calls by one of their names.
        while name in line or (name == key and name in _THEIRS):
            name += "_"
        line[name] = value
        if key == "event":
            line["ecs.version"] = ECS_VERSION
    return line


_THEIRS = frozenset({*NAMES.values(), "ecs.version", "event.duration"})
