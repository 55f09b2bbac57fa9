"""The user's own prometheus_client metrics on a page: what all workers of a service have counted."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import accumulate
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import Metric, Sample
from prometheus_client.utils import floatToGoString

from scaleobs._metrics import user_values
from scaleobs._metrics.child import total_of
from scaleobs._metrics.siblings import GaugeValue, LabelPairs, UserFamily, UserLabels, held_by_siblings
from scaleobs._metrics.user_values import UNTOUCHED, metrics_of
from scaleobs._workers import Group

Totals = dict[tuple[str, UserLabels], tuple[LabelPairs, list[float]]]
"""What each of the others has counted, by a sample's name and labels; with the labels in their order."""

_NOTHING: tuple[LabelPairs, list[float]] = ((), [])
_WORKER = "worker"


def of_all_workers(
    registry: CollectorRegistry,
    collected: Iterable[Metric],
    names: Collection[str],
    on_fault: Callable[[Exception], None],
) -> Iterator[Metric]:
    """
    Yield what a registry has collected with what the other workers have counted, then what only they have.

    The siblings' numbers are those of the last read of their ledgers. If a family can't be merged, this worker's own
    samples are yielded.

    Args:
        registry: whose metrics they are.
        collected: of this worker; only the samples of these names, if there are any.
        names: of the only samples to show; all of them if there are none.
        on_fault: called with each error of a family.
    """
    group = user_values.current()
    if group is None:
        yield from collected
        return
    merging = None
    try:
        merging = _Merging(registry, group)
    except Exception as error:
        on_fault(error)
    for metric in collected:
        if merging is not None:
            try:
                merging.merge(metric)
            except Exception as error:
                on_fault(error)
        yield from _named(metric, names)
    try:
        for metric in () if merging is None else merging.others_only():
            yield from _named(metric, names)
    except Exception as error:
        on_fault(error)


def _named(metric: Metric, names: Collection[str]) -> Iterator[Metric]:
    if names:
        metric.samples = [sample for sample in metric.samples if sample.name in names]
    if not names or metric.samples:  # The samples of our own families are computed when they are read.
        yield metric


class _Merging:
    """One page of a registry."""

    def __init__(self, registry: CollectorRegistry, group: Group) -> None:
        self._registry = registry
        self._me = group.ledger.path.stem
        self._metrics = {metric._name: metric for metric in metrics_of(registry)}  # noqa: SLF001
        self._families = held_by_siblings(registry, group)
        self._seen: set[str] = set()

    def merge(self, metric: Metric) -> None:
        """Add to a family of this worker what others have of it; another collector's family stays as it is."""
        own = None if metric.name in self._seen else self._metrics.get(metric.name)
        self._seen.add(metric.name)
        if own is not None and own._type == metric.type:  # noqa: SLF001
            family = self._families.pop((metric.type, metric.name), None)
            metric.samples = self._merged(metric, own, family)

    def others_only(self) -> Iterator[Metric]:
        """Yield the families that others have, and this worker has nothing of."""
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
            _add_left(family, metric)
            totals = _buckets(family, own) if metric.type == "histogram" else _plain(family)
        created, samples = metric.name + "_created", []
        for sample in metric.samples:
            _, more = totals.pop((sample.name, frozenset(sample.labels.items())), _NOTHING) if totals else _NOTHING
            if any(more):
                value = total_of((sample.value, *more))
                samples.append(Sample(sample.name, sample.labels, value, *sample[3:]))
            elif sample.name != created:  # It is a process's.
                samples.append(sample)
        return samples + [Sample(name, dict(pairs), total_of(more)) for (name, _), (pairs, more) in totals.items()]

    def _gauges(
        self, metric: Metric, mode: str, own: Any, others: dict[UserLabels, tuple[LabelPairs, list[GaugeValue]]]
    ) -> Iterator[Sample]:
        for sample in metric.samples:
            _, others_held = others.pop(frozenset(sample.labels.items()), ((), []))
            mark, is_function = _own_gauge(own, sample)
            # If a function returns it, the sibling most likely has a function, too, whose value isn't in its ledger.
            others_held = [held for held in others_held if not is_function or held.mark != UNTOUCHED]
            yield from _combined(sample, mode, [GaugeValue(self._me, sample.value, mark), *others_held])
        for pairs, others_held in others.values():
            touched = [held for held in others_held if held.mark != UNTOUCHED]
            if touched:
                yield from _combined(Sample(metric.name, dict(pairs), 0.0), mode, touched)


def _add_left(family: UserFamily, metric: Metric) -> None:
    """Add what the worker before has left, but for what another thread has gone on with since the page was begun."""
    present = None
    for key, number in family.left.items():
        if user_values.is_of_living(key.bytes):
            if present is None:
                labels = (sample.labels.items() for sample in metric.samples)
                present = {frozenset(pair for pair in pairs if pair[0] != "le") for pairs in labels}
            if key.labels in present:
                continue
        family.parts.setdefault(key, []).append(number)


def _own_gauge(gauge: Any, sample: Sample) -> tuple[float, bool]:
    """Return the mark of a gauge of this worker, and whether a function returns its value."""
    if gauge._is_parent():  # noqa: SLF001
        gauge = gauge._metrics.get(tuple(map(sample.labels.get, gauge._labelnames)))  # noqa: SLF001
    if gauge is None:  # It was removed meanwhile.
        return UNTOUCHED, False
    return getattr(gauge._value, "mark", UNTOUCHED), "_child_samples" in vars(gauge)  # noqa: SLF001


def _combined(sample: Sample, mode: str, held: list[GaugeValue]) -> Iterator[Sample]:
    """Yield the sample of all workers, or one for each if its mode doesn't define how to add them."""
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


def _plain(family: UserFamily) -> Totals:
    totals: Totals = {}
    for key, parts in family.parts.items():
        totals.setdefault((key.sample, key.labels), (key.pairs, []))[1].extend(parts)
    return totals


def _buckets(family: UserFamily, own: Any) -> Totals:
    """Return the samples of a histogram, cumulated, in this worker's buckets if it has any."""
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
            within = "le", end
            totals[f"{name}_bucket", labels | {within}] = (*pairs, within), [number]
        totals[f"{name}_count", labels] = pairs, [count]
        if bounds[0] >= 0:  # As prometheus_client has it.
            totals[f"{name}_sum", labels] = pairs, total
    return totals
