"""
The trace of a request, and its server span; does nothing without OpenTelemetry.

`context` reads the client's headers and OpenTelemetry's current span. `span` makes the server span of a request if a
provider is set. `export` sets a provider if the environment names an endpoint.
"""

from __future__ import annotations

from scaleobs._tracing.context import Span, current_span, is_configured, parse_traceparent, parse_tracestate
from scaleobs._tracing.span import RequestSpan, Spans, mark, request_attributes

__all__ = [
    "RequestSpan",
    "Span",
    "Spans",
    "current_span",
    "is_configured",
    "mark",
    "parse_traceparent",
    "parse_tracestate",
    "request_attributes",
]
