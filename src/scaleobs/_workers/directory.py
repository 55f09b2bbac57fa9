"""
Where a group meets: a directory of its own, in memory where there is such a file system.

Workers of the same root may run different versions of scaleobs, e.g. after gunicorn's USR2. They share the root's
directory, with the lock of the management port, and each version has its own directory in it, with its ledgers. What
all versions rely on, and no version may change: these names, `*.ledger`, and the lock on a ledger whose owner lives.
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

from scaleobs._workers.entries import MAGIC
from scaleobs._workers.recognition import Root, started
from scaleobs._workers.sibling import is_locked

_NAMED = "PROMETHEUS_MULTIPROC_DIR"


class AloneError(OSError):
    """There is no place to meet. The message says where it should have been, why it isn't, and what to do."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(
            f"The workers of this service can't count together in {_parent()}: {reason}. Each shows its own counts "
            f"alone. Let this user write there, make room, or name another directory by {_NAMED}, and restart."
        )


def directory_of(root: Root) -> Path:
    """
    Return the directory of a group inside that of its root, made where there is none, for this user alone.

    Directories of roots that are dead, with all their workers, are removed on the way.

    Raises:
        OSError: it can't be made, or is somebody else's.
    """
    parent = _parent()
    path = parent / _name(root.pid, root.started)
    _remove_dead(parent)
    if root.before:
        before = next((path for path in sorted(parent.glob(_name(root.before, "*"))) if path.is_dir()), None)
        if before is not None:
            with contextlib.suppress(FileExistsError):
                path.symlink_to(before.resolve().name)
    if path.is_symlink() and path.lstat().st_uid == os.getuid():
        name = str(path.readlink())
        # One that we have made leads to another group's directory beside it.
        path = parent / name if "/" not in name and fnmatchcase(name, _name("*", "*")) else path
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        msg = f"{path} is there, and is no directory of this user alone"
        raise PermissionError(msg)
    mine = path / MAGIC.decode()
    mine.mkdir(mode=0o700, exist_ok=True)
    return mine


def _parent() -> Path:
    named = os.environ.get(_NAMED)
    if named:
        return Path(named)
    memory = Path("/dev/shm")  # noqa: S108 - What is made there is named and checked.
    return memory if os.access(memory, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())


def _name(pid: int | str, since: int | str) -> str:
    # Containers may share a file system, and have the same pids.
    try:
        namespace = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        namespace = 0
    return f"scaleobs-workers-{os.getuid()}-{namespace}-{pid}-{since}"


def _remove_dead(parent: Path) -> None:
    """Remove what groups have left whose root and workers are dead; a second name of a directory keeps it."""
    for path in _of_dead_roots(parent):
        with contextlib.suppress(OSError):
            if path.is_symlink():
                path.unlink()
    living = {path.resolve() for path in parent.glob(_name("*", "*")) if path.is_symlink()}
    for path in _of_dead_roots(parent):
        if path not in living and not any(map(is_locked, path.glob("*/*.ledger"))):
            shutil.rmtree(path, ignore_errors=True)


def _of_dead_roots(parent: Path) -> Iterator[Path]:
    for path in parent.glob(_name("*", "*")):
        pid, since = path.name.split("-")[-2:]
        if pid.isdigit() and since.isdigit() and started(int(pid)) != int(since):
            yield path
