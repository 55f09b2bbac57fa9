"""
Which trace a request belongs to; silent without OpenTelemetry.

`w3c` reads what the client sent, and `current` asks OpenTelemetry where the application has loaded it.
"""

from __future__ import annotations

from scaleobs.tracing.current import current_span, is_configured
from scaleobs.tracing.w3c import Span, parse_traceparent, parse_tracestate

__all__ = ["Span", "current_span", "is_configured", "parse_traceparent", "parse_tracestate"]
