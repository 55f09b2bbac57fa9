"""What the two text formats share: a line per sample."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache

from prometheus_client.core import Sample

from scaleobs.catalog import Metric as Family
from scaleobs.metrics.formats import PIECE, Chunks
from scaleobs.metrics.series import Exemplar, Labels, Series

_LINES = 256
"""How many lines are made without a look at their length: about half a millisecond."""

_HERE = b"\xff"
"""Where a template's labels go: a byte that UTF-8 doesn't have."""

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
            name, here = family.name.encode(), _HERE
            ends = [*(number(bound).encode() for bound in bounds), b"+Inf"]
            buckets = [b'%b_bucket{%b,le="%b"} %%d\n' % (name, here, end) for end in ends]
            totals = b"%b_count{%b} %%d\n%b_sum{%b} %%a\n" % (name, here, name, here)
            found = _templates.setdefault((family.name, bounds), b"".join(buckets) + totals)
        return found

    def body(self, template: bytes, series: Series, cumulated: list[float], seconds: float) -> bytes:
        """Return the lines of a series without its labels."""
        del series
        return template % (*cumulated, cumulated[-1], seconds)

    def placed(self, body: bytes, labels: bytes) -> bytes:
        """Return the lines of a series."""
        return body.replace(_HERE, labels)

    def framed(self, family: Family, chunks: Chunks) -> Iterator[bytes]:
        """Yield one of our families."""
        yield encoded(self.head(self.shown_name(family), family.kind, family.help))
        for chunk in chunks:
            yield b"".join(chunk)

    def shown_name(self, family: Family) -> str:
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
    """Return a name in the characters that every Prometheus knows, as prometheus_client does by default."""
    return _ILLEGAL.sub("_", name)


def number(value: float) -> str:
    """Return a number as all formats read it."""
    shown = repr(float(value))
    return _SPECIAL.get(shown, shown)


def encoded(text: str) -> bytes:
    """Return UTF-8; a lone surrogate, which has none, becomes a question mark."""
    return text.encode("utf-8", "replace")
