"""Which trace a request belongs to; silent without OpenTelemetry."""

from __future__ import annotations

import re
import sys

_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(-.*)?", re.ASCII
)


def parse_traceparent(header: str) -> tuple[str, str] | None:
    """
    Return the trace id and the parent's span id of a `traceparent` header, or `None` where it is not valid.

    Version 00 has four fields; a later version may add more (W3C Trace Context, section 3.2.2 and 4.3).
    """
    match = _TRACEPARENT.fullmatch(header.strip(" \t"))
    if match is None or (match[3] is not None and header.strip(" \t").startswith("00")):
        return None
    return match[1], match[2]


def current_span() -> tuple[str, str] | None:
    """
    Return the trace and span id of the current OpenTelemetry span, or `None`.

    OpenTelemetry is asked only where the application has loaded it already: scaleobs never imports it.
    """
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return None
    return f"{context.trace_id:032x}", f"{context.span_id:016x}"
