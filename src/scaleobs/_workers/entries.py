"""What the bytes of a ledger mean: a header, then entries, each some numbers under a key; only numbers ever change."""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterable
from typing import NamedTuple

from scaleobs._workers.kinds import Kind, Rule

MAGIC = b"scaleob2"
"""Its last byte is the version of the format. A ledger of another version belongs to another group."""

HEADER = struct.Struct("=8sQQd")
"""The magic; how many bytes are used; the owner, 0 while it takes over; nothing yet."""

ENTRY = struct.Struct("=IIHH4x")
"""How long the entry is; how long its key is; how many numbers it has; what it is."""

MOST = 2.0**53
"""Where counting ends: adding one changes nothing any more."""


# Each key once, however many ledgers have it.
_names: dict[bytes, bytes] = {}
_kinds = {int(kind): kind for kind in Kind}


class Entry(NamedTuple):
    """Some numbers of a ledger: what they are, of which series; where it begins; from where to where they are."""

    kind: Kind
    key: bytes
    begin: int
    start: int
    end: int


class DamagedError(Exception):
    """What is in a ledger isn't what was written there."""


class OtherVersionError(DamagedError):
    """A ledger was written by another version of scaleobs, to which it is whole."""


def is_blank(data: bytes) -> bool:
    """Return whether nobody has written a header, as in a ledger that is being begun."""
    return not data[: HEADER.size].strip(b"\0")


def is_of_other_version(data: bytes) -> bool:
    """Return whether another version of scaleobs has written a ledger."""
    name = len(MAGIC) - 1
    return data.startswith(MAGIC[:name]) and data[name : name + 1].isdigit() and not data.startswith(MAGIC)


def used_of(data: bytes, *, is_whole: bool = True) -> tuple[int, int]:
    """
    Return how many bytes are used, and the owner.

    Raises:
        DamagedError: they can't be.
        OtherVersionError: they are another version's.
    """
    if is_of_other_version(data):
        raise OtherVersionError
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
        whole, key, length, number = ENTRY.unpack_from(data, begin)
        kind = _kinds.get(number)
        cells = begin + ENTRY.size + padded(key, 8)
        end = begin + whole
        if not whole or whole % ENTRY.size or end > used:
            raise DamagedError
        if number and (kind is None or padded(cells + length * 8, ENTRY.size) != end):
            raise DamagedError
        if kind is not None:
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


class Shape:
    """
    Which bytes of a ledger never change, and which are numbers that never fall, to compare all of them at once.

    Attributes:
        known: as far as entries were added.
    """

    def __init__(self) -> None:
        self.known = HEADER.size
        self._end = self._length = 0
        self._frames, self._numbers = ["="], ["="]
        self._compiled: tuple[struct.Struct, struct.Struct, int, int] | None = None

    def add(self, entries: Iterable[Entry]) -> None:
        """Add entries that are behind all the others."""
        for kind, _, begin, start, end in entries:
            if kind.rule is Rule.GROWS:
                gap, frame, numbers = begin - self._end, start * 8 - begin, (end - start) * 8
                self._frames.append(f"{gap}x{frame}s{numbers}x")
                self._numbers.append(f"{gap + frame}x{numbers}s")
                self._end = end * 8
                self._length += end - start
                self._compiled = None
            self.known = padded(end * 8, ENTRY.size)

    def has_grown(self, then: bytes, now: bytes) -> bool:
        """
        Return whether all is well for sure; otherwise it is still to be found out.

        Numbers that aren't negative are in the order of their bytes taken as integers, so that one subtraction compares
        all: each has a sign to borrow from, which it keeps where it is the larger one.
        """
        if not self._length or min(len(then), len(now)) < self._end:
            return False
        if self._compiled is None:
            frames, numbers = struct.Struct("".join(self._frames)), struct.Struct("".join(self._numbers))
            self._compiled = frames, numbers, self._all(-0.0), self._all(1 - MOST)
        find_frames, find_numbers, signs, most = self._compiled
        try:
            used, used_now = used_of(then)[0], used_of(now)[0]
        except DamagedError:
            return False
        if not self._end <= used <= used_now or find_frames.unpack_from(then) != find_frames.unpack_from(now):
            return False
        old, new = (int.from_bytes(b"".join(find_numbers.unpack_from(data)), sys.byteorder) for data in (then, now))
        return not (old | new) & signs and ((new | signs) - old) & (most - new) & signs == signs

    def _all(self, number: float) -> int:
        return int.from_bytes(struct.pack("=d", number) * self._length, sys.byteorder)


def has_fallen(then: bytes, now: bytes, shape: Shape | None = None) -> bool:
    """
    Return whether a number that never falls has fallen, or is none any more, or is gone.

    Args:
        then: a copy, or nothing.
        now: what it has become.
        shape: of today's, where it is known, which is faster.
    """
    return bool(then) and not (shape is not None and shape.has_grown(then, now)) and _has_fallen(then, now)


def _has_fallen(then: bytes, now: bytes) -> bool:
    numbers, entries = numbers_of(now), {(entry.kind, entry.key): entry for entry in entries_of(now)}
    before = numbers_of(then)
    for entry in entries_of(then):
        if entry.kind.rule is Rule.GROWS:
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
