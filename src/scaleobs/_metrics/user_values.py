"""The values of the user's own prometheus_client metrics, kept in the ledger of this worker, which siblings read."""

from __future__ import annotations

import copy
import itertools
import json
import math
import sys
import threading
import weakref
from collections.abc import Collection, Iterable
from typing import Any

from prometheus_client import CollectorRegistry, values
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.samples import Exemplar

from scaleobs._metrics.child import Slots
from scaleobs._workers import Group
from scaleobs._workers.kinds import Kind

TYPES = frozenset({"counter", "gauge", "histogram", "summary"})
"""Metrics that have values. An Info and an Enum have texts."""

ATTRIBUTES = ("_value", "_sum", "_count", "_buckets")
"""The attributes in which a metric has its values."""


def metrics_of(registry: CollectorRegistry) -> list[Any]:
    """Return the metrics with values that are registered, each with all its labels."""
    return [metric for metric in wrappers_of(registry) if metric._type in TYPES]  # noqa: SLF001


def children_of(metric: Any) -> list[Any]:
    """Return the children of a metric, one for each label set; the metric itself if it has no labels."""
    return list(metric._metrics.copy().values()) if metric._is_parent() else [metric]  # noqa: SLF001


def wrappers_of(registry: CollectorRegistry) -> list[Any]:
    """Return the metrics of all types that are registered."""
    return [one for one in _collectors_of(registry) if isinstance(one, MetricWrapperBase)]


def _collectors_of(registry: CollectorRegistry) -> list[Any]:
    return list(getattr(registry, "_collector_to_names", {}).copy())


def values_of(series: Any) -> list[Any]:
    """Return the values of a label set."""
    found = vars(series)
    return [*(found[name] for name in ATTRIBUTES[:-1] if name in found), *found.get("_buckets", ())]


def has_own_mode(registry: CollectorRegistry) -> bool:
    """Return whether a registry shows what prometheus_client's own multiprocess mode has collected."""
    multiprocess = sys.modules.get("prometheus_client.multiprocess")
    kind = None if multiprocess is None else multiprocess.MultiProcessCollector
    return kind is not None and any(isinstance(collector, kind) for collector in _collectors_of(registry))


NOBODYS, UNTOUCHED, TOUCHED = range(3)
"""The second number of a gauge: whether its worker lives and has set it, or the time of that if its mode needs it."""

_group: Group | None = None

# Of all values that there are in this process, each with a key of its own.
_living: weakref.WeakValueDictionary[bytes, SharedValue] = weakref.WeakValueDictionary()

# What a parent had counted when this process was forked, in values that aren't shared yet. It holds the values, so
# that no other one gets the same id.
_inherited: dict[int, tuple[Any, float]] = {}


class SharedValue:
    """
    A number of a user's metric, in the place of prometheus_client's own values.

    Any thread may call anything. In a process without a group, and if a ledger has no room, it is this
    process's alone.

    Attributes:
        key: what it is called in a ledger: JSON of the arguments, and which one of this process with them it is.
    """

    __slots__ = ("__weakref__", "_exemplar", "_is_gauge", "_is_new", "_lock", "_slots", "_value", "key")

    _multiprocess = False

    def __init__(  # noqa: PLR0917 - As prometheus_client calls it.
        self,
        typ: str,
        metric_name: str,
        name: str,
        labelnames: Iterable[str],
        labelvalues: Iterable[str],
        help_text: str,
        multiprocess_mode: str = "",
        **_: Any,
    ) -> None:
        self._is_new = self._is_gauge = typ == "gauge"
        self._slots: Slots = [0.0, float(UNTOUCHED)]
        self._lock = threading.Lock()
        self._value = 0.0
        self._exemplar: Exemplar | None = None
        arguments = typ, metric_name, name, [*labelnames], [*labelvalues], help_text, multiprocess_mode
        # Two registries may have the same metric, which is made in the same order in each worker.
        for position in itertools.count():
            self.key = json.dumps([*arguments, position], default=str).encode()
            if _living.setdefault(self.key, self) is self:
                break
        if _group is not None:
            self.join(_group)

    def inc(self, amount: float) -> None:
        """Add an amount."""
        with self._lock:
            self._value = self._slots[0] = self._value + amount
            if self._is_new:
                self._touch(TOUCHED)

    def set(self, value: float, timestamp: float | None = None) -> None:
        """Set the number, and its time if one is given."""
        with self._lock:
            self._value = self._slots[0] = value
            if timestamp or self._is_new:
                self._touch(timestamp or TOUCHED)

    def get(self) -> float:
        """Return the number."""
        return self._value

    def set_exemplar(self, exemplar: Exemplar) -> None:
        """Keep an exemplar, in this process."""
        self._exemplar = exemplar

    def get_exemplar(self) -> Exemplar | None:
        """Return the exemplar."""
        return self._exemplar

    @property
    def mark(self) -> float:
        """Whether a gauge has been set, or when."""
        return float(self._slots[1])

    def join(self, group: Group) -> None:
        """Go on in a group's ledger; a gauge with what it is now, others with what is there and what they have."""
        slots = group.slots(Kind.USER_VALUE, self.key, 2)
        with self._lock:
            if not self._is_gauge and math.isfinite(slots[0]):
                self._value += slots[0]
            slots[0], slots[1] = self._value, self._slots[1]
            self._slots = slots

    def leave(self) -> None:
        """Begin anew in a child process, in its own memory; a gauge keeps its number."""
        self._lock = threading.Lock()
        if not self._is_gauge:
            self._value, self._exemplar = 0.0, None
        self._slots = [self._value, self.mark]

    def _touch(self, mark: float) -> None:
        self._is_new = False
        self._slots[1] = mark

    def __del__(self) -> None:
        # Labels that the user has removed. Counts stay: an application that ends lets go of its metrics, too.
        if self._is_gauge:
            self._slots[1] = 0.0  # NOBODYS, when the interpreter ends and names are gone.


