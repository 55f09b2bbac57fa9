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
"""Lists of samples; each list takes less than a millisecond to make."""

PIECE = 1 << 16
"""About how many bytes a piece has."""

MAX_EXEMPLAR_RUNES = 128
"""OpenMetrics 1.0, "Exemplars": the combined length of an exemplar's label names and values."""


class Format(Protocol):
    """
    Writes families.

    Our own families may have many thousand series with the same bounds. They are written from a template: `body`
    returns the bytes of a series without its labels, `with_labels` adds these. All other families are written by
    `family`. The generators yield pieces of about 64 KiB; an empty one is a pause.
    """

    content_type: str
    end: bytes
    has_exemplars: bool

    def labels(self, names: tuple[str, ...], values: Labels) -> bytes:
        """Return the labels of a series in the form of a sample."""
        ...

    def counter(self, name: bytes, labels: bytes, value: float, exemplar: Exemplar | None) -> bytes:
        """Return the sample of a counter."""
        ...

    def template(self, family: Family, bounds: tuple[float, ...]) -> Any:
        """Return the common part of the series with these bounds; the same object for the same arguments."""
        ...

    def body(self, template: Any, series: Child, cumulated: list[float], seconds: float) -> bytes:
        """Return the samples of a series without their labels; the counts are cumulated, `+Inf` last."""
        ...

    def with_labels(self, body: bytes, labels: bytes) -> bytes:
        """Return the samples with their labels."""
        ...

    def own_family(self, family: Family, chunks: Chunks) -> Iterator[bytes]:
        """Yield one of our families."""
        ...

    def family(self, metric: Metric) -> Iterator[bytes]:
        """Yield a family of prometheus_client."""
        ...


def is_legal(exemplar: Exemplar) -> bool:
    """Return whether the format allows an exemplar of ours."""
    trace_id, span_id = exemplar.trace_id, exemplar.span_id
    runes = len("trace_id") + len(trace_id) + len("span_id") + len(span_id)
    return runes <= MAX_EXEMPLAR_RUNES and (trace_id + span_id).isalnum() and (trace_id + span_id).isascii()


_LINES = 256
"""The most lines of a piece: about half a millisecond."""

_LABELS_MARK = b"\xff"
"""Marks the place of the labels in a template: a byte that UTF-8 never has."""

_ILLEGAL = re.compile(r"^[0-9]|[^a-zA-Z0-9_:]")
_ILLEGAL_OF_LABELS = re.compile(r"^[0-9]|[^a-zA-Z0-9_]")
_SPECIAL = {"inf": "+Inf", "-inf": "-Inf", "nan": "NaN"}

_templates: dict[tuple[str, tuple[float, ...]], bytes] = {}


class Lines:
    """Writes our series. The bodies are the same in both text formats, so they can be cached for both."""

    has_exemplars = False

    def labels(self, names: tuple[str, ...], values: Labels) -> bytes:
        """Return the labels of a series in the form of a sample."""
        return encoded(labels_text(zip(names, values, strict=True)))

    def counter(self, name: bytes, labels: bytes, value: float, exemplar: Exemplar | None) -> bytes:
        """Return the sample of a counter."""
        del exemplar
        return b"%b{%b} %d\n" % (name, labels, value)

    def template(self, family: Family, bounds: tuple[float, ...]) -> bytes:
        """Return the lines of a series, with a place for the labels and for each number."""
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

    def own_family(self, family: Family, chunks: Chunks) -> Iterator[bytes]:
        """Yield one of our families."""
        yield encoded(self.head(self.exposed_name(family), family.kind, family.help))
        for chunk in chunks:
            yield b"".join(chunk)

    def exposed_name(self, family: Family) -> str:
        """Return the name in the head of one of our families."""
        return family.name

    def head(self, name: str, kind: str, documentation: str) -> str:
        """Return the lines above the samples of a family."""
        raise NotImplementedError


def pieces(lines: Iterable[str]) -> Iterator[bytes]:
    """Yield lines, joined into pieces."""
    pending: list[str] = []
    length = 0
    try:
        for line in lines:
            pending.append(line)
            length += len(line)
            if len(pending) >= _LINES or length >= PIECE:
                yield encoded("".join(pending))
                pending.clear()
                length = 0
    except Exception:
        yield encoded("".join(pending))
        raise
    yield encoded("".join(pending))


def lines_of(line: Callable[[Sample], str], samples: Iterable[Sample]) -> Iterator[str]:
    """
    Yield the line of each sample; a sample whose line cannot be made is left out.

    Raises:
        Exception: the error of the first sample that was left out; raised after the last line.
    """
    fault: Exception | None = None
    for sample in samples:
        try:
            text = line(sample)
        except Exception as error:
            fault = fault or error
            continue
        yield text
    if fault is not None:
        raise fault


