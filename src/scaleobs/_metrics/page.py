"""The page of a scrape: the families of a registry, in one format and encoding, in pieces."""

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
from scaleobs._metrics import collectors, process, user_merge, user_names
from scaleobs._metrics.child import Child, Counts, Exemplar, Labels
from scaleobs._metrics.families import OwnMetric, gauge_families, is_user_changed, join_workers
from scaleobs._metrics.protobuf import Protobuf
from scaleobs._metrics.runtime import runtime
from scaleobs._metrics.storage import Storage
from scaleobs._metrics.text import PIECE, Format, OpenMetrics, Text, is_legal
from scaleobs._metrics.totals import PerWorkerFormat
from scaleobs._metrics.user_names import names_of
from scaleobs.catalog import Metric as Family

OnFault = Callable[[Exception], None]

_FORMATS: dict[str, Format] = {
    "text/plain": Text(),
    "application/openmetrics-text": OpenMetrics(),
    "application/vnd.google.protobuf": Protobuf(),
}
MEDIA_TYPES = {
    "text/plain": {"version": "0.0.4"},
    "application/openmetrics-text": {"version": "1.0.0"},
    "application/vnd.google.protobuf": {"proto": "io.prometheus.client.MetricFamily", "encoding": "delimited"},
}
"""The media types of a page, the default first, with their parameters."""

_GZIP = 16 + zlib.MAX_WBITS
_FASTEST = 1
_MAX_PIECES = 32


def expose(
    registry: CollectorRegistry,
    storage: Storage,
    media_type: str,
    *,
    is_gzipped: bool,
    names: Collection[str] = (),
    on_fault: OnFault,
) -> tuple[list[tuple[str, str]], Iterator[bytes]]:
    """Return the headers and the body of a page that no other scrape shares; the arguments are those of `Page`."""
    page = Page(registry, storage, media_type, is_gzipped=is_gzipped, names=names, on_fault=on_fault)

    def body() -> Iterator[bytes]:
        for made in page.pieces:
            piece = page.add(made)
            if piece or not made:
                yield piece
        yield page.finish()

    return headers_of(media_type, is_gzipped=is_gzipped), body()


def headers_of(media_type: str, *, is_gzipped: bool) -> list[tuple[str, str]]:
    """Return the headers of a page."""
    headers = [("Content-Type", _FORMATS[media_type].content_type), ("Vary", "Accept, Accept-Encoding")]
    return [*headers, ("Content-Encoding", "gzip")] if is_gzipped else headers


