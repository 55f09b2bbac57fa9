"""The trace of a request: `traceparent`, or the current span."""

from __future__ import annotations

import subprocess
import sys

import pytest

from scaleobs._tracing import current_span, parse_traceparent

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    "header",
    [
        f"00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-00",
        f"00-{TRACE}-{SPAN}-ff",
        f" \t00-{TRACE}-{SPAN}-01 \t",
        f"01-{TRACE}-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01",
        f"cc-{TRACE}-{SPAN}-01-what-the-future-holds",
        f"cc-{TRACE}-{SPAN}-01-",
    ],
)
def test_valid_header(header):
    """Version 00 has four fields; a later version may have more after them (W3C Trace Context, 4.3)."""
    assert (TRACE, SPAN) == parse_traceparent(header)[:2]


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00",
        TRACE,
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01-",
        f"00-{TRACE}-{SPAN}-01-more",
        f"cc-{TRACE}-{SPAN}-01.more",
        f"cc-{TRACE}-{SPAN}-01more",
        f"ff-{TRACE}-{SPAN}-01",
        f"0-{TRACE}-{SPAN}-01",
        f"000-{TRACE}-{SPAN}-01",
        f".0-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}0-{SPAN}-01",
        f"00-{TRACE}-{SPAN}0-01",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-001",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN.upper()}-01",
        f"00-{TRACE[:-1]}.-{SPAN}-01",
        f"00-{TRACE[:-1]}٣-{SPAN}-01",
        f"00_{TRACE}_{SPAN}_01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"00-{TRACE}-{SPAN}-01, 00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01,",
        f"\x0b00-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-0x",
        "-" * 10_000,
    ],
)
def test_invalid_header(header):
    """Wrong lengths, zeros, capitals, version ff and two headers in one are invalid."""
    assert parse_traceparent(header) is None


def test_no_span_without_opentelemetry():
    """If the application has not loaded OpenTelemetry, there is no span, and nothing is loaded."""
    code = "import sys; from scaleobs._tracing import current_span; assert current_span() is None"
    code += "; assert 'opentelemetry' not in sys.modules"

    assert 0 == subprocess.run([sys.executable, "-c", code], timeout=30, check=False).returncode


def test_current_span():
    """The result is OpenTelemetry's current span if it is valid."""
    trace = pytest.importorskip("opentelemetry.trace")
    span = trace.NonRecordingSpan(trace.SpanContext(int(TRACE, 16), int(SPAN, 16), is_remote=False))
    with trace.use_span(span):
        found = current_span()

    assert (TRACE, SPAN, False) == found
    assert current_span() is None
