"""The text format 0.0.4, which everything reads."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric, Sample

from scaleobs.metrics import lines

# What OpenMetrics has and this format has not: another type, a name that says which.
_KINDS = {"info": "gauge", "stateset": "gauge", "gaugehistogram": "histogram", "unknown": "untyped"}
_SUFFIXES = {"counter": "_total", "info": "_info"}
_APART = ("_created", "_gcount", "_gsum")
"""Samples that only OpenMetrics has within a family; here each kind is a gauge of its own behind it."""


class Text(lines.Lines):
    """Writes the text format 0.0.4."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"
    end = b""

    def head(self, name: str, kind: str, documentation: str) -> str:
        """Return what stands above a family's samples."""
        name, told = lines.legal(name), str(documentation).replace("\\", r"\\").replace("\n", r"\n")
        return f"# HELP {name} {told}\n# TYPE {name} {kind}\n"

    def family(self, metric: Metric) -> Iterator[bytes]:
        """Yield a family of prometheus_client, as its own `generate_latest` writes it."""
        yield from lines.pieces(self._lines(metric))

    def _lines(self, metric: Metric) -> Iterator[str]:
        kind = _KINDS.get(metric.type, metric.type)
        name = metric.name + _SUFFIXES.get(metric.type, "")
        apart = {metric.name + suffix for suffix in _APART}
        yield self.head(name, kind, metric.documentation)
        yield from lines.each(_line, (sample for sample in metric.samples if sample.name not in apart))
        for other in sorted(apart & {sample.name for sample in metric.samples}):
            yield self.head(other, "gauge", metric.documentation)
            yield from lines.each(_line, (sample for sample in metric.samples if sample.name == other))


def _line(sample: Sample) -> str:
    shown = lines.sample_text(sample.name, sample.labels, sample.value)
    if sample.timestamp is None:
        return shown + "\n"
    return f"{shown} {int(float(sample.timestamp) * 1000)}\n"
