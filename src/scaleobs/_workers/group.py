"""A group: the workers of one service."""

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

from scaleobs._workers.directory import NoDirectoryError, directory_of
from scaleobs._workers.files import ForeignFileError, open_private, read_private, write_private
from scaleobs._workers.kinds import Kind
from scaleobs._workers.ledger import (
    DamagedError,
    EntryLayout,
    FullError,
    Ledger,
    OtherVersionError,
    entries_of,
    has_fallen,
    is_blank,
    is_moved,
    is_of_other_version,
    parse_entries,
    read_header,
)
from scaleobs._workers.recognition import Root, find_root, next_user, start_time
from scaleobs._workers.sibling import OwnerChangedError, Sibling
from scaleobs._workers.user import acting_as

_COPY_SECONDS = 10.0
"""The age from which a copy of a ledger is renewed: at most the counts since then are lost if the ledger is damaged."""

_COPIES_PER_SCRAPE = 4

Slots: TypeAlias = "list[float] | memoryview[float]"
"""Slots in a ledger, which siblings read, or in this process's own memory."""


class Group:
    """
    The workers of one service, as one of them sees it.

    Any thread may call any method at any time.

    Args:
        root: the process that started the workers.
        on_error: called once with each error of a damaged ledger or of missing room. As long as there is no such
            function, errors are kept for it.

    Attributes:
        root: the same.
        on_error: the same.
        ledger: that of this worker.
        root_directory: the directory shared with workers of the same root that run another version of scaleobs.
        started: the start of the group, in seconds since 1970.
        repairs: how often this worker's ledger was repaired.
        user: whose files these are.
        is_complete: whether all ledgers could be read the last time.

    Raises:
        OSError: there is no directory, or no room.
    """

    def __init__(self, root: Root, on_error: Callable[[Exception], None] | None = None) -> None:
        self.root = root
        self.repairs = 0
        self.user = os.geteuid()
        self.is_complete = True
        self.on_error = on_error
        self._directory = directory_of(root)
        self.root_directory = self._directory.parent
        self.started = self._read_start(root)
        self._read_lock = threading.Lock()
        self._siblings: dict[str, Sibling] = {}
        self._due: set[str] = set()
        self._reported: set[str] = set()
        self._unreported: deque[Exception] = deque()
        self._layout = EntryLayout()
        self.ledger = self._claim_ledger()

    def slots(self, kind: Kind, key: bytes, length: int) -> Slots:
        """
        Return the slots of this worker's entry with this kind and key, or of a new entry, whose slots are 0.

        If the ledger has no room they are in this process's own memory, and this is reported once.
        """
        try:
            return self.ledger.slots(kind, key, length)
        except FullError as error:
            self.report_once(error)
            return [0.0] * length

    def siblings(self) -> list[Sibling]:
        """Return the other workers as they are now: the living ones, and what the dead have left. Renews copies."""
        with self._read_lock:
            self._due = self._due_copies()
            self._verify_ledger()
            found = self._open_siblings(self._read_sibling)
        self._report()
        return found

    def peek(self) -> list[Sibling]:
        """Return the same, with new entries indexed, but without comparing ledgers with their copies."""
        with self._read_lock:
            found = self._open_siblings(Sibling.read_new)
        self._report()
        return found

    def open_shared(self, name: str) -> int:
        """
        Open a file that all versions of scaleobs share in this group, and return its descriptor.

        Raises:
            OSError: it can't be opened.
        """
        with acting_as(next_user()):
            return open_private(self.root_directory / name, os.O_RDWR | os.O_CREAT)

    def report_once(self, error: Exception) -> None:
        """Report an error, unless one with this message was reported before."""
        self._add_error(error)
        self._report()

    def _add_error(self, error: Exception) -> None:
        if str(error) not in self._reported:
            self._reported.add(str(error))
            self._unreported.append(error)

    def _report(self) -> None:
        """Report what is unreported, if there is a function for it. Never while this thread holds the lock."""
        with contextlib.suppress(IndexError):
            while self.on_error is not None:
                self.on_error(self._unreported.popleft())

    def _read_start(self, root: Root) -> float:
        """Return the start of the first root of the group, after which others may have continued it."""
        path = self._directory / "started"
        written = self._directory / f"{os.getpid()}.started.new"
        if not path.exists():  # Workers of the same root write the same at the same time.
            try:
                write_private(written, f"{start_time(root) or time.time()}\n".encode())
                written.rename(path)  # Never half a file.
            finally:
                written.unlink(missing_ok=True)
        with contextlib.suppress(OSError, ValueError):
            return float(read_private(path))
        return time.time()

    def _claim_ledger(self) -> Ledger:
        """Take over the first ledger whose owner is dead, or create one."""
        for number in itertools.count():
            path = self._directory / f"{number}.ledger"
            try:
                ledger = Ledger(path)
            except BlockingIOError:
                continue
            except ForeignFileError as error:
                self._add_error(error)
                continue
            try:
                if not is_of_other_version(ledger.read()):
                    self._open_ledger(ledger)
                    return ledger
            except BaseException:
                ledger.close()
                raise
            ledger.close()
        raise AssertionError

    def _open_ledger(self, ledger: Ledger) -> None:
        data = ledger.read()
        copy = b"" if is_moved(data) else self._read_copy(ledger.path)
        if not has_fallen(copy, data):
            with contextlib.suppress(DamagedError):
                ledger.open(b"" if is_blank(data) or is_moved(data) else data)
                return
        self._add_error(DamagedError(f"{ledger.path} is damaged: its counts continue from the last copy"))
        ledger.open(copy if entries_of(copy) else b"")

    def _verify_ledger(self) -> None:
        """Compare this worker's ledger with its last copy if a new copy is due, and repair or copy it."""
        path = self.ledger.path
        before = self._due_copy(path)
        data = self.ledger.read() if before is not None else b""
        with contextlib.suppress(DamagedError):
            self._layout.add(parse_entries(data, self._layout.covered, read_header(data)[0]))
        if self.ledger.is_whole() and not has_fallen(before or b"", data, self._layout):
            self._write_copy(path, before, data)
        else:
            self._add_error(DamagedError(f"{path} is damaged: its counts continue from the last copy"))
            self.ledger.repair(self._read_copy(path))
            self._layout = EntryLayout()
            self.repairs += 1

    def _open_siblings(self, read: Callable[[Sibling], object]) -> list[Sibling]:
        found = {}
        self.is_complete = True
        for name in self._sibling_names():
            try:
                sibling = self._siblings.get(name)
                # A new object: the owner may have repaired its ledger, and another thread may still read the copy.
                if sibling is None or (sibling.is_copy and read == self._read_sibling):
                    sibling = Sibling(self._directory / name)
                found[name] = self._read_or_copy(sibling, read)
            except (FileNotFoundError, OtherVersionError):  # The file was removed meanwhile, or is another group's.
                continue
            except ForeignFileError as error:  # No worker has made it.
                self._add_error(error)
            except OSError as error:
                self._add_unreadable(error)
        self._siblings = found
        return list(found.values())

    def _sibling_names(self) -> list[str]:
        try:
            names = sorted(entry.name for entry in os.scandir(self._directory))
        except FileNotFoundError:  # The directory was removed.
            return []
        except OSError as error:
            self._add_unreadable(error)
            return []
        return [name for name in names if name.endswith(".ledger") and name != self.ledger.path.name]

    def _add_unreadable(self, error: OSError) -> None:
        self.is_complete = False
        if os.geteuid() == self.user:  # Otherwise this process will join the group of its new user.
            self._add_error(NoDirectoryError(error))

    def _read_or_copy(self, sibling: Sibling, read: Callable[[Sibling], object]) -> Sibling:
        try:
            try:
                read(sibling)
            except OwnerChangedError:
                sibling = Sibling(sibling.path)
                read(sibling)
        except OtherVersionError:
            raise
        except DamagedError:
            self._add_error(DamagedError(f"{sibling.path} is damaged: its last copy is shown"))
            sibling = Sibling(sibling.path)
            with contextlib.suppress(DamagedError):  # There is no copy yet.
                sibling.show_copy(self._read_copy(sibling.path))
        return sibling

    def _read_sibling(self, sibling: Sibling) -> None:
        # The copy first: it has to be older than the data that it is compared with, and others may renew it meanwhile.
        before = self._due_copy(sibling.path)
        if before is None and sibling.refresh():
            return
        data = sibling.read()
        if is_moved(data) or (not data and not self._read_copy(sibling.path)):  # The ledger is being created.
            return
        if not data or has_fallen(before or b"", data, sibling.layout):
            raise DamagedError
        self._write_copy(sibling.path, before, data)

    def _read_copy(self, path: Path) -> bytes:
        try:
            return read_private(path.with_suffix(".copy"))
        except OSError:
            return b""

    def _due_copy(self, path: Path) -> bytes | None:
        """Return the copy of a ledger if it is to be renewed, empty if there is none; `None` if it isn't due."""
        return self._read_copy(path) if path.stem in self._due else None

    def _due_copies(self) -> set[str]:
        """Return which ledgers to copy: all without a copy, and as many others as a scrape has time for."""
        missing: set[str] = set()
        made: dict[str, float] = {}
        with contextlib.suppress(OSError):  # The directory was removed.
            for entry in os.scandir(self._directory):
                stem, _, kind = entry.name.rpartition(".")
                if kind == "ledger":
                    missing.add(stem)
                elif kind == "copy":
                    made[stem] = entry.stat().st_mtime
        before = time.time() - _COPY_SECONDS
        old = sorted((at, stem) for stem, at in made.items() if at <= before)
        return (missing - made.keys()) | {stem for _, stem in old[:_COPIES_PER_SCRAPE]}

    def _write_copy(self, path: Path, before: bytes | None, data: bytes) -> None:
        """Copy a ledger if that is due."""
        if before is None:
            return
        # Named after both ledgers, the writer's and the copied one: so there are few files, even if writers are killed.
        written = path.with_suffix(f".{self.ledger.path.stem}.new")
        try:
            write_private(written, data)
            written.replace(path.with_suffix(".copy"))
        except OSError:  # There is no room for it.
            with contextlib.suppress(OSError):
                written.unlink()


_process_group: Group | None = None


def leave_group() -> Group | None:
    """Forget the group, and return it: that of the parent after a fork, or that of the former user of this process."""
    global _process_group
    left, _process_group = _process_group, None
    return left


def join_group(on_error: Callable[[Exception], None] | None = None) -> Group | None:
    """
    Return the group of this process, or `None` if it isn't a worker of a recognised server.

    If the server is about to change the user of this process, the files are those of the next user.

    Args:
        on_error: see `Group`. Only the call that creates the group uses it, which is that of the metrics.

    Raises:
        NoDirectoryError: there is no directory for the group.
    """
    global _process_group  # noqa: PLW0603 - A process is in one group.
    if _process_group is None:
        root = find_root()
        if root is not None:
            try:
                with acting_as(next_user()):
                    _process_group = Group(root, on_error)
            except OSError as error:
                raise NoDirectoryError(error) from error
    return _process_group
