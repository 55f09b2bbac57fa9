"""
scaleobs, as its users have it; the only file that uses its internals.

Requests go through what `instrument` returns and are read back from `/metrics`. Only the scrape and the memory
of many label sets need a way in that no user has (`fill`): as many requests would take minutes.
"""

from __future__ import annotations

import re
from typing import Any

_SAMPLE = re.compile(r"^http_requests_total\{([^}]*(?:\{[^}]*\}[^}]*)*)\} (\S+)$", re.MULTILINE)

METRICS_ALONE: dict[str, Any] = {"log_format": "off"}
"""No line for a request, and nothing bound for the lines of others."""

EVERYTHING: dict[str, Any] = {"log_format": "json", "log_level": "info"}
"""Metrics, request id, and one JSON line per request to stdout, which a worker has sent to /dev/null."""


def instrumented(app: Any, settings: dict[str, Any], registry: Any = None) -> Any:
    """Return an instrumented application, on its own registry unless one is given."""
    from prometheus_client import CollectorRegistry

    import scaleobs

    return scaleobs.instrument(
        app,
        service="benchmark",
        registry=CollectorRegistry() if registry is None else registry,
        max_label_sets=100_000,
        **settings,
    )


def counted(page: bytes, route: str) -> float:
    """Return how many answered requests of a route a page of `/metrics` shows."""
    samples = _SAMPLE.findall(page.decode())
    expected = f'route="{route}"', 'status_code="200"'
    return sum(float(value) for labels, value in samples if all(label in labels for label in expected))


def fill(app: Any, observations: list[tuple[tuple[str, str, str], float]]) -> None:
    """Count requests of these labels and seconds without the application."""
    import scaleobs

    shard = scaleobs.observer_of(app)._service.storage.local.shard
    for labels, seconds in observations:
        shard.child_of(labels).observe(seconds)
