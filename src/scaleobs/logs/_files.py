"""Appends lines to regular files, each line whole."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress


class Appender:
    """Appends to a file. If the disk is full in the middle of a line, the next one starts with a line break."""

    def __init__(self) -> None:
        self._is_torn = False

    def write(self, descriptor: int, line: bytes) -> bool:
        rest = whole = b"\n" + line if self._is_torn else line
        try:
            while rest := rest[os.write(descriptor, rest) :]:
                pass
        except OSError:
            self._is_torn = self._is_torn or len(rest) < len(whole)
            raise
        self._is_torn = False
        return True


class LogFile:
    """
    A file that several processes append to, and that logrotate may rename or truncate at any time.

    Args:
        path: the file, in a folder that exists.

    Raises:
        OSError: the file can't be opened, or is a named pipe.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._appender = Appender()
        self._open()

    def _open(self) -> None:
        with suppress(FileNotFoundError):
            if stat.S_ISFIFO(os.stat(self.path).st_mode):  # noqa: PTH116
                # To open it would wait for a reader, and to write would wait for a slow one.
                raise OSError(errno.EINVAL, "it is a named pipe", self.path)
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        opened = os.fstat(self._descriptor)
        self._identity = opened.st_dev, opened.st_ino

    def write(self, line: bytes) -> None:
        """Append a line to the file that has this path now."""
        try:
            found = os.stat(self.path)  # noqa: PTH116 - Called for each line.
            is_same = (found.st_dev, found.st_ino) == self._identity
        except FileNotFoundError:
            is_same = False
        if not is_same:
            before = self._descriptor
            self._open()
            # Another thread may be about to write to the old number, which must stay that of a log file.
            os.dup2(self._descriptor, before, inheritable=False)
            os.close(self._descriptor)
            self._descriptor = before
            self._appender = Appender()
        self._appender.write(self._descriptor, line)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)
