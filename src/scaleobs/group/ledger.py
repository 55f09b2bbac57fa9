"""
A ledger: the file in which one worker counts, and which the others read.

Each number is a float in mapped memory, so that what a worker counted is there for the others at once, and stays when
it is killed. Only its owner writes. A worker that comes later takes a dead one's ledger over and counts on in it, so
that no count falls and there are never more ledgers than there were workers at a time.
"""

from __future__ import annotations

import fcntl
import math
import mmap
import os
import struct
import threading
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

MAGIC = b"scaleob1"

_HEADER = struct.Struct("=8sQQd")
"""The magic; how many bytes are used; the owner, 0 while it takes over; when it took over."""

_ENTRY = struct.Struct("=IIHH4x")
"""How long the entry is; how long its key is; how many numbers it has; what it is."""

_USED, _OWNER = 8, 16

GROWING = 16
"""Numbers of a kind below this never fall, whatever else they are."""

_FIRST_BYTES = 64 * 1024
_MOST_BYTES = 1 << 20
_LOCK = struct.Struct("hhqqi")


class Entry(NamedTuple):
    """Some numbers of a ledger: what they are, of which series; where it begins; from where to where they are."""

    kind: int
    key: bytes
    begin: int
    start: int
    end: int


class FullError(Exception):
    """There is no room for more."""


class DamagedError(Exception):
    """What is in a ledger isn't what was written there."""


class Ledger:
    """
    This process's own ledger.

    Any thread may ask for cells; writing to them is for whoever asked.

    Args:
        path: the file, which is made where there is none.

    Raises:
        BlockingIOError: it belongs to a living process.
        OSError: it can't be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            # A lock of the process, not of the descriptor: a child doesn't inherit it, and it ends with its process.
            # Closing any other descriptor of this file would end it, too, so that it is opened nowhere else.
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(self._file)
            raise
        self._cells: dict[tuple[int, bytes], memoryview[float]] = {}
        self._rooms: list[tuple[memoryview, int, bytes]] = []

    def read(self) -> bytes:
        """Return what is in the file."""
        return os.pread(self._file, os.fstat(self._file).st_size, 0)

    def open(self, data: bytes) -> None:
        """
        Go on with what the owner before has left, if that is whole, or with a copy of it.

        Raises:
            DamagedError: it isn't whole.
            OSError: there is no room.
        """
        entries: list[Entry] = []
        used = _HEADER.size
        if data:
            used, _ = _used(data)
            entries = _entries(data, _HEADER.size, used)
        size = _padded(max(len(data), _FIRST_BYTES), mmap.ALLOCATIONGRANULARITY)
        os.ftruncate(self._file, size)
        os.posix_fallocate(self._file, 0, size)
        mapped = memoryview(mmap.mmap(self._file, size))
        mapped[: len(data)] = data
        _HEADER.pack_into(mapped, 0, MAGIC, used, 0, 0.0)
        for entry in entries:
            self._note(mapped[entry.begin : entry.end * 8], entry.kind, entry.key)
        self._header, self._size, self._used, self._room = mapped, size, used, mapped[used:]

    def own(self) -> None:
        """Say that the numbers are this process's from now on."""
        struct.pack_into("=Q", self._header, _OWNER, os.getpid())

    def cells(self, kind: int, key: bytes, length: int) -> memoryview[float]:
        """
        Return numbers of this ledger: those that are there under this key, or new ones, which are 0.

        Raises:
            FullError: there is no room.
        """
        with self._lock:
            found = self._cells.get((kind, key))
            if found is None or len(found) != length:
                found = self._append(kind, key, length)
            return found

    def kept(self) -> Iterator[tuple[int, bytes, memoryview[float]]]:
        """Yield all numbers that are there, with what they are and their key."""
        with self._lock:
            yield from [(kind, key, cells) for (kind, key), cells in self._cells.items()]

    def is_whole(self) -> bool:
        """Return whether nobody else has written into it."""
        return bytes(self._header[: _HEADER.size]) == _HEADER.pack(MAGIC, self._used, os.getpid(), 0.0)

    def mend(self, copy: bytes) -> None:
        """Write anew what isn't whole; what never falls is at least what it was in a copy."""
        then = {(entry.kind, entry.key): entry for entry in entries_of(copy)}
        numbers = memoryview(copy).cast("d") if then else memoryview(b"")
        with self._lock:
            _HEADER.pack_into(self._header, 0, MAGIC, self._used, os.getpid(), 0.0)
            for room, kind, key in self._rooms:
                cells, entry = self._cells[kind, key], then.get((kind, key))
                self._name(room, kind, key, len(cells))
                before = [0.0] * len(cells) if entry is None else list(map(float, numbers[entry.start : entry.end]))
                for place, number in enumerate(before):
                    if not number <= cells[place] < math.inf:
                        cells[place] = number

    def _note(self, room: memoryview, kind: int, key: bytes) -> memoryview[float]:
        cells = room[_ENTRY.size + _padded(len(key), 8) :].cast("d")
        self._rooms.append((room, kind, key))
        self._cells[kind, key] = cells
        return cells

    def _name(self, room: memoryview, kind: int, key: bytes, length: int) -> None:
        whole = _padded(len(room), _ENTRY.size)
        _ENTRY.pack_into(room, 0, whole, len(key), length, kind)
        room[_ENTRY.size : _ENTRY.size + len(key)] = key

    def _append(self, kind: int, key: bytes, length: int) -> memoryview[float]:
        begin = _ENTRY.size + _padded(len(key), 8)
        whole = _padded(begin + length * 8, _ENTRY.size)
        if whole > len(self._room):
            self._extend(whole)
        room, self._room = self._room[: begin + length * 8], self._room[whole:]
        # What a process left here that was killed before it was done.
        room[begin:] = bytes(length * 8)
        self._name(room, kind, key, length)
        # Others read as far as this says, so that they never see half an entry.
        self._used += whole
        struct.pack_into("=Q", self._header, _USED, self._used)
        return self._note(room, kind, key)

    def _extend(self, needed: int) -> None:
        """Map more of the file. What is left of the mapping before becomes an entry of nothing."""
        begin = self._size
        size = _padded(max(needed, min(begin, _MOST_BYTES)), mmap.ALLOCATIONGRANULARITY)
        try:
            # Room that is promised and not there would be a fatal signal at the first write.
            os.posix_fallocate(self._file, begin, size)
            mapped = memoryview(mmap.mmap(self._file, size, offset=begin))
        except OSError as error:
            raise FullError(error.strerror) from error
        if self._room:
            _ENTRY.pack_into(self._room, 0, len(self._room), 0, 0, 0)
        self._used += len(self._room)
        self._size, self._room = begin + size, mapped


