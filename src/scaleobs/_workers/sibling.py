"""Another worker's ledger, as it is read."""

from __future__ import annotations

import fcntl
import os
import struct
import threading
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, TypeVar

from scaleobs._workers.entries import HEADER, DamagedError, Entry, Shape, entries_from, is_blank, numbers_of, used_of
from scaleobs._workers.kinds import Kind, Rule

_LOCK = struct.Struct("hhqqi")
_FIRST = 64 * 1024


class BegunAnewError(DamagedError):
    """A ledger has another owner than before, who may not have gone on with all that was there."""


class View(Protocol):
    """What is derived from a sibling's entries, e.g. their keys in another form."""

    def add(self, entries: Mapping[Kind, list[Entry]]) -> None:
        """Add entries by kind, those of a kind in the order of the ledger."""
        ...


_View = TypeVar("_View", bound=View)


class Sibling:
    """
    Another worker's ledger, read as a file, so that one that was cut doesn't end the reader.

    Its numbers aren't kept, as there may be many of them. Each entry is indexed once, for everybody who reads it.

    Args:
        path: the file.

    Attributes:
        shape: of the entries that there were when it was read last, to compare it with a copy.
        owner: the pid of the worker.
        is_living: whether it lived then.

    Raises:
        OSError: it is gone.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries: dict[Kind, list[Entry]] = {}
        self._views: weakref.WeakKeyDictionary[object, View] = weakref.WeakKeyDictionary()
        self._indexing = threading.Lock()
        self.shape = Shape()
        self.owner = 0
        self.is_living = False
        self._parsed = 0
        self._instead: bytes | None = None
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._opened_by = os.getpid()

    def __del__(self) -> None:
        # When nobody reads it any more; never in a child, where closing might end a lock that the child has.
        if getattr(self, "_opened_by", 0) == os.getpid():
            os.close(self._file)

    @property
    def is_copy(self) -> bool:
        """Whether it shows something else than what is in the file."""
        return self._instead is not None

    @property
    def data(self) -> bytes:
        """All bytes up to the last entry that is known, as they are now."""
        if self._instead is not None:
            return self._instead
        parsed = self._parsed
        return os.pread(self._file, parsed, 0).ljust(parsed, b"\0")

    @property
    def numbers(self) -> memoryview[float]:
        """The same as numbers."""
        return numbers_of(self.data)

    def find(self, kind: Kind, key: bytes, length: int) -> Entry | None:
        """
        Return the entry with so many numbers under a key, `None` if there is none.

        There is none of a kind of the living if the worker is dead. For kinds of which a ledger has few entries.
        """
        if kind.rule is Rule.LIVING and not self.is_living:
            return None
        entries = reversed(self._entries.get(kind, ()))
        return next((entry for entry in entries if entry.key == key and entry.end - entry.start == length), None)

    def view(self, owner: object, make: Callable[[], _View]) -> _View:
        """
        Return the owner's view of this ledger, made at the first call, which has all entries that are known.

        It is forgotten with its owner.
        """
        with self._indexing:
            view = self._views.get(owner)
            if view is None:
                view = self._views[owner] = make()
                view.add(self._entries)
            return view  # type: ignore[return-value] # An owner has one view.

    def part(self, entry: Entry) -> memoryview[float]:
        """Return the numbers of one entry as they are now, without reading the others."""
        begin, end = entry.start * 8, entry.end * 8
        data = os.pread(self._file, end - begin, begin) if self._instead is None else self._instead[begin:end]
        return numbers_of(data.ljust(end - begin, b"\0"))

    def read(self) -> bytes:
        """
        Return what is there now, which is nothing as long as it is being begun.

        Raises:
            DamagedError: it isn't whole.
            BegunAnewError: it has another owner than before.
        """
        data = os.pread(self._file, max(self._parsed, _FIRST), 0)
        if is_blank(data) and not self._parsed:
            return b""
        used, _ = used_of(data, is_whole=False)
        while len(data) < used <= os.fstat(self._file).st_size:
            # Its owner may go on meanwhile, so that there is more in the end than there was room for.
            data = os.pread(self._file, os.fstat(self._file).st_size, 0)
            used, _ = used_of(data, is_whole=False)
        self._take(data)
        return data[: self._parsed]

    def check(self) -> bool:
        """
        Return whether there is anything, and read of it no more than is new.

        Raises: the same as `read`.
        """
        header = os.pread(self._file, HEADER.size, 0)
        if not self._parsed or used_of(header, is_whole=False) != (self._parsed, self.owner):
            return bool(self.read())
        if os.fstat(self._file).st_size < self._parsed:
            raise DamagedError
        self.is_living = self.owner != 0 and self.owner == _locked_by(self._file)
        return True

    def take(self, data: bytes) -> None:
        """
        Take this for what is in the file, whatever is.

        Raises:
            DamagedError: it isn't whole.
        """
        self._take(data)
        self._instead = data[: self._parsed]

    def _take(self, data: bytes) -> None:
        used, owner = used_of(data)
        if self._parsed and owner != self.owner:
            # Who took over may have gone on with a copy, after which other entries may have come.
            raise BegunAnewError
        if used < self._parsed:
            raise DamagedError
        added = entries_from(data, self._parsed or HEADER.size, used) if used > self._parsed else []
        self.owner, self.is_living = owner, owner != 0 and owner == _locked_by(self._file)
        # Another thread that sees an entry sees its numbers.
        self._parsed = used
        self._index(added)
        self.shape.add(added)

    def _index(self, added: list[Entry]) -> None:
        by_kind: dict[Kind, list[Entry]] = {}
        for entry in added:
            by_kind.setdefault(entry.kind, []).append(entry)
        with self._indexing:
            for kind, entries in by_kind.items():
                self._entries.setdefault(kind, []).extend(entries)
            for view in list(self._views.values()):
                view.add(by_kind)

    def read_new(self) -> None:
        """Read which entries are new, and not their numbers."""
        header = os.pread(self._file, HEADER.size, 0)
        if self._instead is not None or (is_blank(header) and not self._parsed):
            return
        used, owner = used_of(header, is_whole=False)
        if used > self._parsed or owner != self.owner:
            self.read()

    def write(self, entry: Entry, *numbers: float) -> None:
        """
        Write the first numbers of an entry, one by one.

        Raises:
            ValueError: only their owner writes them.
        """
        if entry.kind.rule is not Rule.SHARED:
            msg = f"{entry.kind.name} is written by its owner alone"
            raise ValueError(msg)
        for place, number in enumerate(numbers, start=entry.start):
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
