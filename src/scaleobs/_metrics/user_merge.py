"""The user's own prometheus_client metrics on a page: the values of siblings, and the sums over all workers."""

from __future__ import annotations

import json
import math
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from itertools import accumulate
from typing import Any, NamedTuple

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import Metric, Sample
from prometheus_client.utils import floatToGoString

from scaleobs._metrics import user_values
from scaleobs._metrics.child import total_of
from scaleobs._metrics.user_values import OWNERLESS, TYPES, UNSET, metrics_of
from scaleobs._workers import Group
from scaleobs._workers.kinds import Kind
from scaleobs._workers.ledger import Entry

UserLabels = frozenset[tuple[str, str]]
LabelPairs = tuple[tuple[str, str], ...]

_VALUE_SLOTS = 2
"""The value and its mark."""


class GaugeValue(NamedTuple):
    """The value of a gauge in one living worker."""

    worker: str
    value: float
    mark: float


class UserFamily:
    """
    The values of siblings for one family.

    Attributes:
        key: the key of any of its values.
        parts: the values that are added up, of living and dead workers, not cumulated.
        inherited: the same of the dead worker whose ledger this worker continues, without those that this one counts.
        gauges: the gauges of living workers, by labels.
    """

    def __init__(self, key: UserKey) -> None:
        self.key = key
        self.parts: dict[UserKey, list[float]] = {}
        self.inherited: dict[UserKey, float] = {}
        self.gauges: dict[UserLabels, tuple[LabelPairs, list[GaugeValue]]] = {}


class UserKey:
    """The key of a value in a ledger; compared by identity, since the same bytes give the same object."""

    __slots__ = ("bound", "bytes", "family", "help", "labels", "mode", "pairs", "sample", "type")

    def __init__(self, key: bytes) -> None:
        kind, family, sample, names, label_values, help_text, mode, _ = json.loads(key)
        pairs = tuple(zip(map(str, names), map(str, label_values), strict=True))
        self.bound = math.nan
        if kind == "histogram" and sample.endswith("_bucket"):
            *pairs_before, (_, bound) = pairs
            pairs, self.bound = tuple(pairs_before), float(bound)
        self.bytes, self.type, self.family, self.sample = key, str(kind), str(family), str(sample)
        self.help, self.mode, self.pairs, self.labels = str(help_text), str(mode), pairs, frozenset(pairs)


@lru_cache(maxsize=8192)
def _user_key(key: bytes) -> UserKey | None:
    try:
        found = UserKey(key)
    except (ValueError, TypeError, AttributeError):  # A ledger may be damaged.
        return None
    return found if found.type in TYPES else None


class _UserValues:
    """The positions of the user's values in a sibling's ledger."""

    def __init__(self) -> None:
        self.found: dict[bytes, tuple[UserKey, int]] = {}

    def add(self, entries: Mapping[Kind, list[Entry]]) -> None:
        """Add new entries of the ledger."""
        for entry in entries.get(Kind.USER_VALUE, ()):
            key = _user_key(entry.key)
            if key is not None and entry.end - entry.start == _VALUE_SLOTS:
                self.found[entry.key] = key, entry.start


def families_of_siblings(registry: CollectorRegistry, group: Group) -> dict[tuple[str, str], UserFamily]:
    """
    Return the families with values of siblings, by type and name.

    The values are of living workers, of dead ones, and of the dead worker whose ledger this worker continues. Metrics
    that belong to another registry of this process are left out.
    """
    families: dict[tuple[str, str], UserFamily] = {}
    excluded = user_values.keys_outside(registry)
    parts: dict[UserKey, list[float]] = defaultdict(list)
    for other in group.peek():
        # Another thread may add positions at the same time.
        positions, numbers = list(other.view(_UserValues, _UserValues).found.values()), other.numbers
        end, is_living, worker = len(numbers) - 1, other.is_living, other.path.stem
        for key, position in positions:
            if position >= end:  # Added after `numbers` was read.
                continue
            if key.type != "gauge":
                parts[key].append(numbers[position])
            elif is_living and numbers[position + 1] != OWNERLESS and key.bytes not in excluded:
                gauges = _family_of(key, families).gauges
                gauges.setdefault(key.labels, (key.pairs, []))[1].append(
                    GaugeValue(worker, *numbers[position : position + _VALUE_SLOTS])
                )
    for key, number in _inherited_values(group):
        if key.bytes not in excluded:
            _family_of(key, families).inherited[key] = number
    for key, each in parts.items():
        if key.bytes not in excluded and not math.isnan(sum(each)):
            _family_of(key, families).parts[key] = each
    return families


