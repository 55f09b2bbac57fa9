"""Another worker's ledger, as it is read."""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

from scaleobs.group.entries import HEADER, DamagedError, Entry, Shape, entries_from, is_blank, numbers_of, used_of

_LOCK = struct.Struct("hhqqi")
_FIRST = 64 * 1024


class BegunAnewError(DamagedError):
    """A ledger has another owner than before, who may not have gone on with all that was there."""


class Sibling:
    """
    Another worker's ledger, read as a file, so that one that was cut doesn't end the reader.

    Its content isn't kept, as there may be many of them.

    Args:
        path: the file.

    Attributes:
        copy: where the group keeps a copy.
        entries: what there was when it was read last.
        shape: the same, to compare it with a copy.

    Raises:
        OSError: it is gone.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.copy = path.with_suffix(".copy")
        self.entries: list[Entry] = []
        self.shape = Shape()
        self.owner = 0
        self.is_living = False
        self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._opened_by = os.getpid()
        self._parsed = 0
        self._instead: bytes | None = None

    def __del__(self) -> None:
        # When nobody reads it any more; never in a child, where closing might end a lock that the child has.
        if getattr(self, "_opened_by", 0) == os.getpid():
            self.close()

    def close(self) -> None:
        """Close the file; the last one that lets go of it does so otherwise."""
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    @property
    def is_copy(self) -> bool:
        """Whether it shows something else than what is in the file."""
        return self._instead is not None

    @property
    def data(self) -> bytes:
        """All bytes of `entries`, as they are now."""
        if self._instead is not None:
            return self._instead
        parsed = self._parsed
        return os.pread(self._file, parsed, 0).ljust(parsed, b"\0")

    @property
    def numbers(self) -> memoryview[float]:
        """The same as numbers."""
        return numbers_of(self.data)

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
        self.entries += added
        self.shape.add(added)

    def read_new(self) -> None:
        """Read which entries are new, and not their numbers."""
        header = os.pread(self._file, HEADER.size, 0)
        if self._instead is not None or (is_blank(header) and not self._parsed):
            return
        used, owner = used_of(header, is_whole=False)
        if used > self._parsed or owner != self.owner:
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
