"""
A ledger: the file in which one worker counts and which its siblings read.

It has a header, then entries. Each entry has a kind, a key and slots; only slots ever change. A slot is a float in
mapped memory: siblings see at once what a worker has counted, and it remains if the worker is killed. Only the owner
writes, except to slots of the kinds that siblings share. A new worker takes over the ledger of a dead one and continues
its counts. Therefore no count falls, and there are never more ledgers than there were workers at a time.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import struct
import sys
import threading
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from scaleobs._workers.files import keep_open, open_private
from scaleobs._workers.kinds import Kind, Rule

MAGIC = b"scaleob3"
"""The last byte is the version of the format. A ledger of another version belongs to another group."""

HEADER = struct.Struct("=8sQQd")
"""The magic; the bytes in use; the pid of the owner, 0 while it takes over; unused."""
_USED, _OWNER = 8, 16
_MOVED = 2**64 - 1
"""In place of the owner: the counts continue in the ledger of another user."""

ENTRY = struct.Struct("=IIHH4x")
"""The bytes of the entry; the bytes of its key; the number of its slots; its kind."""

MAX_COUNT = 2.0**53
"""From this number on, adding 1 to a float changes nothing."""

_FIRST_BYTES = 64 * 1024
_MAX_EXTENSION_BYTES = 1 << 20

# Each key once, although many ledgers have it.
_interned_keys: dict[bytes, bytes] = {}
_kinds = {int(kind): kind for kind in Kind}


class Entry(NamedTuple):
    """One entry: its kind and key; the byte at which it begins; its slots, as a range of 8-byte numbers."""

    kind: Kind
    key: bytes
    begin: int
    start: int
    end: int


class DamagedError(Exception):
    """A ledger doesn't contain what was written there."""


class OtherVersionError(DamagedError):
    """Another version of scaleobs has written the ledger, which is valid for that version."""


class FullError(Exception):
    """The file can't grow."""


def is_blank(data: bytes) -> bool:
    """Return whether there is no header yet, as in a ledger that has just been created."""
    return not data[: HEADER.size].strip(b"\0")


def is_of_other_version(data: bytes) -> bool:
    """Return whether another version of scaleobs has written a ledger."""
    name = len(MAGIC) - 1
    return data.startswith(MAGIC[:name]) and data[name : name + 1].isdigit() and not data.startswith(MAGIC)


def is_moved(data: bytes) -> bool:
    """Return whether the counts of a ledger continue in one of another user: a new owner starts from 0."""
    return data.startswith(MAGIC) and len(data) >= HEADER.size and HEADER.unpack_from(data)[2] == _MOVED


def read_header(data: bytes, *, is_whole: bool = True) -> tuple[int, int]:
    """
    Return the number of bytes in use, and the owner.

    Args:
        data: the first bytes of a ledger.
        is_whole: whether these are all bytes of it.

    Raises:
        DamagedError: the header is invalid.
        OtherVersionError: the header is of another version.
    """
    if is_of_other_version(data):
        raise OtherVersionError
    if len(data) < HEADER.size or not data.startswith(MAGIC):
        raise DamagedError
    _, used, owner, _ = HEADER.unpack_from(data)
    if used % ENTRY.size or used < HEADER.size or (is_whole and used > len(data)):
        raise DamagedError
    return used, owner


