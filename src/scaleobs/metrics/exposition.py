"""What a scrape reads: the text of a registry, in the format and the encoding asked for."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

_TEXT = "text/plain; version=0.0.4; charset=utf-8"
_OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def expose(
    registry: CollectorRegistry, *, accept: str, accept_encoding: str, names: Sequence[str] = ()
) -> tuple[list[tuple[str, str]], bytes]:
    """
    Return the headers and the body of a scrape.

    Args:
        registry: whose metrics to show.
        accept: the `Accept` header: OpenMetrics 1.0 where it is preferred, otherwise the text format 0.0.4.
        accept_encoding: the `Accept-Encoding` header: gzip where it is accepted.
        names: the `name[]` parameters; where there are any, only these families are shown.
    """
    shown = registry.restricted_registry(list(names)) if names else registry
    weights = dict(_weights(accept))
    openmetrics = weights.get("application/openmetrics-text", 0.0)
    if openmetrics > 0 and openmetrics >= weights.get("text/plain", 0.0):
        body, content_type = generate_openmetrics(shown), _OPENMETRICS  # type: ignore[no-untyped-call]
    else:
        body, content_type = generate_latest(shown), _TEXT
    headers = [("Content-Type", content_type), ("Vary", "Accept, Accept-Encoding")]
    if dict(_weights(accept_encoding)).get("gzip", 0.0) > 0:
        body = gzip.compress(body, compresslevel=1)
        headers.append(("Content-Encoding", "gzip"))
    return headers, body


def _weights(header: str) -> Iterator[tuple[str, float]]:
    """Yield what a header accepts with its weight (RFC 9110, section 12.4.2); one that is no number counts as 0."""
    for part in header.lower().split(","):
        name, *parameters = (piece.strip() for piece in part.split(";"))
        weight = next((p.removeprefix("q=") for p in parameters if p.startswith("q=")), "1")
        try:
            yield name, float(weight)
        except ValueError:
            yield name, 0.0
