"""The process and garbage collector metrics of all workers together."""

from __future__ import annotations

import atexit
import gc
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import GC_COLLECTOR, ProcessCollector
from prometheus_client.core import Metric

from scaleobs._metrics.child import total_of
from scaleobs._workers import Group, Slots
from scaleobs._workers.kinds import Kind

_KEY = b"process"

_CPU = "process_cpu_seconds"
_START = "process_start_time_seconds"
_PREFIXES = ("process_", "python_gc_")
_OLDEST = 2
_STATISTICS = ("collected", "uncollectable", "collections")


_mine: _Processes | None = None


def join(group: Group) -> None:
    """Keep what this process uses in the ledger of its group, and show that of all workers from now on."""
    global _mine  # noqa: PLW0603 - A process is in one group.
    if _mine is None:
        _mine = _Processes(group)


def forked() -> None:
    """Forget the group of the process that this one is a child of."""
    global _mine  # noqa: PLW0603 - A process is in one group.
    if _mine is not None:
        _mine.leave()
        _mine = None


def of_all_workers(metrics: Iterable[Metric], on_fault: Callable[[Exception], None]) -> Iterator[Metric]:
    """Yield families, those of this process replaced by those of all workers; its own if that fails."""
    found: dict[str, Metric] | None = None
    for metric in metrics:
        if _mine is not None and metric.name.startswith(_PREFIXES):
            if found is None:
                try:
                    found = _mine.families()
                except Exception as error:
                    on_fault(error)
                    found = {}
            yield found.get(metric.name, metric)
        else:
            yield metric


class _Processes:
    """
    The `process_*` and `python_gc_*` families of a group.

    Memory and file descriptors are sums of the living. What only grows is kept in the ledgers: the CPU time as of the
    last scrape or a worker's orderly end, the garbage collector's counts as of its last full collection.

    Args:
        group: the workers.
    """

    def __init__(self, group: Group) -> None:
        self._group = group
        self._length = 1 + len(_garbage())
        # What those before this process have counted, then what it has itself.
        self._before, self._now = _halves(group.slots(Kind.PROCESS, _KEY, 2 * self._length))
        seen = group.slots(Kind.CPU, _KEY, 1)
        self._now[0], seen[0] = max(self._now[0], seen[0]), 0.0
        for position, number in enumerate(self._now):
            self._before[position] += number
            self._now[position] = 0
        gc.callbacks.append(self._collected)
        atexit.register(self._note)

    def leave(self) -> None:
        """Write nothing any more."""
        gc.callbacks.remove(self._collected)
        atexit.unregister(self._note)

    def _note(self) -> None:
        for position, number in enumerate((_cpu(_families_of("self")), *_garbage())):
            self._now[position] = max(self._now[position], number)

    def families(self) -> dict[str, Metric]:
        """Return the families by name."""
        self._note()
        found = _families_of("self")
        grown = [list(both) for both in zip(self._before, self._now, strict=True)]
        for other in self._group.peek():
            cpu = 0.0
            if other.is_living:
                families = _families_of(str(other.owner))
                cpu = _cpu(families)
                for name, metric in families.items():
                    _value(found[name], _value(found[name]) + _value(metric))
            counted, seen = other.find(Kind.PROCESS, _KEY, 2 * self._length), other.find(Kind.CPU, _KEY, 1)
            if seen is not None:
                recorded = other.part(seen)[0]
                if cpu > recorded:
                    other.write(seen, cpu)
                cpu = max(cpu, recorded)
            if counted is not None:
                before, now = (list(half) for half in _halves(other.part(counted)))
                now[0] = max(now[0], cpu)
                for each, *both in zip(grown, before, now, strict=True):
                    each.extend(both)
        return self._filled(found, list(map(total_of, grown)))

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
        if phase == "stop" and info["generation"] == _OLDEST:
            for position, number in enumerate(_garbage(), start=1):
                self._now[position] = number


def _halves(numbers: Slots) -> tuple[Slots, Slots]:
    return numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :]


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
