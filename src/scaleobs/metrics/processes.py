"""What the operating system and the garbage collector say of all workers together."""

from __future__ import annotations

import atexit
import gc
import os
from operator import add

from prometheus_client import GC_COLLECTOR, ProcessCollector
from prometheus_client.core import Metric

from scaleobs.group import FullError, Group, Other

_KIND, _KEY = 6, b"process"
_CPU = "process_cpu_seconds"
_START = "process_start_time_seconds"
_OLDEST = 2
_STATISTICS = ("collected", "uncollectable", "collections")


class Processes:
    """
    The `process_*` and `python_gc_*` families of a group.

    Memory and file descriptors are sums of the living. What only grows is kept in the ledgers: the CPU time as of the
    last scrape or a worker's orderly end, the garbage collector's counts as of its last full collection.

    Args:
        group: the workers.
    """

    def __init__(self, group: Group) -> None:
        self._group = group
        self._owner = os.getpid()
        self._length = 1 + len(_garbage())
        try:
            cells = group.ledger.cells(_KIND, _KEY, 2 * self._length)
        except FullError as error:
            group.trouble(error)
            cells = memoryview(bytearray(16 * self._length)).cast("d")
        # What those before this process have counted, then what it has itself.
        self._before, self._now = cells[: self._length], cells[self._length :]
        for place, number in enumerate(self._now):
            self._before[place] += number
            self._now[place] = 0
        gc.callbacks.append(self._collected)
        atexit.register(self.note)

    def note(self) -> None:
        """Write down what this process has used so far."""
        if os.getpid() != self._owner:  # A child of it, in which this lives on.
            return
        for place, number in enumerate((_cpu(_families_of("self")), *_garbage())):
            self._now[place] = max(self._now[place], number)

    def families(self, others: list[Other]) -> dict[str, Metric]:
        """Return the families by name."""
        self.note()
        found = _families_of("self")
        grown = list(map(add, self._before, self._now))
        for other in others:
            cells = next((entry for entry in other.entries if (entry.kind, entry.key) == (_KIND, _KEY)), None)
            if other.is_living:
                theirs = _families_of(str(other.owner))
                for name, metric in theirs.items():
                    _value(found[name], _value(found[name]) + _value(metric))
                if cells is not None and cells.end - cells.start == 2 * self._length:
                    middle = cells.start + self._length
                    other.numbers[middle] = max(other.numbers[middle], _cpu(theirs))
                    other.write(middle, other.numbers[middle])
            if cells is not None and cells.end - cells.start == 2 * self._length:
                numbers = other.numbers[cells.start : cells.end]
                grown = list(map(add, grown, map(add, numbers[: self._length], numbers[self._length :])))
        return self._filled(found, grown)

    def _filled(self, found: dict[str, Metric], grown: list[float]) -> dict[str, Metric]:
        if found:
            _value(found[_CPU], grown[0])
            _value(found[_START], self._group.started)
        garbage = {metric.name: metric for metric in GC_COLLECTOR.collect()}
        numbers = iter(grown[1:])
        for metric in garbage.values():
            metric.samples = [sample._replace(value=next(numbers)) for sample in metric.samples]
        return found | garbage

    def _collected(self, phase: str, info: dict[str, int]) -> None:
        if phase == "stop" and info["generation"] == _OLDEST and os.getpid() == self._owner:
            for place, number in enumerate(_garbage(), start=1):
                self._now[place] = number


def _families_of(pid: str) -> dict[str, Metric]:
    return {metric.name: metric for metric in ProcessCollector(pid=lambda: pid, registry=None).collect()}


def _garbage() -> list[float]:
    """Return the counts of the collector, in the order of prometheus_client's families."""
    return [each[name] for name in _STATISTICS for each in gc.get_stats()]


def _cpu(families: dict[str, Metric]) -> float:
    return _value(families[_CPU]) if _CPU in families else 0.0


def _value(metric: Metric, value: float | None = None) -> float:
    """Return the value of the only sample, after giving it another one, if there is one."""
    if value is not None:
        metric.samples = [metric.samples[0]._replace(value=value)]
    return float(metric.samples[0].value)
