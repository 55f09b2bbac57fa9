"""Group: the workers of one service, seen from one of them."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path

from scaleobs.group.ledger import DamagedError, Ledger, Other, has_fallen
from scaleobs.group.place import directory_of
from scaleobs.group.recognition import Root, root, started_at

_COPIED_EVERY = 10.0
"""How many seconds of a ledger's counts may be lost with it, unless fewer scrapes come."""


class Group:
    """
    The workers of one service, seen from one of them.

    Args:
        started_by: the process that started them.

    Attributes:
        root: the same.
        ledger: where this one counts.
        started: when the group began, in seconds since 1970.
        on_trouble: hears of each ledger that is damaged, and of what has no room, once.

    Raises:
        OSError: there is no place to meet, or no room.
    """

    def __init__(self, started_by: Root) -> None:
        self.root = started_by
        self.on_trouble: Callable[[Exception], None] = lambda error: None  # noqa: ARG005 - Until there is somebody.
        self._directory = directory_of(started_by)
        self.started = self._since(started_by)
        self._others: dict[Path, Other] = {}
        self._told: set[str] = set()
        self.ledger = self._claimed()

    def others(self) -> list[Other]:
        """Return the other workers' ledgers, as they are now: of the living, and what the dead have left."""
        if not self.ledger.is_whole():
            self.trouble(DamagedError(f"{self.ledger.path} is damaged: counts go on from {_COPIED_EVERY:.0f} s before"))
            self.ledger.mend(self._copy_of(self.ledger.path))
        self._keep_copy(self.ledger.path, self.ledger.read())
        return self._looked_at(Other.read)

    def peek(self) -> list[Other]:
        """Return the same, with what is new in them and not with its numbers."""
        return self._looked_at(Other.read_new)

    def trouble(self, error: Exception) -> None:
        """Tell of what went wrong, once."""
        if str(error) not in self._told:
            self._told.add(str(error))
            self.on_trouble(error)

    def _since(self, started_by: Root) -> float:
        """Return when the first root began, of those that have handed the group on."""
        path = self._directory / "started"
        try:
            with path.open("x") as file:
                file.write(f"{started_at(started_by) or time.time()}\n")
        except FileExistsError:
            pass
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
                ledger.open(ledger.read())
            except DamagedError:
                ledger.open(self._copy_of(path))
            return ledger
        raise AssertionError

    def _looked_at(self, look: Callable[[Other], None]) -> list[Other]:
        found = {}
        for path in sorted(self._directory.glob("*.ledger")):
            if path == self.ledger.path:
                continue
            try:
                other = self._others.get(path) or Other(path)
                found[path] = self._looked(other, look)
            except OSError:  # It has gone meanwhile.
                continue
        for path, other in self._others.items():
            if found.get(path) is not other:
                other.close()
        self._others = found
        return list(found.values())

    def _looked(self, other: Other, look: Callable[[Other], None]) -> Other:
        try:
            try:
                look(other)
            except DamagedError:  # It may have been begun anew.
                other = Other(other.path)
                look(other)
            self._keep_copy(other.path, other.data)
        except DamagedError:
            self.trouble(DamagedError(f"{other.path} is damaged: its counts are those of the last copy"))
            other = Other(other.path)
            with contextlib.suppress(DamagedError):  # There is no copy yet.
                other.take(self._copy_of(other.path))
        return other

    def _copy_of(self, path: Path) -> bytes:
        try:
            return path.with_suffix(".copy").read_bytes()
        except OSError:
            return b""

    def _keep_copy(self, path: Path, data: bytes) -> None:
        """Copy a ledger now and then, so that what damages it costs no more than what came after."""
        copy = path.with_suffix(".copy")
        try:
            if time.time() - copy.stat().st_mtime < _COPIED_EVERY:
                return
            if has_fallen(copy.read_bytes(), data):
                raise DamagedError
        except FileNotFoundError:
            pass
        written = self._directory / f"{os.getpid()}.{path.name}.new"
        with contextlib.suppress(OSError):  # There is no room for it.
            written.write_bytes(data)
            written.replace(copy)


_mine: Group | None = None


def leave() -> None:
    """Forget the group of the process that this one is a child of."""
    global _mine  # noqa: PLW0603 - A process is in one group.
    _mine = None


def join() -> Group | None:
    """
    Return the group of this process, or `None` where it is no worker of a recognised server.

    Raises:
        OSError: there is no place to meet.
    """
    global _mine  # noqa: PLW0603 - A process is in one group.
    if _mine is None:
        started_by = root()
        if started_by is not None:
            _mine = Group(started_by)
    return _mine
