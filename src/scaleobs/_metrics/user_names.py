"""The names and labels of the user's families, so that each page is one that Prometheus accepts."""

from __future__ import annotations

import copy
import math
import re
import weakref
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import Exemplar, Metric, Sample
from prometheus_client.metrics_core import METRIC_TYPES

from scaleobs import catalog
from scaleobs._metrics.runtime import runtime
from scaleobs._metrics.storage import Storage
from scaleobs._metrics.text import legal, legal_label

OnFault = Callable[[Exception], None]

_SUFFIXES = {
    "counter": ("_total", "_created"),
    "summary": ("_sum", "_count", "_created"),
    "histogram": ("_bucket", "_sum", "_count", "_created"),
    "gaugehistogram": ("_bucket", "_gsum", "_gcount"),
    "info": ("_info",),
}
"""The names of samples, by the type of their family, as in prometheus_client's registry."""

_AT_ONCE = 256
_MAX_CLAIMS = 20_000
_MAX_MILLISECONDS = 2.0**63
"""Prometheus reads a time as a 64-bit integer of milliseconds, and refuses the page if it is larger."""


class PageError(Exception):
    """
    Something is missing on a page.

    Attributes:
        kind: what is missing; it is logged once.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def names_of(family: catalog.Metric) -> set[str]:
    """Return all names of one of our families: its own, that of OpenMetrics, and those of its samples."""
    return {family.name, family.name.removesuffix("_total"), *family.series}


class Names:
    """
    The names of the families of one registry.

    Names such as `a.b` are written as `a_b`. If several names become one, the one that was legal keeps it, otherwise
    the first one; each of the others is written in Prometheus' reversible escaping: `a.b` as `U__a_2e_b`.

    Args:
        storage: our own counts.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._claims: dict[str, list[str]] = {}
        self._reported: set[object] = set()

    def checked(
        self, metrics: Iterable[Metric | None], registry: CollectorRegistry, on_fault: OnFault
    ) -> Iterator[Metric | None]:
        """
        Yield the families of one page with legal names, without what would make a second sample of a series.

        Args:
            metrics: the families; `None` is a pause.
            registry: the registry, which has the names of most families before they are collected.
            on_fault: called with an error for each family that is left out or lacks samples.
        """
        for name in list(getattr(registry, "_names_to_collectors", {}).copy()):
            self._claim(name)
        page = _PageNames(self, self._own_names(), on_fault)
        for metric in metrics:
            if metric is None:
                yield None
                continue
            try:
                yield from page.checked(metric)
            except Exception as error:
                on_fault(error)

    def _own_names(self) -> set[str]:
        sizes = catalog.ON_REQUEST if self._storage.has_sizes else ()
        return set().union(*map(names_of, (*catalog.EXPOSED, *sizes, *runtime.exposed_families())))

    def _claim(self, name: str) -> None:
        claims = self._claims.setdefault(legal(name), [])
        if name not in claims:
            claims.append(name)

    def exposed(self, name: str, kind: str, on_fault: OnFault) -> str:
        """Return the name of a family on a page."""
        if len(self._claims) > _MAX_CLAIMS:
            self._claims.clear()
        every = [name, *(name + suffix for suffix in _SUFFIXES.get(kind, ()))]
        for one in every:
            self._claim(one)
        if name == legal(name) or all(self._owner(legal(one)) == one for one in every):
            return legal(name)
        found = reversible(name)
        self.report_rename("name", name, found, on_fault)
        return found

    def _owner(self, legal_name: str) -> str:
        claims = self._claims[legal_name]
        return legal_name if legal_name in claims else claims[0]

    def report_rename(self, what: str, name: str, found: str, on_fault: OnFault) -> None:
        """Report once that a name is written in another way, because it would become one with another name."""
        if (what, name) not in self._reported and len(self._reported) < _MAX_CLAIMS:
            self._reported.add((what, name))
            text = f"The {what} {name} and another one would become {legal(name)}; it is written as {found}."
            on_fault(PageError(f"{what} {name} is written as {found}", text))


