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


_processes: _Processes | None = None


def join(group: Group | None) -> None:
    """
    Write the numbers of this process to the ledger of its group, and add up all workers from now on.

    A process may join another group later, or none: then it takes the numbers along that it has continued.
    """
    global _processes  # noqa: PLW0603 - A process is in one group.
    before = _processes
    if group is None or (before is not None and before.group is not group):
        forked()
    if group is not None and _processes is None:
        _processes = _Processes(group)
        if before is not None:
            _processes.add_earlier(before)


def forked() -> None:
    """Leave the parent's group, in a child process."""
    global _processes  # noqa: PLW0603 - A process is in one group.
    if _processes is not None:
        _processes.leave()
        _processes = None


def of_all_workers(metrics: Iterable[Metric | None], on_fault: Callable[[Exception], None]) -> Iterator[Metric | None]:
    """Yield families with the sums over all workers; if that fails, with the numbers of this process."""
    found: dict[str, Metric] | None = None
    for metric in metrics:
        if metric is not None and _processes is not None and metric.name.startswith(_PREFIXES):
            if found is None:
                try:
                    found = _processes.families()
                except Exception as error:
                    on_fault(error)
                    found = {}
            yield found.get(metric.name, metric)
        else:
            yield metric


class _Processes:
    """
    The `process_*` and `python_gc_*` families of a group.

    Memory and file descriptors are sums over the living workers. Counters are in the ledgers: the CPU time as of the
    last scrape or the regular end of a worker, the counts of the garbage collector as of its last full collection.

    Args:
        group: the workers.
    """

    def __init__(self, group: Group) -> None:
        self.group = group
        self._length = 1 + len(_garbage())
        # The first half: the counts of earlier processes with this ledger. The second half: the counts of this one.
        self._earlier, self._current = _halves(group.slots(Kind.PROCESS, _KEY, 2 * self._length))
        seen = group.slots(Kind.CPU, _KEY, 1)
        self._current[0], seen[0] = max(self._current[0], seen[0]), 0.0
        for position, number in enumerate(self._current):
            self._earlier[position] += number
            self._current[position] = 0
        gc.callbacks.append(self._collected)
        atexit.register(self._record)

    def add_earlier(self, left: _Processes) -> None:
        """Add the counts of earlier processes that this process has continued in another ledger."""
        for position, number in enumerate(left._earlier):
            self._earlier[position] += number

    def leave(self) -> None:
        """Stop writing to the ledger."""
        gc.callbacks.remove(self._collected)
        atexit.unregister(self._record)

    def _record(self) -> None:
        for position, number in enumerate((_cpu(_families_of("self")), *_garbage())):
            self._current[position] = max(self._current[position], number)

    def families(self) -> dict[str, Metric]:
        """Return the families by name."""
        self._record()
        found = _families_of("self")
        counters = [list(both) for both in zip(self._earlier, self._current, strict=True)]
        for other in self.group.peek():
            cpu = 0.0
            if other.is_living:
                families = _families_of(str(other.owner))
                cpu = _cpu(families)
                for name, metric in families.items():
                    _value(found[name], _value(found[name]) + _value(metric))
            counted, seen = other.find(Kind.PROCESS, _KEY, 2 * self._length), other.find(Kind.CPU, _KEY, 1)
            if seen is not None:
                recorded = other.read_slots(seen)[0]
                if cpu > recorded:
                    other.write(seen, cpu)
                cpu = max(cpu, recorded)
            if counted is not None:
                earlier, current = (list(half) for half in _halves(other.read_slots(counted)))
                current[0] = max(current[0], cpu)
                for each, *both in zip(counters, earlier, current, strict=True):
                    each.extend(both)
        return self._filled(found, list(map(total_of, counters)))

    def _filled(self, found: dict[str, Metric], counters: list[float]) -> dict[str, Metric]:
        if found:
            _value(found[_CPU], counters[0])
            _value(found[_START], self.group.started)
        garbage = {metric.name: metric for metric in GC_COLLECTOR.collect()}
        numbers = iter(counters[1:])
        for metric in garbage.values():
            metric.samples = [sample._replace(value=next(numbers)) for sample in metric.samples]
        return found | garbage

    def _collected(self, phase: str, info: dict[str, int]) -> None:
        if phase == "stop" and info["generation"] == _OLDEST:
            for position, number in enumerate(_garbage(), start=1):
                self._current[position] = number


def _halves(numbers: Slots) -> tuple[Slots, Slots]:
    return numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :]


def _families_of(pid: str) -> dict[str, Metric]:
    return {metric.name: metric for metric in ProcessCollector(pid=lambda: pid, registry=None).collect()}


def _garbage() -> list[float]:
    """Return the counts of the garbage collector, in the order of prometheus_client's families."""
    return [each[name] for name in _STATISTICS for each in gc.get_stats()]


def _cpu(families: dict[str, Metric]) -> float:
    return _value(families[_CPU]) if _CPU in families else 0.0


def _value(metric: Metric, value: float | None = None) -> float:
    """Return the value of the only sample; first set it if a value is given."""
    if value is not None:
        metric.samples = [metric.samples[0]._replace(value=value)]
    return float(metric.samples[0].value)
