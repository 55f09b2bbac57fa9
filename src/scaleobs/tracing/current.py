"""Which span is current, by OpenTelemetry where the application has loaded it."""

from __future__ import annotations

import sys

from scaleobs.tracing.w3c import SAMPLED, Span


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
    return Span(f"{context.trace_id:032x}", f"{context.span_id:016x}", bool(context.trace_flags & SAMPLED))


def is_configured() -> bool:
    """Return whether the application has set OpenTelemetry up to make spans; that it can be imported says nothing."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return False
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider | trace.NoOpTracerProvider)
