"""Workers of a group in one process, one after the other, for what needs no server."""

from __future__ import annotations

import prometheus_client

from scaleobs._metrics import user_merge, user_values
from scaleobs._workers import Group, Ledger, Sibling


class Worker:
    """A group of one worker, until the test adds siblings."""

    def __init__(self, path):
        self.ledger = Ledger(path)
        self.ledger.open(self.ledger.read())
        self.ledger.set_owner()
        self.siblings = []
        self.errors = []

    slots = Group.slots

    def report_once(self, error):
        self.errors.append(error)

    def peek(self):
        return self.siblings

    def read(self, *workers, are_living=True):
        """Read these workers' ledgers."""
        self.siblings = [Sibling(worker.ledger.path) for worker in workers]
        for sibling in self.siblings:
            sibling.read()
            sibling.is_living = are_living


def workers(monkeypatch, tmp_path):
    """Return a function that creates a worker by its number; a number of a dead worker takes over its ledger."""
    monkeypatch.setattr(prometheus_client.values, "ValueClass", prometheus_client.values.ValueClass)
    monkeypatch.setattr(user_values, "_group", None)
    monkeypatch.setattr(user_values, "_parent_counts", {})
    return lambda number=0: Worker(tmp_path / f"{number}.ledger")


def gone(*registries):
    """Drop all values of this process and leave their slots as they are, as when it is killed."""
    user_values.forked([])
    for registry in registries:
        for collector in list(registry._collector_to_names):
            registry.unregister(collector)


def page(registry, names=(), faults=None):
    """Return the samples of a registry over all workers."""
    reported = [] if faults is None else faults
    collected = registry.restricted_registry(names).collect() if names else registry.collect()
    families = list(user_merge.of_all_workers(registry, collected, names, reported.append))

    assert faults is not None or [] == reported
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value for family in families for sample in family.samples
    }
