"""
The user's prometheus_client metrics from inside.

All of it is private, as the public ways take locks that may be held for good after a fork.
"""

from __future__ import annotations

import sys
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase

TYPES = frozenset({"counter", "gauge", "histogram", "summary"})
"""Metrics that have values. An Info and an Enum have texts."""

ATTRIBUTES = ("_value", "_sum", "_count", "_buckets")
"""Where a metric has its values."""


def metrics_of(registry: CollectorRegistry) -> list[Any]:
    """Return the metrics with values that are registered, each with all its labels."""
    return [metric for metric in wrappers_of(registry) if metric._type in TYPES]  # noqa: SLF001


def series_of(metric: Any) -> list[Any]:
    """Return the children of a metric, one for each label set; itself where it has no labels."""
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
