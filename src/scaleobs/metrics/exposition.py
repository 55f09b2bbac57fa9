"""What a scrape reads: the families of a registry, in the format and the encoding asked for, in pieces."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Collection, Iterator
from itertools import chain
from typing import cast

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric

from scaleobs import catalog
from scaleobs.metrics import families, own, processes, users
from scaleobs.metrics.apart import Apart
from scaleobs.metrics.counts import Counts
from scaleobs.metrics.formats import PIECE, Format
from scaleobs.metrics.negotiation import Offer, chosen, is_gzip_accepted
from scaleobs.metrics.openmetrics import OpenMetrics
from scaleobs.metrics.protobuf import Protobuf
from scaleobs.metrics.runtime import runtime
from scaleobs.metrics.storage import Storage
from scaleobs.metrics.text import Text

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

    Any number of scrapes may run at once. Where a collector raises, what came before it stands, our own families first,
    and the page is well-formed and ends as it should: an error instead would turn `up` to 0, which says that the
    service is gone.

    Args:
        registry: whose metrics to show.
        storage: our own counts.
        accept: the `Accept` header: text 0.0.4, OpenMetrics 1.0 or protobuf; text where it names none of them.
        accept_encoding: the `Accept-Encoding` header: gzip where it is accepted.
        names: the `name[]` parameters; where there are any, only these families are shown.
        on_fault: hears of what a collector, or we, raised.
    """
    to = _FORMATS[chosen(accept, _OFFERS).type]
    if to.has_exemplars:
        storage.request_exemplars()
    headers = [("Content-Type", to.content_type), ("Vary", "Accept, Accept-Encoding")]
    if storage.is_apart:
        to = cast(Format, Apart(to, str(os.getpid())))
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
        for metric in processes.of_all_workers(_collected(registry, names, on_fault), on_fault):
            # Ours are there for others, and unread they cost nothing.
            if not isinstance(metric, families.OwnMetric):
                yield from _contained(to, metric, on_fault)
    except Exception as error:
        on_fault(error)
    yield to.end


def _own(storage: Storage, to: Format, shown: list[catalog.Metric]) -> Iterator[bytes]:
    counts: Counts = storage.read()
    if catalog.REQUESTS in shown or catalog.DURATION in shown:
        kept = own.kept_for(storage, catalog.DURATION)
        histogram = own.Histogram(catalog.DURATION, counts.series, kept, to)
        yield from histogram.read()
        if catalog.REQUESTS in shown:
            yield from histogram.counter(catalog.REQUESTS, counts.unborn)
        if catalog.DURATION in shown:
            yield from histogram.pieces()
    for family, sizes in ((catalog.REQUEST_SIZE, counts.request_sizes), (catalog.RESPONSE_SIZE, counts.response_sizes)):
        if sizes and family in shown:
            histogram = own.Histogram(family, sizes, own.kept_for(storage, family), to)
            yield from histogram.read()
            yield from histogram.pieces()
    for family, metric in chain(families.small(counts, list(storage.sources)), runtime.families()):
        if family in shown:
            yield from to.family(metric)


def _collected(registry: CollectorRegistry, names: Collection[str], on_fault: OnFault) -> Iterator[Metric]:
    if not names:
        yield from users.of_all_workers(registry, registry.collect(), (), on_fault)
        return
    # What is ours is shown already, whole.
    ours = set().union(*map(_names_of, (*catalog.EXPOSED, *catalog.RUNTIME)))
    theirs = [name for name in names if name not in ours]
    if theirs:
        yield from users.of_all_workers(registry, registry.restricted_registry(theirs).collect(), theirs, on_fault)


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
