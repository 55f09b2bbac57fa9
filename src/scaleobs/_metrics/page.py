"""What a scrape reads: the families of a registry, in the requested format and encoding, in pieces."""

from __future__ import annotations

import os
import weakref
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import accumulate, chain
from typing import Any, TypeVar, cast

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from scaleobs import catalog
from scaleobs._metrics import process, user_merge
from scaleobs._metrics.child import Child, Counts, Exemplar, Labels
from scaleobs._metrics.families import OwnMetric, gauge_families
from scaleobs._metrics.negotiation import Offer, is_gzip_accepted, preferred
from scaleobs._metrics.protobuf import Protobuf
from scaleobs._metrics.runtime import runtime
from scaleobs._metrics.storage import Storage
from scaleobs._metrics.text import PIECE, Format, OpenMetrics, Text, is_shown
from scaleobs._metrics.totals import PerWorkerFormat
from scaleobs.catalog import Metric as Family

OnFault = Callable[[Exception], None]

_TEXT = Offer("text/plain", {"version": "0.0.4"})
_OPENMETRICS = Offer("application/openmetrics-text", {"version": "1.0.0"})
_PROTOBUF = Offer(
    "application/vnd.google.protobuf", {"proto": "io.prometheus.client.MetricFamily", "encoding": "delimited"}
)
_FORMATS: dict[str, Format] = {_TEXT.type: Text(), _OPENMETRICS.type: OpenMetrics(), _PROTOBUF.type: Protobuf()}
_OFFERS = (_TEXT, _OPENMETRICS, _PROTOBUF)

_GZIP = 16 + zlib.MAX_WBITS
_FASTEST = 1
_MOST_WAITING = 32


def expose(
    registry: CollectorRegistry,
    storage: Storage,
    *,
    accept: str,
    accept_encoding: str,
    names: Collection[str] = (),
    on_fault: OnFault,
) -> tuple[list[tuple[str, str]], Iterator[bytes]]:
    """
    Return the headers and the body of a scrape.

    The body comes in pieces of some 64 KiB, each the work of about a millisecond, so that an event loop may turn in
    between. A piece may be empty: it is a pause and need not be sent. Only what a user's collector does in one go can't
    be cut.

    Any number of scrapes may run at once. If a collector raises, what came before it stays, our own families first,
    and the page is complete and well-formed: an error response would turn `up` to 0, as if the service were gone.

    Args:
        registry: whose metrics to show.
        storage: our own counts.
        accept: the `Accept` header: text 0.0.4, OpenMetrics 1.0 or protobuf; text if it names none of them.
        accept_encoding: the `Accept-Encoding` header: gzip if it is accepted.
        names: the `name[]` parameters; if there are any, only these families are written.
        on_fault: called with each exception of a collector or of scaleobs.
    """
    to = _FORMATS[preferred(accept, _OFFERS).type]
    if to.has_exemplars:
        storage.request_exemplars()
    headers = [("Content-Type", to.content_type), ("Vary", "Accept, Accept-Encoding")]
    if storage.is_isolated:
        to = cast(Format, PerWorkerFormat(to, str(os.getpid())))
    pieces = _joined(_pieces(registry, storage, to, names, on_fault))
    if is_gzip_accepted(accept_encoding):
        headers.append(("Content-Encoding", "gzip"))
        pieces = _compressed(pieces)
    return headers, pieces


def _pieces(
    registry: CollectorRegistry, storage: Storage, to: Format, names: Collection[str], on_fault: OnFault
) -> Iterator[bytes]:
    every = (*catalog.EXPOSED, *catalog.ON_REQUEST, *catalog.RUNTIME)
    shown = [family for family in every if not names or not _names_of(family).isdisjoint(names)]
    try:
        yield from _own(storage, to, shown)
    except Exception as error:
        on_fault(error)
    try:
        for metric in process.of_all_workers(_collected(registry, names, on_fault), on_fault):
            # Ours are there for others, and unread they cost nothing.
            if not isinstance(metric, OwnMetric):
                yield from _contained(to, metric, on_fault)
    except Exception as error:
        on_fault(error)
    yield to.end


