"""OpenMetrics 1.0, which has exemplars."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Exemplar as Foreign
from prometheus_client.core import Metric, Sample

from scaleobs.catalog import Metric as Family
from scaleobs.metrics import lines
from scaleobs.metrics.formats import MAX_EXEMPLAR_RUNES, is_shown
from scaleobs.metrics.series import Exemplar, Series


class OpenMetrics(lines.Lines):
    """Writes OpenMetrics 1.0."""

    content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8"
    end = b"# EOF\n"
    has_exemplars = True

    def counter(self, name: bytes, labels: bytes, value: float, exemplar: Exemplar | None) -> bytes:
        """Return the sample of a counter."""
        line = super().counter(name, labels, value, None)
        # What an exemplar of a counter says is how much it added (OpenMetrics 1.0, "Counter").
        return line if exemplar is None else b"%b%b\n" % (line[:-1], _exemplar(exemplar, 1.0))

    def body(self, template: bytes, series: Series, cumulated: list[float], seconds: float) -> bytes:
        """Return the lines of a series without its labels; a bucket's exemplar stands behind it."""
        body = super().body(template, series, cumulated, seconds)
        if not series.exemplars:
            return body
        shown = body.split(b"\n")
        for position, exemplar in series.exemplars.copy().items():
            if position < len(cumulated) and is_shown(exemplar):
                shown[position] += _exemplar(exemplar, exemplar.value)
        return b"\n".join(shown)

    def shown_name(self, family: Family) -> str:
        """Return the name that stands above our family: a counter's `_total` belongs to its samples."""
        return family.name.removesuffix("_total") if family.kind == "counter" else family.name

    def head(self, name: str, kind: str, documentation: str) -> str:
        """Return what stands above a family's samples."""
        name = lines.legal(name)
        return f"# HELP {name} {lines.escaped(documentation)}\n# TYPE {name} {kind}\n"

    def family(self, metric: Metric) -> Iterator[bytes]:
        """Yield a family of prometheus_client, as its own OpenMetrics writer does."""
        yield from lines.pieces(self._lines(metric))

    def _lines(self, metric: Metric) -> Iterator[str]:
        yield self.head(metric.name, metric.type, metric.documentation)
        if metric.unit:
            yield f"# UNIT {lines.legal(metric.name)} {metric.unit}\n"
        suffix = {"counter": "_total", "histogram": "_bucket", "gaugehistogram": "_bucket"}.get(metric.type)
        with_exemplars = metric.name + suffix if suffix else None

        def line(sample: Sample) -> str:
            shown = lines.sample_text(sample.name, sample.labels, sample.value)
            if sample.timestamp is not None:
                shown = f"{shown} {sample.timestamp}"
            if sample.exemplar and sample.name == with_exemplars:
                shown += _foreign(sample.exemplar)
            return shown + "\n"

        # A native histogram has no text in this version of the format.
        shown = (sample for sample in metric.samples if getattr(sample, "native_histogram", None) is None)
        yield from lines.each(line, shown)


def _exemplar(exemplar: Exemplar, value: float) -> bytes:
    ids = exemplar.trace_id.encode(), exemplar.span_id.encode()
    return b' # {trace_id="%b",span_id="%b"} %a %.3f' % (*ids, value, exemplar.timestamp)


def _foreign(exemplar: Foreign) -> str:
    """Return an exemplar of the user's; nothing where it is longer than the format allows."""
    if sum(len(name) + len(value) for name, value in exemplar.labels.items()) > MAX_EXEMPLAR_RUNES:
        return ""
    shown = f" # {{{lines.labels_text(sorted(exemplar.labels.items()))}}} {lines.number(exemplar.value)}"
    return shown if exemplar.timestamp is None else f"{shown} {exemplar.timestamp}"
