"""A sibling: another worker, as its ledger shows it."""

from __future__ import annotations

import fcntl
import os
import struct
import threading
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, TypeVar

from scaleobs._workers.files import open_private
from scaleobs._workers.kinds import Kind, Rule
from scaleobs._workers.ledger import (
    HEADER,
    DamagedError,
    Entry,
    EntryLayout,
    is_blank,
    numbers_of,
    parse_entries,
    read_header,
)

_LOCK = struct.Struct("hhqqi")
_FIRST_READ_BYTES = 64 * 1024


class OwnerChangedError(DamagedError):
    """A ledger has another owner than before, which may have continued from a copy."""


class View(Protocol):
    """Data derived from a sibling's entries, e.g. their keys in another form."""

    def add(self, entries: Mapping[Kind, list[Entry]]) -> None:
        """Add entries by kind, those of one kind in the order of the ledger."""
        ...


_View = TypeVar("_View", bound=View)


class Sibling:
    """
    Another worker, as its ledger shows it.

    The ledger is read as a file: if it were mapped, a truncated file would end the reader. The slots aren't kept, since
    there may be many. Each entry is indexed once, for all its readers.

    Args:
        path: the ledger.

    Attributes:
        layout: that of the entries at the last read, to compare the ledger with a copy.
        owner: the pid of the worker.
        is_living: whether the worker was alive at the last read.

    Raises:
        OSError: the file doesn't exist any more, or can't be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries: dict[Kind, list[Entry]] = {}
        self._views: weakref.WeakKeyDictionary[object, View] = weakref.WeakKeyDictionary()
        self._index_lock = threading.Lock()
        self.layout = EntryLayout()
        self.owner = 0
        self.is_living = False
        self._parsed = 0
        self._copy: bytes | None = None
        self._file = open_private(path, os.O_RDWR)
        self._opened_by = os.getpid()

    def __del__(self) -> None:
        # Once no reader is left. Never in a child, where closing might end the lock on the child's own ledger.
        if getattr(self, "_opened_by", 0) == os.getpid():
            os.close(self._file)

    @property
    def is_copy(self) -> bool:
        """Whether a copy is shown instead of the content of the file."""
        return self._copy is not None

    @property
    def data(self) -> bytes:
        """All bytes up to the last indexed entry, as they are now."""
        if self._copy is not None:
            return self._copy
        parsed = self._parsed
        return os.pread(self._file, parsed, 0).ljust(parsed, b"\0")

    @property
    def numbers(self) -> memoryview[float]:
        """The bytes of `data` as 8-byte numbers."""
        return numbers_of(self.data)

    def find(self, kind: Kind, key: bytes, length: int) -> Entry | None:
        """
        Return the entry with this kind, key and number of slots, `None` if there is none.

        Also `None` if the worker is dead and slots of the kind count for living workers only. For kinds of which a
        ledger has few entries.
        """
        if kind.rule is Rule.LIVING and not self.is_living:
            return None
        entries = reversed(self._entries.get(kind, ()))
        return next((entry for entry in entries if entry.key == key and entry.end - entry.start == length), None)

    def view(self, owner: object, make: Callable[[], _View]) -> _View:
        """
        Return the owner's view of this ledger, which has all indexed entries. The first call creates it.

        It is dropped together with its owner.
        """
        with self._index_lock:
            view = self._views.get(owner)
            if view is None:
                view = self._views[owner] = make()
                view.add(self._entries)
            return view  # type: ignore[return-value] # An owner has one view.

    def read_slots(self, entry: Entry) -> memoryview[float]:
        """Return the slots of one entry as they are now, without reading the other entries."""
        begin, end = entry.start * 8, entry.end * 8
        data = os.pread(self._file, end - begin, begin) if self._copy is None else self._copy[begin:end]
        return numbers_of(data.ljust(end - begin, b"\0"))

    def read(self) -> bytes:
        """
        Return the content of the ledger, and index new entries. Empty as long as the ledger is being created.

        Raises:
            DamagedError: it is damaged.
            OwnerChangedError: it has another owner than before.
        """
        data = os.pread(self._file, max(self._parsed, _FIRST_READ_BYTES), 0)
        if is_blank(data) and not self._parsed:
            return b""
        used, _ = read_header(data, is_whole=False)
        while len(data) < used <= os.fstat(self._file).st_size:
            # The owner may append meanwhile, so that the size from `fstat` is too small.
            data = os.pread(self._file, os.fstat(self._file).st_size, 0)
            used, _ = read_header(data, is_whole=False)
        self._parse(data)
        return data[: self._parsed]

    def refresh(self) -> bool:
        """
        Read only what is new, and return whether the ledger has any content.

        Raises: the same as `read`.
        """
        header = os.pread(self._file, HEADER.size, 0)
        if not self._parsed or read_header(header, is_whole=False) != (self._parsed, self.owner):
            return bool(self.read())
        if os.fstat(self._file).st_size < self._parsed:
            raise DamagedError
        self.is_living = self.owner != 0 and self.owner == _lock_owner(self._file)
        return True

    def show_copy(self, data: bytes) -> None:
        """
        Show a copy from now on, instead of the content of the file.

        Raises:
            DamagedError: the copy is damaged.
        """
        self._parse(data)
        self._copy = data[: self._parsed]

    def _parse(self, data: bytes) -> None:
        used, owner = read_header(data)
        if self._parsed and owner != self.owner:
            # The new owner may have continued from a copy, with other entries after it.
            raise OwnerChangedError
        if used < self._parsed:
            raise DamagedError
        added = parse_entries(data, self._parsed or HEADER.size, used) if used > self._parsed else []
        self.owner, self.is_living = owner, owner != 0 and owner == _lock_owner(self._file)
        # Before the index: another thread that finds an entry there finds its slots in `data`.
        self._parsed = used
        self._index(added)
        self.layout.add(added)

    def _index(self, added: list[Entry]) -> None:
        by_kind: dict[Kind, list[Entry]] = {}
        for entry in added:
            by_kind.setdefault(entry.kind, []).append(entry)
        with self._index_lock:
            for kind, entries in by_kind.items():
                self._entries.setdefault(kind, []).extend(entries)
            for view in list(self._views.values()):
                view.add(by_kind)

    def read_new(self) -> None:
        """Index new entries, if there are any, without reading slots otherwise."""
        header = os.pread(self._file, HEADER.size, 0)
        if self._copy is not None or (is_blank(header) and not self._parsed):
            return
        used, owner = read_header(header, is_whole=False)
        if used > self._parsed or owner != self.owner:
            self.read()

    def write(self, entry: Entry, *numbers: float) -> None:
        """
        Write the first slots of an entry, one by one.

        Raises:
            ValueError: only the owner of the ledger may write this kind.
        """
        if entry.kind.rule is not Rule.SHARED:
            msg = f"only the owner of a ledger writes {entry.kind.name}"
            raise ValueError(msg)
        for index, number in enumerate(numbers, start=entry.start):
            os.pwrite(self._file, struct.pack("=d", number), index * 8)


def is_locked(path: Path) -> bool:
    """Return whether a ledger has a living owner. Never for this process's own ledger, whose lock it would end."""
    try:
        file = open_private(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        return _lock(file)[0] != fcntl.F_UNLCK
    finally:
        os.close(file)


def _lock_owner(file: int) -> int:
    kind, pid = _lock(file)
    return 0 if kind == fcntl.F_UNLCK else pid


def _lock(file: int) -> tuple[int, int]:
    """Return the kind of a lock, and the pid of its owner, which is 0 in another container."""
    request = _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind, _, _, _, pid = _LOCK.unpack(fcntl.fcntl(file, fcntl.F_GETLK, request))
    return kind, pid