def _own(storage: Storage, to: Format, shown: list[catalog.Metric]) -> Iterator[bytes]:
    counts: Counts = storage.read()
    if catalog.REQUESTS in shown or catalog.DURATION in shown:
        kept = text_cache(storage, catalog.DURATION)
        histogram = Histogram(catalog.DURATION, counts.children, kept, to)
        yield from histogram.read()
        if catalog.REQUESTS in shown:
            yield from histogram.counter(catalog.REQUESTS, counts.zero_children)
        if catalog.DURATION in shown:
            yield from histogram.pieces()
    for family, sizes in ((catalog.REQUEST_SIZE, counts.request_sizes), (catalog.RESPONSE_SIZE, counts.response_sizes)):
        if sizes and family in shown:
            histogram = Histogram(family, sizes, text_cache(storage, family), to)
            yield from histogram.read()
            yield from histogram.pieces()
    for family, metric in chain(gauge_families(counts, list(storage.sources)), runtime.families()):
        if family in shown:
            yield from to.family(metric)


def _collected(registry: CollectorRegistry, names: Collection[str], on_fault: OnFault) -> Iterator[Metric]:
    if not names:
        yield from user_merge.of_all_workers(registry, registry.collect(), (), on_fault)
        return
    # What is ours is shown already, whole.
    ours = set().union(*map(_names_of, (*catalog.EXPOSED, *catalog.RUNTIME)))
    others = [name for name in names if name not in ours]
    if others:
        yield from user_merge.of_all_workers(registry, registry.restricted_registry(others).collect(), others, on_fault)


def _contained(to: Format, metric: Metric, on_fault: OnFault) -> Iterator[bytes]:
    try:
        yield from to.family(metric)
    except Exception as error:
        on_fault(error)


def _names_of(family: catalog.Metric) -> set[str]:
    """Return what our family may be called by: its own name, OpenMetrics's, or that of any sample."""
    return {family.name, family.name.removesuffix("_total"), *family.series}


