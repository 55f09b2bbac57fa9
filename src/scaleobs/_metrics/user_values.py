"""The values of the user's own prometheus_client metrics, in the ledger of this worker, which siblings read."""

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
"""The types of metrics with values; `Info` and `Enum` have texts."""

ATTRIBUTES = ("_value", "_sum", "_count", "_buckets")
"""The attributes of a metric that hold its values."""


def metrics_of(registry: CollectorRegistry) -> list[Any]:
    """Return the registered metrics that have values."""
    return [metric for metric in wrappers_of(registry) if metric._type in TYPES]  # noqa: SLF001


def children_of(metric: Any) -> list[Any]:
    """Return the children of a metric, one for each label set; the metric itself if it has no labels."""
    return list(metric._metrics.copy().values()) if metric._is_parent() else [metric]  # noqa: SLF001


def wrappers_of(registry: CollectorRegistry) -> list[Any]:
    """Return the registered metrics of all types."""
    return [one for one in _collectors_of(registry) if isinstance(one, MetricWrapperBase)]


def _collectors_of(registry: CollectorRegistry) -> list[Any]:
    return list(getattr(registry, "_collector_to_names", {}).copy())


def values_of(series: Any) -> list[Any]:
    """Return the values of one label set."""
    found = vars(series)
    return [*(found[name] for name in ATTRIBUTES[:-1] if name in found), *found.get("_buckets", ())]


def has_multiprocess_mode(registry: CollectorRegistry) -> bool:
    """Return whether a registry uses the multiprocess mode of prometheus_client."""
    multiprocess = sys.modules.get("prometheus_client.multiprocess")
    kind = None if multiprocess is None else multiprocess.MultiProcessCollector
    return kind is not None and any(isinstance(collector, kind) for collector in _collectors_of(registry))


OWNERLESS, UNSET, SET = range(3)
"""The mark of a gauge: removed, or its worker is dead; not set; set. Some modes need the time it was set."""

_GAUGE = b'["gauge"'
"""The beginning of a gauge's key."""

_group: Group | None = None

# All values of this process, by key.
_by_key: weakref.WeakValueDictionary[bytes, SharedValue] = weakref.WeakValueDictionary()

# The counts of the parent when this process was forked, of values that are not shared yet. The reference to the value
# keeps its id, which is the key, unique.
_parent_counts: dict[int, tuple[Any, float]] = {}


class SharedValue:
    """
    A value of a user's metric, which replaces prometheus_client's own class.

    Thread-safe. Without a group, and if the ledger is full, the value is in the memory of this process.

    Attributes:
        key: the key in a ledger: the arguments as JSON, with a number that makes the key unique in this process.
    """

    __slots__ = ("__weakref__", "_exemplar", "_is_gauge", "_is_unset", "_lock", "_slots", "_value", "key")

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
        self._is_unset = self._is_gauge = typ == "gauge"
        self._slots: Slots = [0.0, float(UNSET)]
        self._lock = threading.Lock()
        self._value = 0.0
        self._exemplar: Exemplar | None = None
        arguments = typ, metric_name, name, [*labelnames], [*labelvalues], help_text, multiprocess_mode
        # Two registries may have the same metric. Each worker creates them in the same order.
        for position in itertools.count():
            self.key = json.dumps([*arguments, position], default=str).encode()
            if _by_key.setdefault(self.key, self) is self:
                break
        if _group is not None:
            self.join(_group)

    def inc(self, amount: float) -> None:
        """Add an amount."""
        with self._lock:
            self._value = self._slots[0] = self._value + amount
            if self._is_unset:
                self._set_mark(SET)

    def set(self, value: float, timestamp: float | None = None) -> None:
        """Set the value, and its time if one is given."""
        with self._lock:
            self._value = self._slots[0] = value
            if timestamp or self._is_unset:
                self._set_mark(timestamp or SET)

    def get(self) -> float:
        """Return the value."""
        return self._value

    def set_exemplar(self, exemplar: Exemplar) -> None:
        """Keep an exemplar in this process."""
        self._exemplar = exemplar

    def get_exemplar(self) -> Exemplar | None:
        """Return the exemplar."""
        return self._exemplar

    @property
    def mark(self) -> float:
        """The mark of a gauge; see `SET`."""
        return float(self._slots[1])

    def join(self, group: Group | None) -> None:
        """
        Continue in the ledger of a group: a gauge keeps its value, others add the value in the ledger.

        `None`: continue in this process's memory.
        """
        slots = [0.0, 0.0] if group is None else group.slots(Kind.USER_VALUE, self.key, 2)
        with self._lock:
            if not self._is_gauge and math.isfinite(slots[0]):
                self._value += slots[0]
            slots[0], slots[1] = self._value, self._slots[1]
            self._slots = slots

    def leave(self) -> None:
        """Reset in a child process, to its own memory; a gauge keeps its value."""
        self._lock = threading.Lock()
        if not self._is_gauge:
            self._value, self._exemplar = 0.0, None
        self._slots = [self._value, self.mark]

    def _set_mark(self, mark: float) -> None:
        self._is_unset = False
        self._slots[1] = mark

    def __del__(self) -> None:
        # The user has removed the label set. Counts stay: the metrics of an application that ends are collected, too.
        if self._is_gauge:
            self._slots[1] = 0.0  # OWNERLESS: this module's names may be gone when the interpreter ends.


