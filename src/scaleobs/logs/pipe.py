"""Whole lines into a pipe that other processes write to as well, and that perhaps nobody reads."""

from __future__ import annotations

import array
import fcntl
import os
import select
import stat
import termios
import threading
import time

_PATIENCE_SECONDS = 5.0
"""How long a line waits for a reader; a reader that is late by more is taken for gone until it reads again."""

_PAUSE_SECONDS = 0.0005
_PAGE = 4096
_F_GETPIPE_SZ = 1032  # Its name is in fcntl on Linux alone; the number has no other meaning elsewhere.
_NO_WAITING = getattr(os, "RWF_NOWAIT", 0)


class Pipe:
    """
    A pipe, or a socket, by its descriptor.

    The kernel writes 4,096 bytes whole and may put others' lines into the middle of more. So each line is written under
    an advisory lock on the pipe, which belongs to a process (POSIX): `flock` would be shared by all that inherited the
    descriptor. Where the pipe is full, a line waits for as long as a reader may pause, and is lost then; those that
    follow don't wait until one was read. The descriptor's own flags are never changed: others share them.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.RLock()
        self._later: list[bytes] = []
        self._is_busy = False
        self._is_stuck = False
        self._is_torn = False
        self._has_no_waiting = bool(_NO_WAITING)
        self._until = 0.0

    def write(self, line: bytes) -> bool:
        """Write a line in one piece, and return whether it was."""
        if not self._lock.acquire(timeout=0 if self._is_stuck else _PATIENCE_SECONDS):
            return False
        if self._is_busy:  # A signal's handler logs in the middle of a line.
            self._later.append(line)
            self._lock.release()
            return True
        self._is_busy = True
        try:
            is_written = self._write_alone(line)
            while self._later:
                self._write_alone(self._later.pop(0))
            return is_written
        finally:
            self._is_busy = False
            self._lock.release()

    def _write_alone(self, line: bytes) -> bool:
        self._until = 0.0
        has_lock = False
        try:
            try:
                while not (has_lock := self._took_lock()):
                    if not self._paused():
                        self._is_stuck = True
                        return False
            except OSError:  # A system or a descriptor that knows no locks.
                has_lock = False
            self._is_stuck = not self._put(line)
            return not self._is_stuck
        finally:
            if has_lock:
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN)

    def _took_lock(self) -> bool:
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # POSIX leaves the choice.
            return False
        return True

    def _put(self, line: bytes) -> bool:
        while len(line) > _PAGE and not self._has_room(len(line)):
            if not self._paused():
                return False
        rest = b"\n" + line if self._is_torn else line
        while True:
            rest = rest[self._write_now(rest) :]
            if not rest:
                self._is_torn = False
                return True
            if not self._paused():
                # What stands there already can't be taken back. Our next line begins on one of its own.
                self._is_torn = self._is_torn or len(rest) < len(line)
                return False

    def _paused(self) -> bool:
        """Wait for a moment, and return whether there is time for another try."""
        now = time.monotonic()
        self._until = self._until or now + _PATIENCE_SECONDS
        if self._is_stuck or now >= self._until:
            return False
        time.sleep(_PAUSE_SECONDS)
        return True

    def _has_room(self, size: int) -> bool:
        """
        Return whether that many bytes are certain to go in at once.

        Two neighbouring pages of a pipe hold more than one page's bytes together, since a write goes into what is left
        of the page before where it can (Linux, pipe_write): half of them may be air.
        """
        try:
            held = array.array("i", [0])
            fcntl.ioctl(self._descriptor, termios.FIONREAD, held)
            pages = fcntl.fcntl(self._descriptor, _F_GETPIPE_SZ) // _PAGE
        except OSError:  # No pipe.
            return True
        needed = -(-size // _PAGE) + 1
        return held[0] == 0 or held[0] // (_PAGE // 2) + 2 + needed <= pages

    def _write_now(self, data: bytes) -> int:
        """Write what goes in without waiting, and return how much that is."""
        if self._has_no_waiting:
            try:
                return os.pwritev(self._descriptor, [data], -1, _NO_WAITING)
            except BlockingIOError:
                if _may_block(self._descriptor):
                    return 0
            except OSError as error:
                if isinstance(error, BrokenPipeError):
                    raise
            self._has_no_waiting = False  # Linux before 6.4, or another system.
        if not select.select([], [self._descriptor], [], 0)[1]:
            return 0
        # One page goes in where anything does; more was waited for.
        return os.write(self._descriptor, data)


def _may_block(descriptor: int) -> bool:
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