def _joined(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Yield fewer pieces: most families have one line, and each piece may become a system call. Pauses stay."""
    waiting: list[bytes] = []
    length = 0
    for piece in pieces:
        if not piece:
            yield b""
            continue
        waiting.append(piece)
        length += len(piece)
        if length >= PIECE // 4 or len(waiting) >= _MOST_WAITING:
            yield b"".join(waiting)
            waiting.clear()
            length = 0
    yield b"".join(waiting)


def _compressed(pieces: Iterator[bytes]) -> Iterator[bytes]:
    compressor = zlib.compressobj(_FASTEST, zlib.DEFLATED, _GZIP)
    for piece in pieces:
        yield compressor.compress(piece)
    yield compressor.flush()


_AT_ONCE = 32
"""How many series are written at a time: 64 KiB of text, 0.1 ms."""

_AT_ONCE_READ = 256

_Item = TypeVar("_Item")

_CachedText = tuple[Any, float, bytes | None, bytes]
"""The template; what all slots added up to; the body, if it is cached; the labels."""

_Row = tuple[Child, list[float], float, bytes, bytes | None, bool]
"""A series; its cumulated counts; its seconds; its labels; the kept body; whether the scrape before saw the same."""


class TextCache:
    """
    What a scrape leaves for the next one.

    The text of a series that counted nothing between two scrapes is kept from then on, until it counts again. So what
    is busy costs no memory, what sleeps costs no time, and what was read while another thread was in the middle of
    counting is never kept. The labels aren't in the text, which halves it. Any number of scrapes may share this:
    entries are replaced and never changed.
    """

    def __init__(self) -> None:
        self.entries: dict[Labels, _CachedText] = {}

    def drop_all_but(self, series: Sequence[Child]) -> None:
        """Forget series that are no more."""
        if len(self.entries) > len(series):
            there = {one.labels for one in series}
            for labels in list(self.entries):
                if labels not in there:
                    self.entries.pop(labels, None)


_kept: weakref.WeakKeyDictionary[Storage, dict[str, TextCache]] = weakref.WeakKeyDictionary()


def text_cache(storage: Storage, family: Family) -> TextCache:
    """Return what was kept of a histogram."""
    return _kept.setdefault(storage, {}).setdefault(family.name, TextCache())


class Histogram:
    """
    The series of one family as they were at one moment.

    Args:
        family: its name, help and labels.
        series: its series.
        kept: what the scrape before has left.
        to: the format to write.
    """

    def __init__(self, family: Family, series: Sequence[Child], kept: TextCache, to: Format) -> None:
        self._family = family
        self._series = series
        self._kept = kept
        self._to = to
        self._rows: list[_Row] = []

    def read(self) -> Iterator[bytes]:
        """Read the counts, and yield pauses."""
        kept, to, names = self._kept.entries, self._to, self._family.labels
        bounds: tuple[float, ...] | None = None
        template: Any = None
        for some in _portions(self._series, _AT_ONCE_READ):
            for series in some:
                if series.bounds is not bounds:
                    bounds = series.bounds
                    template = to.template(self._family, bounds)
                slots = series.slots.copy()
                # The last of these, requests and seconds added up, changes whenever a cell does.
                cumulated = list(accumulate(slots))
                news = cumulated.pop()
                entry = kept.get(series.labels)
                if entry is not None and entry[0] is template:
                    is_idle, body, labels = entry[1] == news, entry[2], entry[3]
                else:
                    is_idle, body, labels = False, None, to.labels(names, series.labels)
                if not is_idle:
                    body = None
                    kept[series.labels] = (template, news, None, labels)
                self._rows.append((series, cumulated, slots[-1], labels, body, is_idle))
            if len(some) == _AT_ONCE_READ:
                yield b""
        self._kept.drop_all_but(self._series)

    def counter(self, family: Family, zero_children: Sequence[Labels]) -> Iterator[bytes]:
        """Yield the family that counts what this one times."""
        yield from self._to.framed(family, self._counters(family, zero_children))

    def pieces(self) -> Iterator[bytes]:
        """Yield the family."""
        yield from self._to.framed(self._family, self._bodies())

    def _counters(self, family: Family, zero_children: Sequence[Labels]) -> Iterator[list[bytes]]:
        write, has_exemplars, name = self._to.counter, self._to.has_exemplars, family.name.encode()
        for rows in _portions(self._rows, _AT_ONCE_READ):
            yield [
                write(name, labels, cumulated[-1], _latest(series) if has_exemplars and series.exemplars else None)
                for series, cumulated, _, labels, _, _ in rows
            ]
        for portion in _portions(zero_children, _AT_ONCE_READ):
            yield [write(name, self._to.labels(family.labels, labels), 0, None) for labels in portion]

    def _bodies(self) -> Iterator[list[bytes]]:
        kept, to, has_exemplars = self._kept.entries, self._to, self._to.has_exemplars
        with_labels = to.with_labels
        bounds: tuple[float, ...] | None = None
        template: Any = None
        for rows in _portions(self._rows, _AT_ONCE):
            chunk = []
            for series, cumulated, seconds, labels, cached, is_idle in rows:
                body = cached
                # An exemplar may come a moment after its count, so that its series is written anew.
                has_exemplar = has_exemplars and series.exemplars
                if body is None or has_exemplar:
                    if series.bounds is not bounds:
                        bounds = series.bounds
                        template = to.template(self._family, bounds)
                    body = to.body(template, series, cumulated, seconds)
                    if is_idle and not has_exemplar:
                        kept[series.labels] = (template, cumulated[-1] + seconds, body, labels)
                chunk.append(with_labels(body, labels))
            yield chunk


def _portions(items: Sequence[_Item], size: int) -> Iterator[Sequence[_Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _latest(series: Child) -> Exemplar | None:
    shown = [one for one in list(series.exemplars.values()) if is_shown(one)]
    return max(shown, key=lambda one: one.timestamp, default=None)