def current() -> Group | None:
    """Return the group that this process shares its values with."""
    return _group


def is_of_living(key: bytes) -> bool:
    """Return whether a metric of this process has the value of this key."""
    return key in _living


def foreign_to(registry: CollectorRegistry) -> set[bytes]:
    """Return the keys of all values of this process that aren't this registry's."""
    keys = {value.key for value in _alive()}
    for metric in metrics_of(registry):
        keys.difference_update(one.key for each in children_of(metric) for one in values_of(each) if _is_shared(one))
    return keys


def _alive() -> list[SharedValue]:
    # Other threads may be making some.
    return [value for ref in _living.valuerefs() if (value := ref()) is not None]


def join(group: Group, registries: Collection[CollectorRegistry]) -> None:
    """
    Share the values of all metrics of these registries, and of all metrics to come, with a group.

    May be called again, with more registries. Leaves everything as it is if prometheus_client's own multiprocess
    mode is set up: its page is read from files that nobody would write any more. Never raises.
    """
    global _group  # noqa: PLW0603 - A process is in one group.
    if group is not _group:
        if any(map(has_own_mode, registries)):
            return
        for _, key, slots in group.ledger.kept(Kind.USER_VALUE):
            if key.startswith(b'["gauge"'):
                slots[1] = NOBODYS
        _group = group
        values.ValueClass = SharedValue
        for value in _alive():
            value.join(group)
    for each in [each for registry in registries for metric in metrics_of(registry) for each in children_of(metric)]:
        try:
            _share(each)
        except Exception as error:
            group.trouble(error)
    _inherited.clear()


def forked(registries: Iterable[CollectorRegistry]) -> None:
    """Forget the parent's group and its counts in a child process, and the locks that a thread of it may have held."""
    global _group  # noqa: PLW0603 - A process is in one group.
    _group = None
    for value in _alive():
        value.leave()
    _inherited.clear()
    for registry in registries:
        registry._lock = threading.RLock()  # type: ignore[assignment]  # noqa: SLF001
        for metric in wrappers_of(registry):
            for each in (metric, *children_of(metric)):
                if "_lock" in vars(each):
                    each._lock = threading.RLock()  # noqa: SLF001
                if each._type in TYPES - {"gauge"}:  # noqa: SLF001
                    plain = (value for value in values_of(each) if not _is_shared(value))
                    _inherited.update({id(value): (value, value._value) for value in plain})  # noqa: SLF001


def _is_shared(value: Any) -> bool:
    return isinstance(value, SharedValue)


def _share(series: Any) -> None:
    """Give a metric values that are shared, with what the ones before hold."""
    before = values_of(series)
    if all(map(_is_shared, before)):
        return
    # On a copy, as another thread may be counting: the metric never has half of its values.
    fresh = copy.copy(series)
    fresh._metric_init()  # noqa: SLF001
    for name in ATTRIBUTES:
        if name in vars(fresh):
            setattr(series, name, vars(fresh)[name])
    for old, new in zip(before, values_of(fresh), strict=True):
        _, parents = _inherited.get(id(old), (None, 0.0))
        amount = old._value  # noqa: SLF001
        # One of prometheus_client's multiprocess mode begins anew by itself in a child.
        amount -= parents if amount >= parents else 0.0
        if amount:
            new.inc(amount)
        exemplar = getattr(old, "_exemplar", None)
        if exemplar is not None and not parents:
            new.set_exemplar(exemplar)