def _inherited_values(group: Group) -> Iterator[tuple[UserKey, float]]:
    for _, packed, slots in group.ledger.entries(Kind.USER_VALUE):
        key = _user_key(packed) if not user_values.is_in_use(packed) else None
        if key is not None and key.type != "gauge" and len(slots) == _VALUE_SLOTS and not math.isnan(slots[0]):
            yield key, slots[0]


def _family_of(key: UserKey, families: dict[tuple[str, str], UserFamily]) -> UserFamily:
    name = key.type, key.family
    found = families.get(name)
    if found is None:
        found = families[name] = UserFamily(key)
    return found


Totals = dict[tuple[str, UserLabels], tuple[LabelPairs, list[float]]]
"""The values of siblings, by name and labels of a sample; with the labels in their order."""

_NOTHING: tuple[LabelPairs, list[float]] = ((), [])
_WORKER = "worker"


def of_all_workers(
    registry: CollectorRegistry,
    collected: Iterable[Metric | None],
    names: Collection[str],
    on_fault: Callable[[Exception], None],
) -> Iterator[Metric | None]:
    """
    Yield the families of a registry, added up over all workers; then the families that only siblings have.

    The numbers of siblings are those of the last read of their ledgers. If a family cannot be merged, this worker's own
    samples are yielded.

    Args:
        registry: the registry of the metrics.
        collected: the families of this worker; `None` is a pause.
        names: if not empty, only samples with these names are yielded.
        on_fault: called with the error of each family that cannot be merged.
    """
    group = user_values.current_group()
    if group is None:
        yield from collected
        return
    merging = None
    try:
        merging = _Merging(registry, group)
    except Exception as error:
        on_fault(error)
    for metric in collected:
        if metric is None:
            yield None
            continue
        if merging is not None:
            try:
                merging.merge(metric)
            except Exception as error:
                on_fault(error)
        yield from _named(metric, names)
    try:
        for metric in () if merging is None else merging.siblings_only():
            yield from _named(metric, names)
    except Exception as error:
        on_fault(error)


def _named(metric: Metric, names: Collection[str]) -> Iterator[Metric]:
    if names:
        metric.samples = [sample for sample in metric.samples if sample.name in names]
    if not names or metric.samples:  # The samples of our own families are computed when they are read.
        yield metric


class _Merging:
    """The merge of one page of a registry."""

    def __init__(self, registry: CollectorRegistry, group: Group) -> None:
        self._registry = registry
        self._worker = group.ledger.path.stem
        self._metrics = {metric._name: metric for metric in metrics_of(registry)}  # noqa: SLF001
        self._families = families_of_siblings(registry, group)
        self._seen: set[str] = set()

    def merge(self, metric: Metric) -> None:
        """Add the values of siblings to a family of this worker; a family of any other collector is not changed."""
        own = None if metric.name in self._seen else self._metrics.get(metric.name)
        self._seen.add(metric.name)
        if own is not None and own._type == metric.type:  # noqa: SLF001
            family = self._families.pop((metric.type, metric.name), None)
            metric.samples = self._merged(metric, own, family)

    def siblings_only(self) -> Iterator[Metric]:
        """Yield the families that only siblings have."""
        for (kind, name), family in self._families.items():
            own = self._metrics.get(name)
            if name in self._seen or (own is not None and own._type != kind):  # noqa: SLF001
                continue
            if own is None and (self._registry is not REGISTRY or name in self._registry._names_to_collectors):  # noqa: SLF001
                continue
            metric = Metric(name, family.key.help if own is None else own._documentation, kind)  # noqa: SLF001
            metric.samples = self._merged(metric, own, family)
            self._seen.add(name)
            if metric.samples:
                yield metric

    def _merged(self, metric: Metric, own: Any, family: UserFamily | None) -> list[Sample]:
        if metric.type == "gauge":
            mode = family.key.mode if own is None and family is not None else own._multiprocess_mode  # noqa: SLF001
            return list(self._gauges(metric, mode.removeprefix("live"), own, {} if family is None else family.gauges))
        totals: Totals = {}
        if family is not None:
            _add_inherited(family, metric)
            totals = _buckets(family, own) if metric.type == "histogram" else _sums(family)
        created, samples = metric.name + "_created", []
        for sample in metric.samples:
            _, more = totals.pop((sample.name, frozenset(sample.labels.items())), _NOTHING) if totals else _NOTHING
            if any(more):
                value = total_of((sample.value, *more))
                samples.append(Sample(sample.name, sample.labels, value, *sample[3:]))
            elif sample.name != created:  # The time of creation belongs to one process.
                samples.append(sample)
        return samples + [Sample(name, dict(pairs), total_of(more)) for (name, _), (pairs, more) in totals.items()]

    def _gauges(
        self, metric: Metric, mode: str, own: Any, others: dict[UserLabels, tuple[LabelPairs, list[GaugeValue]]]
    ) -> Iterator[Sample]:
        for sample in metric.samples:
            _, in_siblings = others.pop(frozenset(sample.labels.items()), ((), []))
            mark, is_function = _own_gauge(own, sample)
            # If a function returns the value, so it does in siblings, most likely: their ledgers lack it.
            in_siblings = [held for held in in_siblings if not is_function or held.mark != UNSET]
            yield from _combined(sample, mode, [GaugeValue(self._worker, sample.value, mark), *in_siblings])
        for pairs, in_siblings in others.values():
            set_values = [held for held in in_siblings if held.mark != UNSET]
            if set_values:
                yield from _combined(Sample(metric.name, dict(pairs), 0.0), mode, set_values)