def current_group() -> Group | None:
    """Return the group of this process."""
    return _group


def is_in_use(key: bytes) -> bool:
    """Return whether a metric of this process uses this key."""
    return key in _by_key


def keys_outside(registry: CollectorRegistry) -> set[bytes]:
    """Return the keys of all values of this process that do not belong to a registry."""
    keys = {value.key for value in _current_values()}
    for metric in metrics_of(registry):
        keys.difference_update(one.key for each in children_of(metric) for one in values_of(each) if _is_shared(one))
    return keys


def _current_values() -> list[SharedValue]:
    # Other threads may create values at the same time.
    return [value for ref in _by_key.valuerefs() if (value := ref()) is not None]


def join(group: Group | None, registries: Collection[CollectorRegistry]) -> None:
    """
    Move the values of all metrics of these registries, and of all later metrics, to the ledger of a group.

    May be called again, with more registries, with another group, or with none: then to this process's memory. Changes
    nothing if prometheus_client's multiprocess mode is set up: its page is read from files that would no longer be
    written. Never raises.
    """
    if group is not _group:
        if any(map(has_multiprocess_mode, registries)):
            return
        _move(group)
    for each in [each for registry in registries for metric in metrics_of(registry) for each in children_of(metric)]:
        try:
            _share(each)
        except Exception as error:
            if group is not None:
                group.report_once(error)
    _parent_counts.clear()


def _move(group: Group | None) -> None:
    global _group
    left, _group = _group, group
    values.ValueClass = SharedValue
    for _, key, slots in () if group is None else group.ledger.entries(Kind.USER_VALUE):
        if key.startswith(_GAUGE):
            slots[1] = OWNERLESS
    for value in _current_values():
        value.join(group)
    if left is not None and group is not None:
        for kind, key, slots in left.ledger.entries(Kind.USER_VALUE):
            # Counts of dead workers that no metric of this process has continued.
            if not is_in_use(key) and not key.startswith(_GAUGE):
                group.slots(kind, key, len(slots))[0] += slots[0]


def forked(registries: Iterable[CollectorRegistry]) -> None:
    """Reset in a child process: drop the parent's group and counts, and replace locks that its threads may hold."""
    global _group  # noqa: PLW0603 - A process is in one group.
    _group = None
    for value in _current_values():
        value.leave()
    _parent_counts.clear()
    for registry in registries:
        registry._lock = threading.RLock()  # type: ignore[assignment]  # noqa: SLF001
        for metric in wrappers_of(registry):
            for each in (metric, *children_of(metric)):
                if "_lock" in vars(each):
                    each._lock = threading.RLock()  # noqa: SLF001
                if each._type in TYPES - {"gauge"}:  # noqa: SLF001
                    plain = (value for value in values_of(each) if not _is_shared(value))
                    _parent_counts.update({id(value): (value, value._value) for value in plain})  # noqa: SLF001


def _is_shared(value: Any) -> bool:
    return isinstance(value, SharedValue)


def _share(series: Any) -> None:
    """Replace the values of a metric by shared ones with the same numbers."""
    before = values_of(series)
    if all(map(_is_shared, before)):
        return
    # On a copy: another thread may count at the same time, and needs all values of the metric.
    fresh = copy.copy(series)
    fresh._metric_init()  # noqa: SLF001
    for name in ATTRIBUTES:
        if name in vars(fresh):
            setattr(series, name, vars(fresh)[name])
    for old, new in zip(before, values_of(fresh), strict=True):
        _, parent_count = _parent_counts.get(id(old), (None, 0.0))
        amount = old._value  # noqa: SLF001
        # A value of prometheus_client's multiprocess mode has reset itself in the child.
        amount -= parent_count if amount >= parent_count else 0.0
        if amount:
            new.inc(amount)
        exemplar = getattr(old, "_exemplar", None)
        if exemplar is not None and not parent_count:
            new.set_exemplar(exemplar)
