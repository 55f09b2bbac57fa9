"""Where a group meets: a directory of its own, in memory where there is such a file system."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

from scaleobs.group.ledger import is_locked
from scaleobs.group.recognition import Root, started

_NAMED = "PROMETHEUS_MULTIPROC_DIR"


def directory_of(root: Root) -> Path:
    """
    Return the directory of a group, made where there is none, for this user alone.

    Directories of groups that are dead are removed on the way.

    Raises:
        OSError: it can't be made, or is somebody else's.
    """
    named = os.environ.get(_NAMED)
    parent = Path(named) if named else _parent()
    name = _name(root.pid, root.started)
    _remove_dead(parent)
    if root.before:
        before = next((path for path in sorted(parent.glob(_name(root.before, "*"))) if path.is_dir()), None)
        if before is not None:
            with contextlib.suppress(FileExistsError):
                (parent / name).symlink_to(before.resolve().name)
    path = (parent / name).resolve()
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        msg = f"{path} is there and isn't this user's own directory"
        raise PermissionError(msg)
    return path


def _parent() -> Path:
    memory = Path("/dev/shm")  # noqa: S108 - What is made there is named and checked.
    return memory if os.access(memory, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())


def _name(pid: int | str, since: int | str) -> str:
    # Containers may share a file system, and have the same pids.
    try:
        namespace = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        namespace = 0
    return f"scaleobs-{os.getuid()}-{namespace}-{pid}-{since}"


def _remove_dead(parent: Path) -> None:
    """Remove what groups have left whose root and workers are dead; a second name of a directory keeps it."""
    for path in _of_dead_roots(parent):
        with contextlib.suppress(OSError):
            if path.is_symlink():
                path.unlink()
    living = {path.resolve() for path in parent.glob(_name("*", "*")) if path.is_symlink()}
    for path in _of_dead_roots(parent):
        if path not in living and not any(map(is_locked, path.glob("*.ledger"))):
            shutil.rmtree(path, ignore_errors=True)


def _of_dead_roots(parent: Path) -> Iterator[Path]:
    for path in parent.glob(_name("*", "*")):
        pid, since = path.name.split("-")[-2:]
        if pid.isdigit() and since.isdigit() and started(int(pid)) != int(since):
            yield path