def _add_inherited(family: UserFamily, metric: Metric) -> None:
    """Add the values of the dead worker, except those that another thread continues since the page was begun."""
    present = None
    for key, number in family.inherited.items():
        if user_values.is_in_use(key.bytes):
            if present is None:
                labels = (sample.labels.items() for sample in metric.samples)
                present = {frozenset(pair for pair in pairs if pair[0] != "le") for pairs in labels}
            if key.labels in present:
                continue
        family.parts.setdefault(key, []).append(number)


def _own_gauge(gauge: Any, sample: Sample) -> tuple[float, bool]:
    """Return the mark of one of this worker's gauges, and whether a function returns its value."""
    if gauge._is_parent():  # noqa: SLF001
        gauge = gauge._metrics.get(tuple(map(sample.labels.get, gauge._labelnames)))  # noqa: SLF001
    if gauge is None:  # The user has just removed it.
        return UNSET, False
    return getattr(gauge._value, "mark", UNSET), "_child_samples" in vars(gauge)  # noqa: SLF001


def _combined(sample: Sample, mode: str, held: list[GaugeValue]) -> Iterator[Sample]:
    """Yield the sample of all workers, or one for each worker if the mode is `all`."""
    if mode == "all":
        label = f"scaleobs_{_WORKER}" if _WORKER in sample.labels else _WORKER
        for worker, value, _ in sorted(held, key=lambda one: (len(one.worker), one.worker)):
            yield sample._replace(labels={**sample.labels, label: worker}, value=value)
        return
    numbers = [one.value for one in held]
    if mode == "mostrecent":
        numbers = [max(held, key=lambda one: one.mark).value]
    combine: Callable[[list[float]], float] = {"min": min, "max": max}.get(mode, total_of)
    yield sample._replace(value=combine(numbers))


def _sums(family: UserFamily) -> Totals:
    totals: Totals = {}
    for key, parts in family.parts.items():
        totals.setdefault((key.sample, key.labels), (key.pairs, []))[1].extend(parts)
    return totals


def _buckets(family: UserFamily, own: Any) -> Totals:
    """Return the cumulated samples of a histogram, in the buckets of this worker if it has the metric."""
    bounds = sorted({key.bound for key in family.parts if not math.isnan(key.bound)} | {math.inf})
    bounds = bounds if own is None else list(own._upper_bounds)  # noqa: SLF001
    found: dict[UserLabels, tuple[LabelPairs, list[list[float]]]] = {}
    for key, parts in family.parts.items():
        slots = found.setdefault(key.labels, (key.pairs, [[] for _ in range(len(bounds) + 1)]))[1]
        slots[-1 if math.isnan(key.bound) else bisect_left(bounds, key.bound)].extend(parts)
    ends, name = list(map(floatToGoString, bounds)), family.key.family
    totals: Totals = {}
    for labels, (pairs, (*slots, total)) in found.items():
        *_, count = counts = list(accumulate(map(sum, slots)))
        for end, number in zip(ends, counts, strict=True):
            bound_pair = "le", end
            totals[f"{name}_bucket", labels | {bound_pair}] = (*pairs, bound_pair), [number]
        totals[f"{name}_count", labels] = pairs, [count]
        if bounds[0] >= 0:  # As prometheus_client has it.
            totals[f"{name}_sum", labels] = pairs, total
    return totals