class Other:
    """
    Another worker's ledger, read as a file, so that one that was cut doesn't end the reader.

    Args:
        path: the file.

    Raises:
        OSError: it is gone.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: list[Entry] = []
        self.numbers: list[float] = []
        self.data = b""
        self.is_living = False
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._parsed = _HEADER.size

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def read(self) -> None:
        """
        Read what is there now.

        Raises:
            DamagedError: it isn't whole.
        """
        self.take(os.pread(self._file, os.fstat(self._file).st_size, 0))
        self.is_living = self.owner != 0 and self.owner == _locked_by(self._file)

    def take(self, data: bytes) -> None:
        """Take this for what is in the file."""
        used, self.owner = _used(data)
        if used < self._parsed:
            raise DamagedError
        self.entries += _entries(data, self._parsed, used)
        self._parsed = used
        self.data = data
        self.numbers = array("d", data[:used]).tolist()

    def read_new(self) -> None:
        """Read which entries are new, and not their numbers."""
        used, _ = _used(os.pread(self._file, _HEADER.size, 0), is_whole=False)
        if used > self._parsed:
            self.read()

    def write(self, place: int, number: float) -> None:
        """Write one number, as only a flag may be written by others than its owner."""
        os.pwrite(self._file, struct.pack("=d", number), place * 8)


def is_locked(path: Path) -> bool:
    """Return whether a ledger has a living owner; not to be asked of one's own."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return _locked_by(file) != 0
    finally:
        os.close(file)


def _locked_by(file: int) -> int:
    asked = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind, _, _, _, pid = _LOCK.unpack(fcntl.fcntl(file, fcntl.F_GETLK, asked))
    return 0 if kind == fcntl.F_UNLCK else int(pid)


def entries_of(data: bytes) -> list[Entry]:
    """Return all entries, and none where they aren't whole."""
    try:
        return _entries(data, _HEADER.size, _used(data)[0])
    except DamagedError:
        return []


def has_fallen(then: bytes, now: bytes) -> bool:
    """Return whether a number that never falls has fallen, or is none any more, or is gone."""
    numbers, entries = memoryview(now).cast("d"), {(entry.kind, entry.key): entry for entry in entries_of(now)}
    before = memoryview(then).cast("d")
    for entry in entries_of(then):
        if entry.kind < GROWING:
            same = entries.get((entry.kind, entry.key))
            if same is None or not all(
                old <= new < math.inf
                for old, new in zip(before[entry.start : entry.end], numbers[same.start : same.end], strict=True)
            ):
                return True
    return False


def _used(data: bytes, *, is_whole: bool = True) -> tuple[int, int]:
    """Return how many bytes are used, and the owner."""
    if len(data) < _HEADER.size or not data.startswith(MAGIC):
        raise DamagedError
    _, used, owner, _ = _HEADER.unpack_from(data)
    if used % _ENTRY.size or used < _HEADER.size or (is_whole and used > len(data)):
        raise DamagedError
    return used, owner


def _entries(data: bytes, begin: int, used: int) -> list[Entry]:
    found = []
    while begin < used:
        whole, key, length, kind = _ENTRY.unpack_from(data, begin)
        cells = begin + _ENTRY.size + _padded(key, 8)
        end = begin + whole
        if not whole or whole % _ENTRY.size or end > used or (kind and _padded(cells + length * 8, _ENTRY.size) != end):
            raise DamagedError
        if kind:
            name = data[begin + _ENTRY.size : begin + _ENTRY.size + key]
            found.append(Entry(kind, name, begin, cells // 8, cells // 8 + length))
        begin = end
    return found


def _padded(length: int, to: int) -> int:
    return -(-length // to) * to