class Page:
    """
    One page.

    The body has pieces of about 64 KiB. Each takes about a millisecond to make, so that other tasks of an event loop
    can run between them. An empty piece is a pause and need not be sent. A user's own collector is one step that is not
    divided.

    Any number of pages may be made at once. If a collector raises, the page lacks its families and is well-formed: an
    error response would set `up` to 0, as if the service were down.

    Args:
        registry: the user's metrics.
        storage: our own counts.
        media_type: one of `MEDIA_TYPES`.
        is_gzipped: whether to compress the body.
        names: the `name[]` parameters; if there are any, only these families are written.
        on_fault: called with each exception of a collector or of scaleobs.

    Attributes:
        pieces: makes the pieces of the families; each must be passed to `add`.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        storage: Storage,
        media_type: str,
        *,
        is_gzipped: bool,
        names: Collection[str],
        on_fault: OnFault,
    ) -> None:
        if is_user_changed():
            join_workers()
        self._writer = _FORMATS[media_type]
        if self._writer.has_exemplars:
            storage.request_exemplars()
        if storage.is_isolated or (storage.workers is not None and not storage.workers.can_be_read()):
            self._writer = cast(Format, PerWorkerFormat(self._writer, str(os.getpid())))
        self._registry = registry
        self._storage = storage
        self._names = names
        self._on_fault = on_fault
        self.pieces = self._pieces()
        self._pending: list[bytes] = []
        self._length = 0
        self._compressor = zlib.compressobj(_FASTEST, zlib.DEFLATED, _GZIP) if is_gzipped else None

    def add(self, piece: bytes) -> bytes:
        """Return the next piece of the body, or nothing: most families have one line, and a piece is a system call."""
        if not piece:
            return b""
        self._pending.append(piece)
        self._length += len(piece)
        return self._flushed() if self._length >= PIECE // 4 or len(self._pending) >= _MAX_PIECES else b""

    def finish(self) -> bytes:
        """Return the last piece of the body, now or later: of a page that lacks the families that are not added yet."""
        last = b"".join([*self._pending, self._writer.end])
        if self._compressor is None:
            return last
        compressor = self._compressor.copy()
        return compressor.compress(last) + compressor.flush()

    def _flushed(self) -> bytes:
        joined = b"".join(self._pending)
        self._pending.clear()
        self._length = 0
        return joined if self._compressor is None else self._compressor.compress(joined)

    def _pieces(self) -> Iterator[bytes]:
        storage, writer, names, on_fault = self._storage, self._writer, self._names, self._on_fault
        every = (*catalog.EXPOSED, *catalog.ON_REQUEST, *catalog.RUNTIME)
        families = [family for family in every if not names or not names_of(family).isdisjoint(names)]
        try:
            yield from _own_families(storage, writer, families)
        except Exception as error:
            on_fault(error)
        try:
            checked = user_names.of_storage(storage).checked(self._collected(), self._registry, on_fault)
            for metric in checked:
                if metric is None:
                    yield b""
                else:
                    yield from _family(writer, metric, on_fault)
        except Exception as error:
            on_fault(error)

    def _collected(self) -> Iterator[Metric | None]:
        """Yield the families of the registry without our own ones, which are written already; `None` is a pause."""
        own_names = set().union(*map(names_of, (*catalog.EXPOSED, *catalog.RUNTIME))) if self._names else set()
        names = [name for name in self._names if name not in own_names]
        if self._names and not names:
            return
        registry, on_fault = self._registry, self._on_fault
        merged = user_merge.of_all_workers(registry, collectors.collect(registry, names, on_fault), names, on_fault)
        for metric in process.of_all_workers(merged, on_fault):
            if not isinstance(metric, OwnMetric):
                yield metric


def _own_families(storage: Storage, writer: Format, families: list[catalog.Metric]) -> Iterator[bytes]:
    counts: Counts = storage.read()
    if catalog.REQUESTS in families or catalog.DURATION in families:
        cache = text_cache(storage, catalog.DURATION, writer)
        histogram = Histogram(catalog.DURATION, counts.children, cache, writer)
        yield from histogram.read()
        if catalog.REQUESTS in families:
            yield from histogram.counter(catalog.REQUESTS, counts.zero_children)
        if catalog.DURATION in families:
            yield from histogram.pieces()
    for family, sizes in ((catalog.REQUEST_SIZE, counts.request_sizes), (catalog.RESPONSE_SIZE, counts.response_sizes)):
        if sizes and family in families:
            histogram = Histogram(family, sizes, text_cache(storage, family, writer), writer)
            yield from histogram.read()
            yield from histogram.pieces()
    for family, metric in chain(gauge_families(counts, list(storage.sources)), runtime.families()):
        if family in families:
            yield from writer.family(metric)


def _family(writer: Format, metric: Metric, on_fault: OnFault) -> Iterator[bytes]:
    try:
        yield from writer.family(metric)
    except Exception as error:
        on_fault(error)


_AT_ONCE = 32
"""The series of one piece: 64 KiB of text, 0.1 ms."""

_AT_ONCE_READ = 256

_Item = TypeVar("_Item")

_CachedText = tuple[Any, float, bytes | None, bytes]
"""The template; the sum of all slots; the body, if it is cached; the labels."""

_Row = tuple[Child, list[float], float, bytes, bytes | None, bool]
"""A child; its cumulated counts; its seconds; its labels; the cached body; whether it has not changed since."""


class TextCache:
    """
    The texts of the series of one family, from one scrape to the next.

    If a series is the same in two scrapes, its text is cached until the series changes. So a busy series takes no
    memory, an idle one takes no time, and numbers that were read during an increment are never cached. The labels are
    not in the text, which halves it. Any number of scrapes may use the cache at once: entries are replaced and never
    changed.
    """

    def __init__(self) -> None:
        self.entries: dict[Labels, _CachedText] = {}

    def drop_all_but(self, series: Sequence[Child]) -> None:
        """Remove the entries of series that no longer exist."""
        if len(self.entries) > len(series):
            present = {one.labels for one in series}
            for labels in list(self.entries):
                if labels not in present:
                    self.entries.pop(labels, None)


_caches: weakref.WeakKeyDictionary[Storage, dict[tuple[str, bool], TextCache]] = weakref.WeakKeyDictionary()


def text_cache(storage: Storage, family: Family, writer: Format | None = None) -> TextCache:
    """Return the cache of one family; a format with the label `worker` has another one."""
    key = family.name, isinstance(writer, PerWorkerFormat)
    return _caches.setdefault(storage, {}).setdefault(key, TextCache())


class Histogram:
    """
    The series of one histogram at one moment.

    Args:
        family: the name, help and labels.
        series: the children.
        cache: the texts of the last scrape.
        writer: the format.
    """

    def __init__(self, family: Family, series: Sequence[Child], cache: TextCache, writer: Format) -> None:
        self._family = family
        self._series = series
        self._cache = cache
        self._writer = writer
        self._rows: list[_Row] = []

    def read(self) -> Iterator[bytes]:
        """Read the counts, and yield pauses."""
        cache, writer, names = self._cache.entries, self._writer, self._family.labels
        bounds: tuple[float, ...] | None = None
        template: Any = None
        for portion in _portions(self._series, _AT_ONCE_READ):
            for series in portion:
                if series.bounds is not bounds:
                    bounds = series.bounds
                    template = writer.template(self._family, bounds)
                slots = series.slots.copy()
                # The last one, the sum of counts and seconds, changes whenever a slot changes.
                cumulated = list(accumulate(slots))
                total = cumulated.pop()
                entry = cache.get(series.labels)
                if entry is not None and entry[0] is template:
                    is_idle, body, labels = entry[1] == total, entry[2], entry[3]
                else:
                    is_idle, body, labels = False, None, writer.labels(names, series.labels)
                if not is_idle:
                    body = None
                    cache[series.labels] = (template, total, None, labels)
                self._rows.append((series, cumulated, slots[-1], labels, body, is_idle))
            if len(portion) == _AT_ONCE_READ:
                yield b""
        self._cache.drop_all_but(self._series)

    def counter(self, family: Family, zero_children: Sequence[Labels]) -> Iterator[bytes]:
        """Yield the counter of the same requests."""
        yield from self._writer.own_family(family, self._counters(family, zero_children))

    def pieces(self) -> Iterator[bytes]:
        """Yield the family."""
        yield from self._writer.own_family(self._family, self._bodies())

    def _counters(self, family: Family, zero_children: Sequence[Labels]) -> Iterator[list[bytes]]:
        write, has_exemplars, name = self._writer.counter, self._writer.has_exemplars, family.name.encode()
        for rows in _portions(self._rows, _AT_ONCE_READ):
            yield [
                write(name, labels, cumulated[-1], _latest(series) if has_exemplars and series.exemplars else None)
                for series, cumulated, _, labels, _, _ in rows
            ]
        for portion in _portions(zero_children, _AT_ONCE_READ):
            yield [write(name, self._writer.labels(family.labels, labels), 0, None) for labels in portion]

    def _bodies(self) -> Iterator[list[bytes]]:
        cache, writer, has_exemplars = self._cache.entries, self._writer, self._writer.has_exemplars
        with_labels = writer.with_labels
        bounds: tuple[float, ...] | None = None
        template: Any = None
        for rows in _portions(self._rows, _AT_ONCE):
            chunk = []
            for series, cumulated, seconds, labels, cached, is_idle in rows:
                body = cached
                # An exemplar may be set after its count, so the text of such a series is not taken from the cache.
                has_exemplar = has_exemplars and series.exemplars
                if body is None or has_exemplar:
                    if series.bounds is not bounds:
                        bounds = series.bounds
                        template = writer.template(self._family, bounds)
                    body = writer.body(template, series, cumulated, seconds)
                    if is_idle and not has_exemplar:
                        cache[series.labels] = (template, cumulated[-1] + seconds, body, labels)
                chunk.append(with_labels(body, labels))
            yield chunk


def _portions(items: Sequence[_Item], size: int) -> Iterator[Sequence[_Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _latest(series: Child) -> Exemplar | None:
    families = [one for one in list(series.exemplars.values()) if is_legal(one)]
    return max(families, key=lambda one: one.timestamp, default=None)
