"""
Files and directories of this user alone.

Other users may write in the directory that has ours, e.g. `/dev/shm`. A worker that is root must not open what their
links lead to: it would write there, and closing a file ends all locks that the process has on it.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path


class ForeignFileError(PermissionError):
    """A file is a link, no regular file, or another user's."""


def is_own(found: os.stat_result) -> bool:
    """Return whether a file belongs to this user."""
    return found.st_uid == os.geteuid()


def is_private(found: os.stat_result) -> bool:
    """Return whether this is a directory, and only this user may use it."""
    return stat.S_ISDIR(found.st_mode) and is_own(found) and not stat.S_IMODE(found.st_mode) & 0o077


def check_directory(path: Path) -> None:
    """
    Check a directory.

    Raises:
        PermissionError: it isn't this user's alone, or is a symlink.
    """
    if not is_private(path.lstat()):
        msg = f"{path} exists and isn't a directory of this user alone"
        raise PermissionError(msg)


def open_private(path: Path, flags: int) -> int:
    """
    Open a file in a directory in which only this user may write, and return its descriptor.

    Args:
        path: the file.
        flags: those of `os.open`.

    Raises:
        ForeignFileError: the file is a link, no regular file, or another user's; it isn't opened.
        OSError: it can't be opened, or others may write in its directory.
    """
    file = _kept_open(path)
    if file is not None:
        return file
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(directory)
        if not is_own(found) or stat.S_IMODE(found.st_mode) & 0o022:
            msg = f"{path.parent} isn't a directory of this user alone"
            raise PermissionError(msg)
        # Before it is opened. No other user can put another file there meanwhile.
        with contextlib.suppress(FileNotFoundError):
            found = os.stat(path.name, dir_fd=directory, follow_symlinks=False)
            if not (stat.S_ISREG(found.st_mode) and is_own(found) and found.st_nlink == 1):
                msg = f"{path} is a link, or no file of this user"
                raise ForeignFileError(msg)
        return os.open(path.name, flags | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=directory)
    finally:
        os.close(directory)


_kept: dict[Path, int] = {}


def keep_open(path: Path, file: int) -> None:
    """Keep a file open, and so its lock: the next `open_private` of the path returns the same descriptor."""
    _kept[path] = file


def _kept_open(path: Path) -> int | None:
    file = _kept.pop(path, None)
    if file is not None:
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(file), path.lstat()):
                return file
        os.close(file)
    return None


def read_private(path: Path) -> bytes:
    """Return the content of such a file; raises the same errors."""
    with os.fdopen(open_private(path, os.O_RDONLY), "rb") as file:
        return file.read()


def write_private(path: Path, data: bytes) -> None:
    """Write such a file; raises the same errors."""
    with os.fdopen(open_private(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as file:
        file.write(data)
