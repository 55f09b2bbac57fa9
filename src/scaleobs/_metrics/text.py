"""The formats of the exposition: their common protocol, the text format 0.0.4 and OpenMetrics 1.0."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Protocol

from prometheus_client.core import Exemplar as UserExemplar
from prometheus_client.core import Metric, Sample

from scaleobs._metrics.child import Child, Exemplar, Labels
from scaleobs.catalog import Metric as Family

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

    def body(self, template: Any, series: Child, cumulated: list[float], seconds: float) -> bytes:
        """Return the samples of a histogram's series without their labels; the counts are cumulated, `+Inf` last."""
        ...

    def with_labels(self, body: bytes, labels: bytes) -> bytes:
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


_LINES = 256
"""How many lines are made before their length is checked: about half a millisecond."""

_LABELS_MARK = b"\xff"
"""Marks the place of the labels in a template: a byte that UTF-8 doesn't have."""

_ILLEGAL = re.compile(r"^[0-9]|[^a-zA-Z0-9_:]")
_SPECIAL = {"inf": "+Inf", "-inf": "-Inf", "nan": "NaN"}

_templates: dict[tuple[str, tuple[float, ...]], bytes] = {}


class Lines:
    """Writes our series. The bodies are the same in both formats, so that text kept for one serves the other."""

    has_exemplars = False

    def labels(self, names: tuple[str, ...], values: Labels) -> bytes:
        """Return the labels of a series as they stand within a sample."""
        return encoded(labels_text(zip(names, values, strict=True)))

    def counter(self, name: bytes, labels: bytes, value: float, exemplar: Exemplar | None) -> bytes:
        """Return the sample of a counter."""
        del exemplar
        return b"%b{%b} %d\n" % (name, labels, value)

    def template(self, family: Family, bounds: tuple[float, ...]) -> bytes:
        """Return the lines of a series, with a place for the labels and one for each number."""
        found = _templates.get((family.name, bounds))
        if found is None:
            name, mark = family.name.encode(), _LABELS_MARK
            ends = [*(number(bound).encode() for bound in bounds), b"+Inf"]
            buckets = [b'%b_bucket{%b,le="%b"} %%d\n' % (name, mark, end) for end in ends]
            totals = b"%b_count{%b} %%d\n%b_sum{%b} %%a\n" % (name, mark, name, mark)
            found = _templates.setdefault((family.name, bounds), b"".join(buckets) + totals)
        return found

    def body(self, template: bytes, series: Child, cumulated: list[float], seconds: float) -> bytes:
        """Return the lines of a series without its labels."""
        del series
        return template % (*cumulated, cumulated[-1], seconds)

    def with_labels(self, body: bytes, labels: bytes) -> bytes:
        """Return the lines of a series."""
        return body.replace(_LABELS_MARK, labels)

    def framed(self, family: Family, chunks: Chunks) -> Iterator[bytes]:
        """Yield one of our families."""
        yield encoded(self.head(self.exposed_name(family), family.kind, family.help))
        for chunk in chunks:
            yield b"".join(chunk)

    def exposed_name(self, family: Family) -> str:
        """Return the name that stands above our family."""
        return family.name

    def head(self, name: str, kind: str, documentation: str) -> str:
        """Return what stands above a family's samples."""
        raise NotImplementedError


def pieces(lines: Iterable[str]) -> Iterator[bytes]:
    """Yield lines, many at a time."""
    waiting: list[str] = []
    length = 0
    try:
        for line in lines:
            waiting.append(line)
            length += len(line)
            if len(waiting) >= _LINES or length >= PIECE:
                yield encoded("".join(waiting))
                waiting.clear()
                length = 0
    except Exception:
        yield encoded("".join(waiting))
        raise
    yield encoded("".join(waiting))


def each(line: Callable[[Sample], str], samples: Iterable[Sample]) -> Iterator[str]:
    """
    Yield the line of each sample. One that has none is left out, and no other with it.

    Raises:
        Exception: after the last line, what was wrong with the first sample that was left out.
    """
    fault: Exception | None = None
    for sample in samples:
        try:
            shown = line(sample)
        except Exception as error:
            fault = fault or error
            continue
        yield shown
    if fault is not None:
        raise fault


def labels_text(labels: Iterable[tuple[str, str]]) -> str:
    """Return label pairs as they stand between braces."""
    return ",".join([f'{legal(name)}="{escaped(value)}"' for name, value in labels])


def sample_text(name: str, labels: Mapping[str, str], value: float) -> str:
    """Return a sample up to its value."""
    braced = f"{{{labels_text(sorted(labels.items()))}}}" if labels else ""
    return f"{legal(name)}{braced} {number(value)}"


def escaped(text: str) -> str:
    """Return what may stand between quotes."""
    return str(text).replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


@lru_cache(maxsize=4096)
def legal(name: str) -> str:
    """Return a name in the characters that every Prometheus accepts, as prometheus_client does by default."""
    return _ILLEGAL.sub("_", name)


def number(value: float) -> str:
    """Return a number as all formats read it."""
    shown = repr(float(value))
    return _SPECIAL.get(shown, shown)


def encoded(text: str) -> bytes:
    """Return UTF-8; a lone surrogate, which has none, becomes a question mark."""
    return text.encode("utf-8", "replace")


