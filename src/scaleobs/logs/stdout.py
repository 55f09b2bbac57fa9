"""Where finished lines go: stdout, one write each, and a file beside it where one is wanted."""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from scaleobs._fork import Step, after_fork
from scaleobs.logs import counts
from scaleobs.logs.counts import LOST
from scaleobs.logs.pipe import Pipe

_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+")


class _Stream:
    """A stdout without a descriptor, as tests have it."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, line: bytes) -> bool:
        text = line.decode(errors="backslashreplace")
        try:
            self._stream.write(text)
        except UnicodeEncodeError:
            self._stream.write(_BEYOND_ASCII.sub(_escaped, text))
        self._stream.flush()
        return True


class _Tail:
    """The end of a file. After a line that the disk had no room for as a whole, the next begins on one of its own."""

    def __init__(self) -> None:
        self._is_torn = False

    def write(self, descriptor: int, line: bytes) -> bool:
        rest = whole = b"\n" + line if self._is_torn else line
        try:
            while rest := rest[_write(descriptor, rest) :]:
                pass
        except OSError:
            self._is_torn = self._is_torn or len(rest) < len(whole)
            raise
        self._is_torn = False
        return True


class LogFile:
    """
    A file that several processes append to, and that logrotate may move away or empty at any time.

    Args:
        path: where it is; its folder has to be there.

    Raises:
        OSError: it can't be opened.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._tail = _Tail()
        self._open()

    def _open(self) -> None:
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        opened = os.fstat(self._descriptor)
        self._identity = opened.st_dev, opened.st_ino

    def write(self, line: bytes) -> None:
        """Write a line at the end of the file that has this name now."""
        try:
            found = os.stat(self.path)  # noqa: PTH116 - Of each line.
            is_ours = (found.st_dev, found.st_ino) == self._identity
        except FileNotFoundError:
            is_ours = False
        if not is_ours:
            before = self._descriptor
            self._open()
            # Another thread may be about to write there: the number must go on to mean a log file.
            os.dup2(self._descriptor, before, inheritable=False)
            os.close(self._descriptor)
            self._descriptor = before
            self._tail = _Tail()
        self._tail.write(self._descriptor, line)

    def close(self) -> None:
        """Close it."""
        os.close(self._descriptor)


class Stdout:
    """
    What `sys.stdout` is now: looked at for each line, since tests and servers replace it.

    Each line is one write, at once, past the stream's buffer, which is emptied before so that lines and what
    `print` wrote keep their order. Where stdout is closed or nobody reads it, the line is lost and counted, and the
    application goes on.

    Attributes:
        file: where each line goes as well.
        tell_lost: writes a line of how many were lost, once others are written again.
    """

    def __init__(self) -> None:
        self._stream: Any = None
        self._flush: Any = None
        self._put: Any = None
        self._descriptor: int | None = None
        self._lost = 0
        self.tell_lost: Callable[[int], None] = lambda lost: None  # noqa: ARG005
        self.file: LogFile | None = None

    def write(self, line: str | bytes, level: int) -> None:
        """Write a line, and count it by its level's place."""
        data = (line if type(line) is bytes else line.encode(errors="backslashreplace")) + b"\n"  # type: ignore[union-attr]
        try:
            if sys.stdout is not self._stream:
                self._look()
            self._flush()
            descriptor = self._descriptor
            if descriptor is None:
                is_written = self._put(data)
            else:
                written = _write(descriptor, data)
                while written < len(data):
                    written += _write(descriptor, data[written:])
                is_written = True
        # Broken, closed, None under a server that closed it, or in use by the very line that a signal's handler
        # interrupts.
        except (OSError, ValueError, AttributeError, RuntimeError, TypeError):
            is_written = False
        if self.file is not None:
            try:
                self.file.write(data)
                is_written = True
            except OSError:
                is_written = False
        with counts.lock:
            for cells in counts.places:
                cells[level if is_written else LOST] += 1
        if not is_written:
            self._lost += 1
        elif self._lost:
            self._tell_of_lost()

    def _tell_of_lost(self) -> None:
        lost, self._lost = self._lost, 0
        self.tell_lost(lost)

    def _look(self) -> None:
        stream = sys.stdout
        self._descriptor, self._put = _ways_to(stream)
        self._flush = stream.flush
        self._stream = stream

    def forget(self) -> None:
        """Begin anew in a child process, where another thread may have held what was locked."""
        self._stream, self._lost = None, 0


def _ways_to(stream: Any) -> tuple[int | None, Any]:
    """Return the descriptor of what takes any line, or what else writes one."""
    try:
        descriptor = stream.fileno()
        mode = os.fstat(descriptor).st_mode
    except (OSError, ValueError, AttributeError):
        return None, _Stream(stream).write
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
        return None, Pipe(descriptor).write
    if stat.S_ISREG(mode):
        return None, partial(_Tail().write, descriptor)
    return descriptor, None  # A terminal, or /dev/null.


_write = os.write
stdout = Stdout()
after_fork(Step.STDOUT, stdout.forget)


def _escaped(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1]
