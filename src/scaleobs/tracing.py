"""Which trace a request belongs to; silent without OpenTelemetry."""

from __future__ import annotations

import re
import sys
from typing import NamedTuple

_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII
)


_SAMPLED = 0x01


class Span(NamedTuple):
    """A span of a trace: its ids as lower-case hexadecimal, and whether it is recorded somewhere."""

    trace_id: str
    span_id: str
    is_sampled: bool


def parse_traceparent(header: str) -> Span | None:
    """
    Return the parent span that a `traceparent` header names, or `None` where it is not valid.

    Version 00 has four fields; a later version may add more (W3C Trace Context, section 3.2.2 and 4.3).
    """
    header = header.strip(" \t")
    match = _TRACEPARENT.fullmatch(header)
    if match is None or (match[4] is not None and header.startswith("00")):
        return None
    return Span(match[1], match[2], bool(int(match[3], 16) & _SAMPLED))


def current_span() -> Span | None:
    """
    Return the current OpenTelemetry span, or `None`.

    OpenTelemetry is asked only where the application has loaded it already: scaleobs never imports it.
    """
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return Span(f"{context.trace_id:032x}", f"{context.span_id:016x}", bool(context.trace_flags & _SAMPLED))


def is_configured() -> bool:
    """Return whether the application has set OpenTelemetry up to make spans; that it can be imported says nothing."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return False
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider | trace.NoOpTracerProvider)