# What OpenMetrics has and this format has not: another type, a name that says which.
_KINDS = {"info": "gauge", "stateset": "gauge", "gaugehistogram": "histogram", "unknown": "untyped"}
_SUFFIXES = {"counter": "_total", "info": "_info"}
_OPENMETRICS_ONLY = ("_created", "_gcount", "_gsum")
"""Samples that only OpenMetrics has within a family; here each kind is a gauge of its own behind it."""


class Text(Lines):
    """Writes the text format 0.0.4."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"
    end = b""

    def head(self, name: str, kind: str, documentation: str) -> str:
        """Return what stands above a family's samples."""
        name, text = legal(name), str(documentation).replace("\\", r"\\").replace("\n", r"\n")
        return f"# HELP {name} {text}\n# TYPE {name} {kind}\n"

    def family(self, metric: Metric) -> Iterator[bytes]:
        """Yield a family of prometheus_client, as its own `generate_latest` writes it."""
        yield from pieces(self._lines(metric))

    def _lines(self, metric: Metric) -> Iterator[str]:
        kind = _KINDS.get(metric.type, metric.type)
        name = metric.name + _SUFFIXES.get(metric.type, "")
        openmetrics_only = {metric.name + suffix for suffix in _OPENMETRICS_ONLY}
        yield self.head(name, kind, metric.documentation)
        yield from each(_line, (sample for sample in metric.samples if sample.name not in openmetrics_only))
        for other in sorted(openmetrics_only & {sample.name for sample in metric.samples}):
            yield self.head(other, "gauge", metric.documentation)
            yield from each(_line, (sample for sample in metric.samples if sample.name == other))


def _line(sample: Sample) -> str:
    shown = sample_text(sample.name, sample.labels, sample.value)
    if sample.timestamp is None:
        return shown + "\n"
    return f"{shown} {int(float(sample.timestamp) * 1000)}\n"


class OpenMetrics(Lines):
    """Writes OpenMetrics 1.0."""

    content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8"
    end = b"# EOF\n"
    has_exemplars = True

    def counter(self, name: bytes, labels: bytes, value: float, exemplar: Exemplar | None) -> bytes:
        """Return the sample of a counter."""
        line = super().counter(name, labels, value, None)
        # The value of a counter's exemplar is how much it added (OpenMetrics 1.0, "Counter").
        return line if exemplar is None else b"%b%b\n" % (line[:-1], _exemplar(exemplar, 1.0))

    def body(self, template: bytes, series: Child, cumulated: list[float], seconds: float) -> bytes:
        """Return the lines of a series without its labels; a bucket's exemplar stands behind it."""
        body = super().body(template, series, cumulated, seconds)
        if not series.exemplars:
            return body
        shown = body.split(b"\n")
        for position, exemplar in series.exemplars.copy().items():
            if position < len(cumulated) and is_shown(exemplar):
                shown[position] += _exemplar(exemplar, exemplar.value)
        return b"\n".join(shown)

    def exposed_name(self, family: Family) -> str:
        """Return the name that stands above our family: a counter's `_total` belongs to its samples."""
        return family.name.removesuffix("_total") if family.kind == "counter" else family.name

    def head(self, name: str, kind: str, documentation: str) -> str:
        """Return what stands above a family's samples."""
        name = legal(name)
        return f"# HELP {name} {escaped(documentation)}\n# TYPE {name} {kind}\n"

    def family(self, metric: Metric) -> Iterator[bytes]:
        """Yield a family of prometheus_client, as its own OpenMetrics writer does."""
        yield from pieces(self._lines(metric))

    def _lines(self, metric: Metric) -> Iterator[str]:
        yield self.head(metric.name, metric.type, metric.documentation)
        if metric.unit:
            yield f"# UNIT {legal(metric.name)} {metric.unit}\n"
        suffix = {"counter": "_total", "histogram": "_bucket", "gaugehistogram": "_bucket"}.get(metric.type)
        with_exemplars = metric.name + suffix if suffix else None

        def line(sample: Sample) -> str:
            shown = sample_text(sample.name, sample.labels, sample.value)
            if sample.timestamp is not None:
                shown = f"{shown} {sample.timestamp}"
            if sample.exemplar and sample.name == with_exemplars:
                shown += _user_exemplar(sample.exemplar)
            return shown + "\n"

        # A native histogram has no text in this version of the format.
        shown = (sample for sample in metric.samples if getattr(sample, "native_histogram", None) is None)
        yield from each(line, shown)


def _exemplar(exemplar: Exemplar, value: float) -> bytes:
    ids = exemplar.trace_id.encode(), exemplar.span_id.encode()
    return b' # {trace_id="%b",span_id="%b"} %a %.3f' % (*ids, value, exemplar.timestamp)


def _user_exemplar(exemplar: UserExemplar) -> str:
    """Return an exemplar of the user's; nothing if it is longer than the format allows."""
    if sum(len(name) + len(value) for name, value in exemplar.labels.items()) > MAX_EXEMPLAR_RUNES:
        return ""
    shown = f" # {{{labels_text(sorted(exemplar.labels.items()))}}} {number(exemplar.value)}"
    return shown if exemplar.timestamp is None else f"{shown} {exemplar.timestamp}"
