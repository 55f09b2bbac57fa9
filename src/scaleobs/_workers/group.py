"""Group: the workers of one service, seen from one of them."""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from scaleobs._workers.directory import AloneError, directory_of
from scaleobs._workers.entries import (
    DamagedError,
    OtherVersionError,
    Shape,
    entries_from,
    entries_of,
    has_fallen,
    is_blank,
    is_of_other_version,
    used_of,
)
from scaleobs._workers.kinds import Kind
from scaleobs._workers.ledger import FullError, Ledger
from scaleobs._workers.recognition import Root, root, started_at
from scaleobs._workers.sibling import BegunAnewError, Sibling

_COPIED_EVERY = 10.0
"""How many seconds of a ledger's counts may be lost with it, unless fewer scrapes come or there are many ledgers."""

_COPIED_AT_ONCE = 4

Slots: TypeAlias = "list[float] | memoryview[float]"
"""Numbers in memory that siblings read, or in this process's own."""


class Group:
    """
    The workers of one service, seen from one of them.

    Any thread may ask at any time.

    Args:
        started_by: the process that started them.
        on_trouble: called with each error of a ledger that is damaged, and of what has no room, once; without it, they
            wait.

    Attributes:
        root: the same.
        ledger: where this one counts.
        root_directory: what it shares with workers of the same root that run another version of scaleobs.
        started: when the group began, in seconds since 1970.
        mended: how often its ledger had to be written anew.
        on_trouble: the same.

    Raises:
        OSError: there is no place to meet, or no room.
    """

    def __init__(self, started_by: Root, on_trouble: Callable[[Exception], None] | None = None) -> None:
        self.root = started_by
        self.mended = 0
        self.on_trouble = on_trouble
        self._directory = directory_of(started_by)
        self.root_directory = self._directory.parent
        self.started = self._since(started_by)
        self._looking = threading.Lock()
        self._others: dict[str, Sibling] = {}
        self._due: set[str] = set()
        self._told: set[str] = set()
        self._untold: deque[Exception] = deque()
        self._shape = Shape()
        self.ledger = self._claimed()

    def slots(self, kind: Kind, key: bytes, length: int) -> Slots:
        """
        Return numbers that siblings read: those of this worker's ledger under this key, or new ones, which are 0.

        If the ledger has no room they are this process's own, which is reported once.
        """
        try:
            return self.ledger.cells(kind, key, length)
        except FullError as error:
            self.trouble(error)
            return [0.0] * length

    def others(self) -> list[Sibling]:
        """Return the other workers' ledgers, as they are now: of the living, and what the dead have left."""
        with self._looking:
            self._due = self._copies_due()
            self._look_after_own()
            found = self._looked_at(self._read)
        self._tell()
        return found

    def peek(self) -> list[Sibling]:
        """Return the same, with what is new in them and not with its numbers."""
        with self._looking:
            found = self._looked_at(Sibling.read_new)
        self._tell()
        return found

    def trouble(self, error: Exception) -> None:
        """Tell of what went wrong, once."""
        self._note(error)
        self._tell()

    def _note(self, error: Exception) -> None:
        if str(error) not in self._told:
            self._told.add(str(error))
            self._untold.append(error)

    def _tell(self) -> None:
        """Tell what is untold, as soon as there is somebody; never while others wait to look."""
        with contextlib.suppress(IndexError):
            while self.on_trouble is not None:
                self.on_trouble(self._untold.popleft())

    def _since(self, started_by: Root) -> float:
        """Return when the first root began, of those that have handed the group on."""
        path = self._directory / "started"
        written = self._directory / f"{os.getpid()}.started.new"
        try:
            written.write_text(f"{started_at(started_by) or time.time()}\n")
            with contextlib.suppress(FileExistsError):
                os.link(written, path)  # Whole or not at all.
        finally:
            written.unlink(missing_ok=True)
        with contextlib.suppress(OSError, ValueError):
            return float(path.read_text())
        return time.time()

    def _claimed(self) -> Ledger:
        """Take over the first ledger whose owner is dead, or begin a new one."""
        for number in itertools.count():
            path = self._directory / f"{number}.ledger"
            try:
                ledger = Ledger(path)
            except BlockingIOError:
                continue
            try:
                if not is_of_other_version(ledger.read()):
                    self._open(ledger)
                    return ledger
            except BaseException:
                ledger.close()
                raise
            ledger.close()
        raise AssertionError

    def _open(self, ledger: Ledger) -> None:
        copy = self._copy_of(ledger.path)
        data = ledger.read()
        if not has_fallen(copy, data):
            with contextlib.suppress(DamagedError):
                ledger.open(b"" if is_blank(data) else data)
                return
        self._note(DamagedError(f"{ledger.path} is damaged: its counts go on from the last copy"))
        ledger.open(copy if entries_of(copy) else b"")

    def _look_after_own(self) -> None:
        path = self.ledger.path
        before = self._copy_to_renew(path)
        data = self.ledger.read() if before is not None else b""
        with contextlib.suppress(DamagedError):
            self._shape.add(entries_from(data, self._shape.known, used_of(data)[0]))
        if self.ledger.is_whole() and not has_fallen(before or b"", data, self._shape):
            self._keep_copy(path, before, data)
        else:
            self._note(DamagedError(f"{path} is damaged: its counts go on from the last copy"))
            self.ledger.mend(self._copy_of(path))
            self._shape = Shape()
            self.mended += 1

    def _looked_at(self, look: Callable[[Sibling], object]) -> list[Sibling]:
        found = {}
        for name in self._names():
            try:
                other = self._others.get(name)
                # Whether its owner has mended it shows when it is read; another thread may still be reading the copy.
                if other is None or (other.is_copy and look == self._read):
                    other = Sibling(self._directory / name)
                found[name] = self._looked(other, look)
            except (OSError, OtherVersionError):  # It has gone meanwhile, or is another group's.
                continue
        self._others = found
        return list(found.values())

    def _names(self) -> list[str]:
        try:
            names = sorted(entry.name for entry in os.scandir(self._directory))
        except OSError:  # The place is gone.
            return []
        return [name for name in names if name.endswith(".ledger") and name != self.ledger.path.name]

    def _looked(self, other: Sibling, look: Callable[[Sibling], object]) -> Sibling:
        try:
            try:
                look(other)
            except BegunAnewError:
                other = Sibling(other.path)
                look(other)
        except OtherVersionError:
            raise
        except DamagedError:
            self._note(DamagedError(f"{other.path} is damaged: its counts are those of the last copy"))
            other = Sibling(other.path)
            with contextlib.suppress(DamagedError):  # There is no copy yet.
                other.take(self._copy_of(other.path))
        return other

    def _read(self, other: Sibling) -> None:
        # Another reader may make a copy meanwhile, which is to be of an earlier moment than what is compared with it.
        before = self._copy_to_renew(other.path)
        if before is None and other.check():
            return
        data = other.read()
        if not data and not self._copy_of(other.path):  # It is being begun.
            return
        if not data or has_fallen(before or b"", data, other.shape):
            raise DamagedError
        self._keep_copy(other.path, before, data)

    def _copy_of(self, path: Path) -> bytes:
        try:
            return path.with_suffix(".copy").read_bytes()
        except OSError:
            return b""

    def _copy_to_renew(self, path: Path) -> bytes | None:
        """Return the copy of a ledger, empty where there is none, or `None` as long as it will do."""
        return self._copy_of(path) if path.stem in self._due else None

    def _copies_due(self) -> set[str]:
        """Return of which ledgers to make a copy: of those without, and of as many others as a scrape has time for."""
        missing: set[str] = set()
        made: dict[str, float] = {}
        with contextlib.suppress(OSError):  # The place is gone.
            for entry in os.scandir(self._directory):
                stem, _, kind = entry.name.rpartition(".")
                if kind == "ledger":
                    missing.add(stem)
                elif kind == "copy":
                    made[stem] = entry.stat().st_mtime
        before = time.time() - _COPIED_EVERY
        old = sorted((at, stem) for stem, at in made.items() if at <= before)
        return (missing - made.keys()) | {stem for _, stem in old[:_COPIED_AT_ONCE]}

    def _keep_copy(self, path: Path, before: bytes | None, data: bytes) -> None:
        """Copy a ledger now and then, so that what damages it costs no more than what came after."""
        if before is None:
            return
        # By the ledgers of who writes and of whom: there are never more of these, even if each writer is killed.
        written = path.with_suffix(f".{self.ledger.path.stem}.new")
        try:
            written.write_bytes(data)
            written.replace(path.with_suffix(".copy"))
        except OSError:  # There is no room for it.
            with contextlib.suppress(OSError):
                written.unlink()


_mine: Group | None = None


def leave() -> None:
    """Forget the group of the process that this one is a child of."""
    global _mine  # noqa: PLW0603 - A process is in one group.
    _mine = None


def join(on_trouble: Callable[[Exception], None] | None = None) -> Group | None:
    """
    Return the group of this process, or `None` if it is no worker of a recognised server.

    Args:
        on_trouble: see `Group`; of the call that makes the group, which is that of the metrics.

    Raises:
        AloneError: there is no place to meet.
    """
    global _mine  # noqa: PLW0603 - A process is in one group.
    if _mine is None:
        started_by = root()
        if started_by is not None:
            try:
                _mine = Group(started_by, on_trouble)
            except OSError as error:
                raise AloneError(error) from error
    return _mine
