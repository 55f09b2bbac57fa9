"""
The directory of a group, in a file system in memory if there is one.

Workers of the same root may run different versions of scaleobs, e.g. after gunicorn's USR2. They share the root's
directory, which contains the lock of the management port and one directory with ledgers for each version. All versions
rely on these names, on `*.ledger`, and on the lock on the ledger of a living worker: no version may change them.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from scaleobs._workers.ledger import MAGIC
from scaleobs._workers.recognition import Root, start_ticks
from scaleobs._workers.sibling import is_locked

_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


class NoDirectoryError(OSError):
    """The group has no directory. The message contains its parent, the reason, and the fix."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(
            f"The workers of this service can't count together in {_parent()}: {reason}. Each worker shows only its "
            f"own counts. Let this user write there, free space, or set {_VARIABLE} to another directory, and restart."
        )


def directory_of(root: Root) -> Path:
    """
    Return the directory of a group inside the directory of its root. Missing ones are created, for this user only.

    Also removes the directories of roots that are dead if all their workers are dead.

    Raises:
        OSError: it can't be created, or isn't this user's alone.
    """
    parent = _parent()
    path = parent / _name(root.pid, root.started)
    _remove_dead(parent)
    if root.previous:
        previous = next((path for path in sorted(parent.glob(_name(root.previous, "*"))) if path.is_dir()), None)
        if previous is not None:
            with contextlib.suppress(FileExistsError):
                path.symlink_to(previous.resolve().name)
    if path.is_symlink() and path.lstat().st_uid == os.getuid():
        name = str(path.readlink())
        # A symlink of ours leads to another group's directory beside it.
        path = parent / name if "/" not in name and fnmatchcase(name, _name("*", "*")) else path
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        msg = f"{path} exists and isn't a directory of this user alone"
        raise PermissionError(msg)
    of_version = path / MAGIC.decode()
    of_version.mkdir(mode=0o700, exist_ok=True)
    return of_version


def _parent() -> Path:
    named = os.environ.get(_VARIABLE)
    if named:
        return Path(named)
    memory = Path("/dev/shm")  # noqa: S108 - The directory that is created there is checked.
    return memory if os.access(memory, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())


def _name(pid: int | str, started: int | str) -> str:
    # Containers may share a file system, and have the same pids.
    try:
        namespace = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        namespace = 0
    return f"scaleobs-workers-{os.getuid()}-{namespace}-{pid}-{started}"


def _remove_dead(parent: Path) -> None:
    """Remove the directories whose root and workers are dead, unless a symlink of a living root leads there."""
    for path in _of_dead_roots(parent):
        with contextlib.suppress(OSError):
            if path.is_symlink():
                path.unlink()
    used = {path.resolve() for path in parent.glob(_name("*", "*")) if path.is_symlink()}
    for path in _of_dead_roots(parent):
        if path not in used and not any(map(is_locked, path.glob("*/*.ledger"))):
            shutil.rmtree(path, ignore_errors=True)


def _of_dead_roots(parent: Path) -> Iterator[Path]:
    for path in parent.glob(_name("*", "*")):
        pid, started = path.name.split("-")[-2:]
        if pid.isdigit() and started.isdigit() and start_ticks(int(pid)) != int(started):
            yield path