class _PageNames:
    """The names of one page."""

    def __init__(self, names: Names, own_names: set[str], on_fault: OnFault) -> None:
        self._names = names
        self._own_names = own_names
        self._on_fault = on_fault
        self._families: dict[str, str] = {}
        self._seen: dict[int, float] = {}

    def checked(self, metric: Metric) -> Iterator[Metric | None]:
        """Yield a family, unless it is left out; `None` is a pause."""
        original = str(metric.name)
        name = self._names.exposed(original, metric.type, self._on_fault)
        every = {name, *(name + suffix for suffix in _SUFFIXES.get(metric.type, ()))}
        if not name:
            self._leave_out(original, "a family without a name")
        elif not self._own_names.isdisjoint(every):
            self._leave_out(original, f"the family {original}, which has the name of one of scaleobs")
        elif self._families.setdefault(name, original) != original:
            self._leave_out(original, f"the family {original}: {self._families[name]} is {name} on this page")
        else:
            yield from self._checked(metric, original, name)

    def _checked(self, metric: Metric, original: str, name: str) -> Iterator[Metric | None]:
        kept: list[Sample] = []
        is_changed, missing = False, None
        for position, sample in enumerate(metric.samples, start=1):
            found: Sample | str | None
            try:
                found = self._sample(sample, original, name)
            except Exception:  # The writer of the page leaves it out, and reports the error.
                found = sample
            if isinstance(found, str):
                missing = found
            elif found is not None:
                kept.append(found)
            is_changed = is_changed or found is not sample
            if not position % _AT_ONCE:
                yield None
        if missing is not None:
            self._leave_out(original, f"samples of {original}: {missing}")
        unit = metric.unit if name.endswith(f"_{metric.unit}") else ""
        kind = metric.type if metric.type in METRIC_TYPES else "unknown"
        if kind == "stateset" and any(name not in sample.labels for sample in kept[:1]):
            kind = "gauge"  # The states of a stateset have a label with its name, which may have colons.
        if not is_changed and (name, unit, kind) == (metric.name, metric.unit, metric.type):
            yield metric
            return
        # The user's collector may return the same object again.
        changed = copy.copy(metric)
        changed.name, changed.unit, changed.type, changed.samples = name, unit, kind, kept
        if kept or not metric.samples:
            yield changed

    def _sample(self, sample: Sample, original: str, name: str) -> Sample | str | None:
        """Return a sample with legal names, or why it is left out; `None` if it is there already."""
        sample_name, labels, timestamp = sample.name, sample.labels, sample.timestamp
        if name != original and sample_name.startswith(original):
            sample_name = name + legal(f"_{sample_name[len(original) :]}")[1:]
        sample_name = legal(sample_name)
        if not sample_name:
            return "a sample has no name"
        if sample_name in self._own_names:
            return f"{sample_name} is a name of scaleobs"
        renamed, clashes = legal_labels(tuple(labels))
        if renamed is not None:
            labels = dict(zip(renamed, labels.values(), strict=True))
            for before, after in clashes:
                self._names.report_rename("label", before, after, self._on_fault)
        if timestamp is not None:
            timestamp = float(timestamp)
            if not abs(timestamp * 1000) < _MAX_MILLISECONDS:
                return f"{timestamp} is no time in seconds"
        # As Prometheus compares series: an empty label is none. The hash takes a tenth of the memory.
        shown = [(one, _shown(value)) for one, value in labels.items() if value]
        identity = hash((sample_name, timestamp, frozenset(shown)))
        if identity in self._seen:
            return None if self._seen[identity] == sample.value else "a series has several samples"
        self._seen[identity] = sample.value
        exemplar = None if sample.exemplar is None else _exemplar(sample.exemplar)
        if sample_name == sample.name and labels is sample.labels and exemplar is sample.exemplar:
            return sample
        return sample._replace(name=sample_name, labels=labels, exemplar=exemplar)

    def _leave_out(self, original: str, what: str) -> None:
        self._on_fault(PageError(f"{original} is left out", f"A page lacks {what}."))


def _exemplar(exemplar: Exemplar) -> Exemplar:
    """Return an exemplar with legal labels, without a time that is none."""
    labels, timestamp = legal_labels(tuple(exemplar.labels))[0], exemplar.timestamp
    if timestamp is not None and not math.isfinite(float(timestamp)):
        exemplar = exemplar._replace(timestamp=None)
    if labels is None:
        return exemplar
    return exemplar._replace(labels=dict(zip(labels, exemplar.labels.values(), strict=True)))


def _shown(value: Any) -> Any:
    return value if type(value) is str and value.isascii() else str(value).encode("utf-8", "replace")


@lru_cache(maxsize=4096)
def legal_labels(names: tuple[str, ...]) -> tuple[tuple[str, ...] | None, tuple[tuple[str, str], ...]]:
    """
    Return label names that each Prometheus accepts, `None` if they do so already; and those that would become one.

    If several names become one, the one that was legal keeps it, otherwise the first in the order of the alphabet.
    """
    found: dict[str, str] = {}
    taken: set[str] = set()
    clashes = []
    for name in sorted(names, key=lambda one: (legal_label(one) != one, one)):
        after = legal_label(name)
        if after in taken or after == "__name__":
            after = reversible(name, is_label=True)
            while after in taken:
                after += "_"
            clashes.append((name, after))
        taken.add(after)
        found[name] = after
    legal_names = tuple(map(found.__getitem__, names))
    return (None if legal_names == names else legal_names), tuple(clashes)


_UNDERSCORES_AND_ILLEGAL = re.compile("_|[^a-zA-Z0-9:]")
_UNDERSCORES_AND_ILLEGAL_OF_LABELS = re.compile("_|[^a-zA-Z0-9]")


def reversible(name: str, *, is_label: bool = False) -> str:
    """Return a name in the escaping `values` of Prometheus, in which different names are different."""
    pattern = _UNDERSCORES_AND_ILLEGAL_OF_LABELS if is_label else _UNDERSCORES_AND_ILLEGAL
    return "U__" + pattern.sub(lambda found: "__" if found[0] == "_" else f"_{ord(found[0]):x}_", name)


_names: weakref.WeakKeyDictionary[Storage, Names] = weakref.WeakKeyDictionary()


def of_storage(storage: Storage) -> Names:
    """Return the names of the registry of a storage."""
    found = _names.get(storage)
    if found is None:
        # The names must not keep the storage, their key, alive.
        found = _names.setdefault(storage, Names(weakref.proxy(storage)))
    return found
