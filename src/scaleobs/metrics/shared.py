"""What the other workers have of the user's own prometheus_client metrics, as their ledgers say."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

from prometheus_client import CollectorRegistry

from scaleobs.group import Group
from scaleobs.group.entries import Entry
from scaleobs.group.kinds import Kind
from scaleobs.metrics import values
from scaleobs.metrics.values import NOBODYS
from scaleobs.metrics.wrappers import TYPES

Labels = frozenset[tuple[str, str]]
Pairs = tuple[tuple[str, str], ...]

_CELLS = 2
"""The number and its mark."""


class Held(NamedTuple):
    """What one living worker's gauge says."""

    worker: str
    value: float
    mark: float


class Family:
    """
    What others have of one family.

    Attributes:
        key: of any of its numbers.
        parts: of everything that adds up: of the living and the dead, as long as it isn't cumulated.
        left: the same of the worker before this one, of what this one hasn't counted when the page was begun.
        gauges: of the living, by labels.
    """

    def __init__(self, key: Key) -> None:
        self.key = key
        self.parts: dict[Key, list[float]] = {}
        self.left: dict[Key, float] = {}
        self.gauges: dict[Labels, tuple[Pairs, list[Held]]] = {}


class Key:
    """What a number in a ledger is. The same bytes give the same object, so that it is found by identity."""

    __slots__ = ("bound", "bytes", "family", "help", "labels", "mode", "pairs", "sample", "type")

    def __init__(self, key: bytes) -> None:
        kind, family, sample, names, label_values, told, mode, _ = json.loads(key)
        pairs = tuple(zip(map(str, names), map(str, label_values), strict=True))
        self.bound = math.nan
        if kind == "histogram" and sample.endswith("_bucket"):
            *pairs_before, (_, bound) = pairs
            pairs, self.bound = tuple(pairs_before), float(bound)
        self.bytes, self.type, self.family, self.sample = key, str(kind), str(family), str(sample)
        self.help, self.mode, self.pairs, self.labels = str(told), str(mode), pairs, frozenset(pairs)


@lru_cache(maxsize=8192)
def _key_of(key: bytes) -> Key | None:
    try:
        found = Key(key)
    except (ValueError, TypeError, AttributeError):  # A ledger may be damaged.
        return None
    return found if found.type in TYPES else None


class _Positions:
    """Where the values of a sibling are in its ledger."""

    def __init__(self) -> None:
        self.found: dict[bytes, tuple[Key, int]] = {}

    def add(self, entries: Mapping[Kind, list[Entry]]) -> None:
        """Add what is new in the ledger."""
        for entry in entries.get(Kind.USER_VALUE, ()):
            key = _key_of(entry.key)
            if key is not None and entry.end - entry.start == _CELLS:
                self.found[entry.key] = key, entry.start


def held_by_others(registry: CollectorRegistry, group: Group) -> dict[tuple[str, str], Family]:
    """
    Return the families that others have values of, by type and name: of the living, of the dead, and of the worker
    before in this one's ledger.

    Values of metrics that are another registry's in this process are left out.
    """
    families: dict[tuple[str, str], Family] = {}
    foreign = values.foreign_to(registry)
    parts: dict[Key, list[float]] = defaultdict(list)
    for other in group.peek():
        # Another thread may find more meanwhile.
        places, numbers = list(other.view(_Positions, _Positions).found.values()), other.numbers
        end, is_living, worker = len(numbers) - 1, other.is_living, other.path.stem
        for key, place in places:
            if place >= end:  # Another thread is reading it.
                continue
            if key.type != "gauge":
                parts[key].append(numbers[place])
            elif is_living and numbers[place + 1] != NOBODYS and key.bytes not in foreign:
                gauges = _family_of(key, families).gauges
                gauges.setdefault(key.labels, (key.pairs, []))[1].append(Held(worker, *numbers[place : place + _CELLS]))
    for key, number in _left_by_the_one_before(group):
        if key.bytes not in foreign:
            _family_of(key, families).left[key] = number
    for key, each in parts.items():
        if key.bytes not in foreign and not math.isnan(sum(each)):
            _family_of(key, families).parts[key] = each
    return families


def _left_by_the_one_before(group: Group) -> Iterator[tuple[Key, float]]:
    for _, packed, cells in group.ledger.kept(Kind.USER_VALUE):
        key = _key_of(packed) if not values.is_of_living(packed) else None
        if key is not None and key.type != "gauge" and len(cells) == _CELLS and not math.isnan(cells[0]):
            yield key, cells[0]


def _family_of(key: Key, families: dict[tuple[str, str], Family]) -> Family:
    name = key.type, key.family
    found = families.get(name)
    if found is None:
        found = families[name] = Family(key)
    return found