def labels_text(labels: Iterable[tuple[str, str]]) -> str:
    """Return label pairs in the form between braces."""
    return ",".join([f'{legal_label(name)}="{escaped(value)}"' for name, value in labels])


def sample_text(name: str, labels: Mapping[str, str], value: float) -> str:
    """Return a sample up to its value."""
    braced = f"{{{labels_text(sorted(labels.items()))}}}" if labels else ""
    return f"{legal(name)}{braced} {number(value)}"


def escaped(text: str) -> str:
    """Return a text, escaped for double quotes."""
    return str(text).replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


@lru_cache(maxsize=4096)
def legal(name: str) -> str:
    """Return a name in the characters that each Prometheus accepts, as prometheus_client does by default."""
    return _ILLEGAL.sub("_", name)


@lru_cache(maxsize=4096)
def legal_label(name: str) -> str:
    """Return the name of a label in these characters; other than the name of a family, it has no colons."""
    return _ILLEGAL_OF_LABELS.sub("_", name) or "_"


def number(value: float) -> str:
    """Return a number in the form of both text formats."""
    text = repr(float(value))
    return _SPECIAL.get(text, text)


def encoded(text: str) -> bytes:
    """Return a text in UTF-8; a lone surrogate becomes a question mark."""
    return text.encode("utf-8", "replace")


# Types that only OpenMetrics has: the type in this format, and the suffix of the family's name.
_KINDS = {"info": "gauge", "stateset": "gauge", "gaugehistogram": "histogram", "unknown": "untyped"}
_SUFFIXES = {"counter": "_total", "info": "_info"}
_OPENMETRICS_ONLY = ("_created", "_gcount", "_gsum")
"""Samples that only OpenMetrics has within a family; in this format each suffix is a gauge behind the family."""


class Text(Lines):
    """Writes the text format 0.0.4."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"
    end = b""

    def head(self, name: str, kind: str, documentation: str) -> str:
        """Return the lines above the samples of a family."""
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
        yield from lines_of(_line, (sample for sample in metric.samples if sample.name not in openmetrics_only))
        for other in sorted(openmetrics_only & {sample.name for sample in metric.samples}):
            yield self.head(other, "gauge", metric.documentation)
            yield from lines_of(_line, (sample for sample in metric.samples if sample.name == other))


def _line(sample: Sample) -> str:
    text = sample_text(sample.name, sample.labels, sample.value)
    if sample.timestamp is None:
        return text + "\n"
    return f"{text} {int(float(sample.timestamp) * 1000)}\n"


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
        """Return the lines of a series without its labels; an exemplar follows its bucket."""
        body = super().body(template, series, cumulated, seconds)
        if not series.exemplars:
            return body
        text = body.split(b"\n")
        for position, exemplar in series.exemplars.copy().items():
            if position < len(cumulated) and is_legal(exemplar):
                text[position] += _exemplar(exemplar, exemplar.value)
        return b"\n".join(text)

    def exposed_name(self, family: Family) -> str:
        """Return the name in the head of one of our families: without the `_total` of a counter."""
        return family.name.removesuffix("_total") if family.kind == "counter" else family.name

    def head(self, name: str, kind: str, documentation: str) -> str:
        """Return the lines above the samples of a family."""
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
            text = sample_text(sample.name, sample.labels, sample.value)
            if sample.timestamp is not None:
                text = f"{text} {sample.timestamp}"
            if sample.exemplar and sample.name == with_exemplars:
                text += _user_exemplar(sample.exemplar)
            return text + "\n"

        # This version of the format has no native histograms.
        text = (sample for sample in metric.samples if getattr(sample, "native_histogram", None) is None)
        yield from lines_of(line, text)


def _exemplar(exemplar: Exemplar, value: float) -> bytes:
    ids = exemplar.trace_id.encode(), exemplar.span_id.encode()
    return b' # {trace_id="%b",span_id="%b"} %a %.3f' % (*ids, value, exemplar.timestamp)


def _user_exemplar(exemplar: UserExemplar) -> str:
    """Return an exemplar of the user, or an empty text if it is longer than the format allows."""
    if sum(len(name) + len(value) for name, value in exemplar.labels.items()) > MAX_EXEMPLAR_RUNES:
        return ""
    text = f" # {{{labels_text(sorted(exemplar.labels.items()))}}} {number(exemplar.value)}"
    return text if exemplar.timestamp is None else f"{text} {exemplar.timestamp}"
