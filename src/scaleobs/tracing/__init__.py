"""
Which trace a request belongs to, and its span; silent without OpenTelemetry.

`w3c` reads what the client sent, `current` asks OpenTelemetry where the application has loaded it, `server` makes the
span of a request where a provider is set, and `export` sets one where the environment names an endpoint.
"""

from __future__ import annotations

from scaleobs.tracing.current import current_span, is_configured
from scaleobs.tracing.server import RequestSpan, Spans, mark, request_attributes
from scaleobs.tracing.w3c import Span, parse_traceparent, parse_tracestate

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
