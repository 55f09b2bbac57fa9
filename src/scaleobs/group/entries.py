"""What the bytes of a ledger mean: a header, then entries, each some numbers under a key; only numbers ever change."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from operator import le
from typing import NamedTuple

MAGIC = b"scaleob1"

HEADER = struct.Struct("=8sQQd")
"""The magic; how many bytes are used; the owner, 0 while it takes over; nothing yet."""

ENTRY = struct.Struct("=IIHH4x")
"""How long the entry is; how long its key is; how many numbers it has; what it is."""

GROWING = 16
"""Numbers of a kind below this never fall, whatever else they are."""

MOST = 2.0**53
"""Where counting ends: adding one changes nothing any more."""


# Each key once, however many ledgers have it.
_names: dict[bytes, bytes] = {}


class Entry(NamedTuple):
    """Some numbers of a ledger: what they are, of which series; where it begins; from where to where they are."""

    kind: int
    key: bytes
    begin: int
    start: int
    end: int


class DamagedError(Exception):
    """What is in a ledger isn't what was written there."""


def is_blank(data: bytes) -> bool:
    """Return whether nobody has written a header, as in a ledger that is being begun."""
    return not data[: HEADER.size].strip(b"\0")


def used_of(data: bytes, *, is_whole: bool = True) -> tuple[int, int]:
    """
    Return how many bytes are used, and the owner.

    Raises:
        DamagedError: they can't be.
    """
    if len(data) < HEADER.size or not data.startswith(MAGIC):
        raise DamagedError
    _, used, owner, _ = HEADER.unpack_from(data)
    if used % ENTRY.size or used < HEADER.size or (is_whole and used > len(data)):
        raise DamagedError
    return used, owner


def entries_from(data: bytes, begin: int, used: int) -> list[Entry]:
    """
    Return the entries from where one begins to where the last one ends.

    Raises:
        DamagedError: there are no entries there.
    """
    found = []
    while begin < used:
        whole, key, length, kind = ENTRY.unpack_from(data, begin)
        cells = begin + ENTRY.size + padded(key, 8)
        end = begin + whole
        if not whole or whole % ENTRY.size or end > used or (kind and padded(cells + length * 8, ENTRY.size) != end):
            raise DamagedError
        if kind:
            name = data[begin + ENTRY.size : begin + ENTRY.size + key]
            found.append(Entry(kind, _names.setdefault(name, name), begin, cells // 8, cells // 8 + length))
        begin = end
    return found


def entries_of(data: bytes) -> list[Entry]:
    """Return all entries, and none where they aren't whole."""
    try:
        return entries_from(data, HEADER.size, used_of(data)[0])
    except DamagedError:
        return []


def numbers_of(data: bytes) -> memoryview[float]:
    """Return data as numbers, as far as it is whole ones."""
    return memoryview(data)[: len(data) // 8 * 8].cast("d")


def has_fallen(then: bytes, now: bytes, entries: Sequence[Entry] = ()) -> bool:
    """
    Return whether a number that never falls has fallen, or is none any more, or is gone.

    Args:
        then: a copy, or nothing.
        now: what it has become.
        entries: those of today, where they are known, which is faster.
    """
    return bool(then) and not (entries and _has_grown(then, now, entries)) and _has_fallen(then, now)


def _has_grown(then: bytes, now: bytes, entries: Sequence[Entry]) -> bool:
    """Return whether all is well for sure; otherwise it is still to be found out."""
    before, numbers = numbers_of(then), numbers_of(now)
    try:
        used, _ = used_of(then)
    except DamagedError:
        return False
    if len(now) < used:
        return False
    for kind, _, begin, start, end in entries:
        if end * 8 > used:
            break
        if kind < GROWING and then[begin : end * 8] != now[begin : end * 8]:
            old, new = before[start:end].tolist(), numbers[start:end].tolist()
            if then[begin : start * 8] != now[begin : start * 8] or not all(map(le, old, new)) or not max(new) < MOST:
                return False
    return used <= used_of(now)[0]


def _has_fallen(then: bytes, now: bytes) -> bool:
    numbers, entries = numbers_of(now), {(entry.kind, entry.key): entry for entry in entries_of(now)}
    before = numbers_of(then)
    for entry in entries_of(then):
        if entry.kind < GROWING:
            same = entries.get((entry.kind, entry.key))
            if same is None or same.end - same.start != entry.end - entry.start:
                return True
            both = zip(before[entry.start : entry.end], numbers[same.start : same.end], strict=True)
            if not all(old <= new < MOST for old, new in both):
                return True
    return False


def padded(length: int, to: int) -> int:
    """Return the next multiple."""
    return -(-length // to) * to
