"""What a format of the exposition has to be able to do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from prometheus_client.core import Metric

from scaleobs.catalog import Metric as Family
from scaleobs.metrics.series import Exemplar, Labels, Series

Chunks = Iterable[list[bytes]]
"""Samples, so few at a time that making them takes less than a millisecond."""

PIECE = 1 << 16
"""About how many bytes are handed on at a time."""

MAX_EXEMPLAR_RUNES = 128
"""OpenMetrics 1.0, "Exemplars": the combined length of an exemplar's label names and values."""


class Format(Protocol):
    """
    Writes families.

    Our own ones, of which there may be many thousand series of one shape, are written from a template: `body` makes a
    sample's bytes without its labels, `placed` puts these in. Whatever else a registry holds goes through `family`.
    Everything here yields pieces of some 64 KiB; an empty one is a pause within longer work.
    """

    content_type: str
    end: bytes
    has_exemplars: bool

    def labels(self, names: tuple[str, ...], values: Labels) -> bytes:
        """Return the labels of a series as they stand within a sample."""
        ...

    def counter(self, name: bytes, labels: bytes, value: float, exemplar: Exemplar | None) -> bytes:
        """Return the sample of a counter."""
        ...

    def template(self, family: Family, bounds: tuple[float, ...]) -> Any:
        """Return what the series of a histogram with these bounds share; the same object for the same arguments."""
        ...

    def body(self, template: Any, series: Series, cumulated: list[float], seconds: float) -> bytes:
        """Return the samples of a histogram's series without their labels; the counts are cumulated, `+Inf` last."""
        ...

    def placed(self, body: bytes, labels: bytes) -> bytes:
        """Return the samples with their labels."""
        ...

    def framed(self, family: Family, chunks: Chunks) -> Iterator[bytes]:
        """Yield one of our families."""
        ...

    def family(self, metric: Metric) -> Iterator[bytes]:
        """Yield a family of prometheus_client."""
        ...


def is_shown(exemplar: Exemplar) -> bool:
    """Return whether an exemplar of ours is a legal one."""
    trace_id, span_id = exemplar.trace_id, exemplar.span_id
    runes = len("trace_id") + len(trace_id) + len("span_id") + len(span_id)
    return runes <= MAX_EXEMPLAR_RUNES and (trace_id + span_id).isalnum() and (trace_id + span_id).isascii()