def parse_entries(data: bytes, begin: int, used: int) -> list[Entry]:
    """
    Return the entries between two bytes: the first byte of an entry, and the byte after the last entry.

    Raises:
        DamagedError: there are no valid entries.
    """
    found = []
    while begin < used:
        whole, key, length, number = ENTRY.unpack_from(data, begin)
        kind = _kinds.get(number)
        slots = begin + ENTRY.size + padded(key, 8)
        end = begin + whole
        if not whole or whole % ENTRY.size or end > used:
            raise DamagedError
        if number and (kind is None or padded(slots + length * 8, ENTRY.size) != end):
            raise DamagedError
        if kind is not None:
            name = data[begin + ENTRY.size : begin + ENTRY.size + key]
            found.append(Entry(kind, _interned_keys.setdefault(name, name), begin, slots // 8, slots // 8 + length))
        begin = end
    return found


def entries_of(data: bytes) -> list[Entry]:
    """Return all entries of a ledger, none if it is damaged."""
    try:
        return parse_entries(data, HEADER.size, read_header(data)[0])
    except DamagedError:
        return []


def numbers_of(data: bytes) -> memoryview[float]:
    """Return bytes as 8-byte numbers; an incomplete number at the end is dropped."""
    return memoryview(data)[: len(data) // 8 * 8].cast("d")


def padded(length: int, to: int) -> int:
    """Return the next multiple of `to`."""
    return -(-length // to) * to


class EntryLayout:
    """
    Which bytes of a ledger never change, and which are slots that never fall, in order to compare all of them at once.

    Attributes:
        covered: the byte after the last entry that was added.
    """

    def __init__(self) -> None:
        self.covered = HEADER.size
        self._end = self._length = 0
        self._frames, self._numbers = ["="], ["="]
        self._compiled: tuple[struct.Struct, struct.Struct, int, int] | None = None

    def add(self, entries: Iterable[Entry]) -> None:
        """Add entries that come after all those that were added before."""
        for kind, _, begin, start, end in entries:
            if kind.rule is Rule.GROWS:
                gap, frame, numbers = begin - self._end, start * 8 - begin, (end - start) * 8
                self._frames.append(f"{gap}x{frame}s{numbers}x")
                self._numbers.append(f"{gap + frame}x{numbers}s")
                self._end = end * 8
                self._length += end - start
                self._compiled = None
            self.covered = padded(end * 8, ENTRY.size)

    def has_grown(self, then: bytes, now: bytes) -> bool:
        """
        Return whether certainly no slot has fallen; if not, compare slot by slot.

        Floats that aren't negative have the order of their bytes taken as integers. Therefore one subtraction compares
        all: each borrows from its own sign bit, which stays set if the new number isn't smaller.
        """
        if not self._length or min(len(then), len(now)) < self._end:
            return False
        if self._compiled is None:
            frames, numbers = struct.Struct("".join(self._frames)), struct.Struct("".join(self._numbers))
            self._compiled = frames, numbers, self._all(-0.0), self._all(1 - MAX_COUNT)
        find_frames, find_numbers, signs, most = self._compiled
        try:
            used, used_now = read_header(then)[0], read_header(now)[0]
        except DamagedError:
            return False
        if not self._end <= used <= used_now or find_frames.unpack_from(then) != find_frames.unpack_from(now):
            return False
        old, new = (int.from_bytes(b"".join(find_numbers.unpack_from(data)), sys.byteorder) for data in (then, now))
        return not (old | new) & signs and ((new | signs) - old) & (most - new) & signs == signs

    def _all(self, number: float) -> int:
        return int.from_bytes(struct.pack("=d", number) * self._length, sys.byteorder)


def has_fallen(then: bytes, now: bytes, layout: EntryLayout | None = None) -> bool:
    """
    Return whether a slot that never falls has fallen, isn't a count any more, or is missing.

    Args:
        then: a copy of a ledger, or nothing.
        now: the ledger.
        layout: that of the ledger, if it is known, which is faster.
    """
    return bool(then) and not (layout is not None and layout.has_grown(then, now)) and _has_fallen(then, now)


def _has_fallen(then: bytes, now: bytes) -> bool:
    numbers, entries = numbers_of(now), {(entry.kind, entry.key): entry for entry in entries_of(now)}
    before = numbers_of(then)
    for entry in entries_of(then):
        if entry.kind.rule is Rule.GROWS:
            same = entries.get((entry.kind, entry.key))
            if same is None or same.end - same.start != entry.end - entry.start:
                return True
            both = zip(before[entry.start : entry.end], numbers[same.start : same.end], strict=True)
            if not all(old <= new < MAX_COUNT for old, new in both):
                return True
    return False


class Ledger:
    """
    This process's own ledger.

    Any thread may request slots; only that thread may write to them.

    Args:
        path: the file, which is created if it is missing.

    Raises:
        BlockingIOError: it belongs to a living process.
        ForeignFileError: it is a link, or another user's.
        OSError: it can't be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._file = open_private(path, os.O_RDWR | os.O_CREAT)
        try:
            # A lock of the process, not of the descriptor: a child doesn't inherit it, and it ends with the process.
            # Closing any other descriptor of this file would end it, too; therefore the file is opened only once.
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(self._file)
            raise
        self._slots: dict[tuple[Kind, bytes], memoryview[float]] = {}
        self._entries: list[tuple[memoryview, Kind, bytes]] = []

    def close(self) -> None:
        """Close a ledger that wasn't opened, and remove the file if it is empty."""
        with contextlib.suppress(OSError):
            if not self.read().strip(b"\0"):
                self.path.unlink()
        os.close(self._file)

    def read(self) -> bytes:
        """Return the content of the file."""
        return os.pread(self._file, os.fstat(self._file).st_size, 0)

    def open(self, data: bytes) -> None:
        """
        Map the file with the content that the previous owner has left, or with a copy of it. The owner is 0 then.

        Raises:
            DamagedError: the content is damaged.
            OSError: there is no room.
        """
        entries: list[Entry] = []
        used = HEADER.size
        if data:
            used, _ = read_header(data)
            entries = parse_entries(data, HEADER.size, used)
        size = padded(max(len(data), _FIRST_BYTES), mmap.ALLOCATIONGRANULARITY)
        # Without reserved room the first write to it would be a fatal signal.
        os.posix_fallocate(self._file, 0, size)
        os.ftruncate(self._file, size)
        mapped = memoryview(mmap.mmap(self._file, size))
        mapped[: len(data)] = data
        mapped[: HEADER.size] = HEADER.pack(MAGIC, used, 0, 0.0)
        for entry in entries:
            self._register(mapped[entry.begin : entry.end * 8], entry.kind, entry.key)
        self._header, self._size, self._used, self._free = mapped, size, used, mapped[used:]

    def set_owner(self) -> None:
        """Make this process the owner: from now on siblings count its slots as those of a living worker."""
        self._write_header(_OWNER, os.getpid())

    def retire(self) -> None:
        """
        Mark the ledger as moved: this process continues its counts in another one.

        The file stays locked until the process ends: a thread may still write to slots that it has found before.
        """
        keep_open(self.path, self._file)
        with self._lock:
            self._header[_USED : HEADER.size] = HEADER.pack(MAGIC, HEADER.size, _MOVED, 0.0)[_USED:]

    def slots(self, kind: Kind, key: bytes, length: int) -> memoryview[float]:
        """
        Return the slots of the entry with this kind and key, or of a new entry, whose slots are 0.

        Raises:
            FullError: there is no room.
        """
        with self._lock:
            found = self._slots.get((kind, key))
            if found is None or len(found) != length:
                found = self._append(kind, key, length)
            return found

    def entries(self, *kinds: Kind) -> Iterator[tuple[Kind, bytes, memoryview[float]]]:
        """Yield kind, key and slots of all entries of these kinds."""
        with self._lock:
            found = [(kind, key, slots) for (kind, key), slots in self._slots.items() if kind in kinds]
        yield from found

    def is_whole(self) -> bool:
        """Return whether the header is as this process has written it."""
        with self._lock:
            return bytes(self._header[: HEADER.size]) == HEADER.pack(MAGIC, self._used, os.getpid(), 0.0)

    def repair(self, copy: bytes) -> None:
        """Write the header again, and restore each entry that is damaged from a copy of the ledger."""
        then, numbers = {(entry.kind, entry.key): entry for entry in entries_of(copy)}, numbers_of(copy)
        with self._lock:
            with contextlib.suppress(OSError):  # The file may have been truncated.
                os.posix_fallocate(self._file, 0, self._size)
            self._header[: HEADER.size] = HEADER.pack(MAGIC, self._used, os.getpid(), 0.0)
            for memory, kind, key in self._entries:
                slots, entry = self._slots[kind, key], then.get((kind, key))
                before = [0.0] * len(slots) if entry is None else numbers[entry.start : entry.end].tolist()
                head = len(memory) - len(slots) * 8
                was = bytes(memory[:head])
                self._write_head(memory, kind, key, len(slots))
                lowest = before if kind.rule is Rule.GROWS else [-MAX_COUNT] * len(slots)
                if was != bytes(memory[:head]) or not all(map(_is_between, lowest, slots)):
                    slots[:] = array("d", before)

    def _write_header(self, offset: int, number: int) -> None:
        # In one store. The struct module writes zeros first, then byte by byte, and siblings read at any time.
        self._header[: HEADER.size].cast("Q")[offset // 8] = number

    def _register(self, memory: memoryview, kind: Kind, key: bytes) -> memoryview[float]:
        slots = memory[ENTRY.size + padded(len(key), 8) :].cast("d")
        self._entries.append((memory, kind, key))
        self._slots[kind, key] = slots
        return slots

    def _write_head(self, memory: memoryview, kind: Kind, key: bytes, length: int) -> None:
        whole = padded(len(memory), ENTRY.size)
        ENTRY.pack_into(memory, 0, whole, len(key), length, kind)
        memory[ENTRY.size : ENTRY.size + len(key)] = key

    def _append(self, kind: Kind, key: bytes, length: int) -> memoryview[float]:
        begin = ENTRY.size + padded(len(key), 8)
        whole = padded(begin + length * 8, ENTRY.size)
        if whole > len(self._free):
            self._extend(whole)
        memory, self._free = self._free[: begin + length * 8], self._free[whole:]
        # A process that was killed while it appended may have left something.
        memory[begin:] = bytes(length * 8)
        self._write_head(memory, kind, key, length)
        # Siblings read only the bytes in use, therefore they never see half an entry.
        self._used += whole
        self._write_header(_USED, self._used)
        return self._register(memory, kind, key)

    def _extend(self, needed: int) -> None:
        """Map more of the file. The rest of the previous mapping becomes an entry without a kind."""
        begin = self._size
        size = padded(max(needed, min(begin, _MAX_EXTENSION_BYTES)), mmap.ALLOCATIONGRANULARITY)
        try:
            os.posix_fallocate(self._file, begin, size)
            mapped = memoryview(mmap.mmap(self._file, size, offset=begin))
        except OSError as error:
            raise FullError(error.strerror) from error
        if self._free:
            ENTRY.pack_into(self._free, 0, len(self._free), 0, 0, 0)
        self._used += len(self._free)
        self._size, self._free = begin + size, mapped


def _is_between(lowest: float, number: float) -> bool:
    return lowest <= number < MAX_COUNT
