"""A format in which every sample says which worker it is of, for workers that have no place to add up in."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from prometheus_client.core import Metric

from scaleobs.metrics.formats import Format
from scaleobs.metrics.series import Labels

_WORKER = "worker"


class Apart:
    """
    Writes as another format does, with one label more.

    Without it, the counts of each worker that happens to answer would seem to be the service's, and fall with the next.

    Args:
        to: the format.
        worker: what to call this worker.
    """

    def __init__(self, to: Format, worker: str) -> None:
        self._to = to
        self._worker = worker

    def __getattr__(self, name: str) -> Any:
        return getattr(self._to, name)

    def labels(self, names: tuple[str, ...], values: Labels) -> bytes:
        """Return the labels of a series as they stand within a sample."""
        return self._to.labels((*names, _WORKER), (*values, self._worker))  # type: ignore[arg-type] # One more.

    def family(self, metric: Metric) -> Iterator[bytes]:
        """Yield a family of prometheus_client."""
        told = copy.copy(metric)
        told.samples = [one._replace(labels={**one.labels, _WORKER: self._worker}) for one in metric.samples]
        return self._to.family(told)
