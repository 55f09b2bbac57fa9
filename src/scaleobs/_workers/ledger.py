"""
A ledger: the file in which one worker counts, and which the others read.

Each number is a float in mapped memory, so that what a worker counted is there for the others at once, and stays when
it is killed. Only its owner writes, but for the few numbers of the kinds that siblings share. A worker that comes later
takes a dead one's ledger over and counts on in it, so that no count falls and there are never more ledgers than there
were workers at a time.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import threading
from array import array
from collections.abc import Iterator
from pathlib import Path

from scaleobs._workers.entries import (
    ENTRY,
    HEADER,
    MAGIC,
    MOST,
    Entry,
    entries_from,
    entries_of,
    numbers_of,
    padded,
    used_of,
)
from scaleobs._workers.kinds import Kind, Rule

_USED, _OWNER = 8, 16

_FIRST_BYTES = 64 * 1024
_MOST_BYTES = 1 << 20


class FullError(Exception):
    """There is no room for more."""


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
        self._cells: dict[tuple[Kind, bytes], memoryview[float]] = {}
        self._rooms: list[tuple[memoryview, Kind, bytes]] = []

    def close(self) -> None:
        """Let go of it before it was opened, and leave nothing that another would take for a ledger."""
        with contextlib.suppress(OSError):
            if not self.read().strip(b"\0"):
                self.path.unlink()
        os.close(self._file)

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
        used = HEADER.size
        if data:
            used, _ = used_of(data)
            entries = entries_from(data, HEADER.size, used)
        size = padded(max(len(data), _FIRST_BYTES), mmap.ALLOCATIONGRANULARITY)
        # Room that is promised and not there would be a fatal signal at the first write.
        os.posix_fallocate(self._file, 0, size)
        os.ftruncate(self._file, size)
        mapped = memoryview(mmap.mmap(self._file, size))
        mapped[: len(data)] = data
        mapped[: HEADER.size] = HEADER.pack(MAGIC, used, 0, 0.0)
        for entry in entries:
            self._note(mapped[entry.begin : entry.end * 8], entry.kind, entry.key)
        self._header, self._size, self._used, self._room = mapped, size, used, mapped[used:]

    def own(self) -> None:
        """Say that the numbers are this process's from now on."""
        self._write(_OWNER, os.getpid())

    def cells(self, kind: Kind, key: bytes, length: int) -> memoryview[float]:
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

    def kept(self, *kinds: Kind) -> Iterator[tuple[Kind, bytes, memoryview[float]]]:
        """Yield all numbers of these kinds that are there, each with its kind and key."""
        with self._lock:
            found = [(kind, key, cells) for (kind, key), cells in self._cells.items() if kind in kinds]
        yield from found

    def is_whole(self) -> bool:
        """Return whether nobody else has written into it."""
        with self._lock:
            return bytes(self._header[: HEADER.size]) == HEADER.pack(MAGIC, self._used, os.getpid(), 0.0)

    def mend(self, copy: bytes) -> None:
        """Write anew what isn't whole: the header, and each entry in which anything is wrong as it was in a copy."""
        then, numbers = {(entry.kind, entry.key): entry for entry in entries_of(copy)}, numbers_of(copy)
        with self._lock:
            with contextlib.suppress(OSError):  # It may have been cut.
                os.posix_fallocate(self._file, 0, self._size)
            self._header[: HEADER.size] = HEADER.pack(MAGIC, self._used, os.getpid(), 0.0)
            for room, kind, key in self._rooms:
                cells, entry = self._cells[kind, key], then.get((kind, key))
                before = [0.0] * len(cells) if entry is None else numbers[entry.start : entry.end].tolist()
                head = len(room) - len(cells) * 8
                was = bytes(room[:head])
                self._name(room, kind, key, len(cells))
                lowest = before if kind.rule is Rule.GROWS else [-MOST] * len(cells)
                if was != bytes(room[:head]) or not all(map(_is_between, lowest, cells)):
                    cells[:] = array("d", before)

    def _write(self, place: int, number: int) -> None:
        # In one store. The struct module writes zeros first, then byte by byte, and others read at any time.
        self._header[: HEADER.size].cast("Q")[place // 8] = number

    def _note(self, room: memoryview, kind: Kind, key: bytes) -> memoryview[float]:
        cells = room[ENTRY.size + padded(len(key), 8) :].cast("d")
        self._rooms.append((room, kind, key))
        self._cells[kind, key] = cells
        return cells

    def _name(self, room: memoryview, kind: Kind, key: bytes, length: int) -> None:
        whole = padded(len(room), ENTRY.size)
        ENTRY.pack_into(room, 0, whole, len(key), length, kind)
        room[ENTRY.size : ENTRY.size + len(key)] = key

    def _append(self, kind: Kind, key: bytes, length: int) -> memoryview[float]:
        begin = ENTRY.size + padded(len(key), 8)
        whole = padded(begin + length * 8, ENTRY.size)
        if whole > len(self._room):
            self._extend(whole)
        room, self._room = self._room[: begin + length * 8], self._room[whole:]
        # What a process left here that was killed before it was done.
        room[begin:] = bytes(length * 8)
        self._name(room, kind, key, length)
        # Others read as far as this says, so that they never see half an entry.
        self._used += whole
        self._write(_USED, self._used)
        return self._note(room, kind, key)

    def _extend(self, needed: int) -> None:
        """Map more of the file. What is left of the mapping before becomes an entry of nothing."""
        begin = self._size
        size = padded(max(needed, min(begin, _MOST_BYTES)), mmap.ALLOCATIONGRANULARITY)
        try:
            os.posix_fallocate(self._file, begin, size)
            mapped = memoryview(mmap.mmap(self._file, size, offset=begin))
        except OSError as error:
            raise FullError(error.strerror) from error
        if self._room:
            ENTRY.pack_into(self._room, 0, len(self._room), 0, 0, 0)
        self._used += len(self._room)
        self._size, self._room = begin + size, mapped


def _is_between(lowest: float, number: float) -> bool:
    return lowest <= number < MOST
