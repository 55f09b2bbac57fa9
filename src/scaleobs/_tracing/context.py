"""The trace context of a request: that of the client's headers (W3C, level 2), and OpenTelemetry's current span."""

from __future__ import annotations

import re
import sys
from typing import NamedTuple

SAMPLED = 0x01

_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII
)
_MEMBER = re.compile(
    r"([0-9a-z][_0-9a-z\-*/@]{0,255})=([\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e])"
)
_MAX_MEMBERS = 32


class Span(NamedTuple):
    """The ids of a span, in lower-case hexadecimal, and whether it is recorded."""

    trace_id: str
    span_id: str
    is_sampled: bool


def parse_traceparent(header: str) -> Span | None:
    """
    Return the parent span in a `traceparent` header, or `None` if the header is invalid.

    Version 00 has four fields; a later version may add more (sections 3.2.2 and 4.3).
    """
    header = header.strip(" \t")
    match = _TRACEPARENT.fullmatch(header)
    if match is None or (match[4] is not None and header.startswith("00")):
        return None
    return Span(match[1], match[2], bool(int(match[3], 16) & SAMPLED))


def parse_tracestate(header: str) -> dict[str, str]:
    """
    Return the members of a `tracestate` header in their order, and none if the header is invalid.

    Several headers must be joined by commas. Of members with the same key the first one is kept (section 3.3.1).
    """
    members: dict[str, str] = {}
    for listed in header.split(","):
        member = listed.strip(" \t")
        if not member:
            continue
        match = _MEMBER.fullmatch(member)
        if match is None:
            return {}
        members.setdefault(match[1], match[2])
    return members if len(members) <= _MAX_MEMBERS else {}


def current_span() -> Span | None:
    """Return OpenTelemetry's current span, or `None`, also if the application has not imported OpenTelemetry."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return Span(f"{context.trace_id:032x}", f"{context.span_id:016x}", bool(context.trace_flags & SAMPLED))


def is_configured() -> bool:
    """Return whether a provider of OpenTelemetry is set that makes spans."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return False
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider | trace.NoOpTracerProvider)
