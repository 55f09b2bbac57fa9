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
import tempfile
import time
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from scaleobs._workers.files import check_directory, is_own, is_private
from scaleobs._workers.ledger import MAGIC
from scaleobs._workers.recognition import Root, start_ticks
from scaleobs._workers.sibling import is_locked

VARIABLE = "SCALEOBS_WORKERS_DIR"
OTHER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""prometheus_client's, which makes that library write files of its own. It is used if `VARIABLE` isn't set."""


_MIN_AGE_SECONDS = 300.0
"""
The age from which a directory of another container may be removed.

A service whose workers have all died for a moment is scraped meanwhile, and each scrape renews copies of ledgers.
"""


class NoDirectoryError(OSError):
    """The group has no directory that this user may use. The message contains its parent, the reason, and the fix."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(
            f"The workers of this service can't count together in {_parent()}: {reason}. Each worker shows only its "
            f"own counts. Let this user write there, free space, or set {VARIABLE} to another directory, and restart."
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
    if path.is_symlink() and is_own(path.lstat()):
        name = str(path.readlink())
        # A symlink of ours leads to another group's directory beside it.
        path = parent / name if "/" not in name and fnmatchcase(name, _name("*", "*")) else path
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    check_directory(path)
    of_version = path / MAGIC.decode()
    of_version.mkdir(mode=0o700, exist_ok=True)
    check_directory(of_version)
    return of_version


def _parent() -> Path:
    named = os.environ.get(VARIABLE) or os.environ.get(OTHER_VARIABLE)
    if named:
        return Path(named)
    memory = Path("/dev/shm")  # noqa: S108 - The directory that is created there is checked.
    return memory if os.access(memory, os.W_OK | os.X_OK, effective_ids=True) else Path(tempfile.gettempdir())


def _name(pid: int | str, started: int | str, namespace: int | str = "") -> str:
    # Containers may share a file system, and have the same pids.
    return f"scaleobs-workers-{os.geteuid()}-{_namespace() if namespace == '' else namespace}-{pid}-{started}"


def _namespace() -> int:
    try:
        return Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return 0


def _remove_dead(parent: Path) -> None:
    """
    Remove the directories whose root and workers are dead, unless a symlink of a living root leads there.

    The roots of other containers, which may be former ones of this service, can't be seen: of these, directories are
    removed in which no worker has its ledger locked, and in which nothing has changed for some minutes.
    """
    for path in _of_dead_roots(parent):
        with contextlib.suppress(OSError):
            if path.is_symlink():
                path.unlink()
    links = (path for path in parent.glob(_name("*", "*", "*")) if path.is_symlink() and is_own(path.lstat()))
    used = {path.resolve() for path in links}
    for path in _of_dead_roots(parent):
        with contextlib.suppress(OSError):
            if path not in used and is_private(path.lstat()) and not any(map(is_locked, path.glob("*/*.ledger"))):
                shutil.rmtree(path, ignore_errors=True)


def _of_dead_roots(parent: Path) -> Iterator[Path]:
    own_namespace = _namespace()
    for path in parent.glob(_name("*", "*", "*")):
        namespace, pid, started = path.name.split("-")[-3:]
        if not (namespace.isdigit() and pid.isdigit() and started.isdigit()):
            continue
        with contextlib.suppress(OSError):
            if int(namespace) == own_namespace:
                if start_ticks(int(pid)) != int(started):
                    yield path
            elif is_own(path.lstat()) and _last_change(path) < time.time() - _MIN_AGE_SECONDS:
                yield path


def _last_change(path: Path) -> float:
    """Return the last change of a directory, or of anything in it; of a symlink, its own."""
    inside = [] if path.is_symlink() else list(path.rglob("*"))
    return max(each.lstat().st_mtime for each in (path, *inside))
