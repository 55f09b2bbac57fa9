"""Writes finished lines to stdout and to a log file, each line whole, and counts them."""

from __future__ import annotations

import array
import errno
import fcntl
import json
import os
import re
import select
import stat
import sys
import termios
import threading
import time
import weakref
from collections.abc import Callable, MutableSequence
from functools import partial
from typing import Any

from scaleobs._fork import Step, after_fork
from scaleobs.catalog import LOG_LEVELS
from scaleobs.logs._files import Appender, LogFile

LINE_KINDS = len(LOG_LEVELS) + 1
"""The number of slots: one for each level, and the last one, `LOST`."""

LOST = len(LOG_LEVELS)
DEBUG, INFO, WARNING, ERROR, CRITICAL = range(LOST)
LEVEL_SLOTS = {name: slot for slot, name in enumerate(LOG_LEVELS)}

Slots = MutableSequence[float]

# The lock and `counted_in` are rebound at run time: never import them by name.
count_lock = threading.RLock()  # A signal handler may log while its thread counts.
_before: Slots = [0] * LINE_KINDS  # The lines that are written before there is an owner.
counted_in: tuple[Slots, ...] = (_before,)
_owned: weakref.WeakKeyDictionary[Any, Slots] = weakref.WeakKeyDictionary()


def lines_written() -> dict[str, float]:
    """Return how many lines of each level this process has written, and how many it has lost."""
    return dict(zip((*LOG_LEVELS, "lost"), counted_in[-1], strict=True))


def count_lines_in(owner: Any, slots: Slots, *, keep_counts: bool = False) -> None:
    """
    Count all lines in an owner's slots, in place of those it had, as long as the owner lives. Thread-safe.

    Args:
        owner: the first one also gets the lines that were counted before.
        slots: `LINE_KINDS` numbers.
        keep_counts: whether the counts of the owner's former slots are added.
    """
    global counted_in  # noqa: PLW0603 - All lines of a process are counted together.
    with count_lock:
        for slot, number in enumerate(_owned.get(owner, ()) if keep_counts else ()):
            slots[slot] += number
        for slot, number in enumerate(_before):
            slots[slot] += number
            _before[slot] = 0
        _owned[owner] = slots
        counted_in = tuple(_owned.values())


def slot_of(number: int) -> int:
    """Return the slot of a level of stdlib logging, also of a level between the named ones."""
    return min(max(number // 10 - 1, DEBUG), CRITICAL)


def _reset_counts() -> None:
    global count_lock  # noqa: PLW0603 - Another thread of the parent may have held it.
    count_lock = threading.RLock()
    _before[:] = [0] * LINE_KINDS


after_fork(Step.LOG_COUNTS, _reset_counts)

_TIMEOUT_SECONDS = 2.0
"""How long a line waits for a full pipe in a process that serves no requests, e.g. a script whose output is piped."""

_BUDGET_SECONDS, _REFILL = 0.1, 0.01
"""How long lines wait together in a process that serves requests, and what is added to that in a second."""

_SLOW_SECONDS = 60.0
"""For how long a reader counts as slow after a line was lost: lines wait for it as in a process that serves."""

_PAUSE_SECONDS = 0.0005
_PAGE = 4096
_F_GETPIPE_SZ = 1032  # `fcntl` has the name on Linux only; elsewhere the number has no other meaning.
_NOWAIT = getattr(os, "RWF_NOWAIT", 0)
# The errors of a kernel that does not support RWF_NOWAIT for pipes: Linux before 6.4.
_UNSUPPORTED = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS, errno.ESPIPE)
_TRY, _UNLOCK = fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_UN
_lockf = fcntl.lockf
_pwritev: Any = getattr(os, "pwritev", None)


class Pipe:
    """
    A pipe or a socket, by its descriptor.

    The kernel writes up to 4,096 bytes in one piece; longer lines may mix with those of other processes. So each line
    is written under a POSIX lock on the pipe. (Processes that inherit the descriptor would share a lock of `flock`.)
    The flags of the descriptor never change: other processes share them.

    If the pipe is full, a line waits, and is lost if the reader is too slow. While a line waits, an event loop stands
    still, so all lines of a process that serves share one budget of time.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.RLock()
        self._pending: list[bytes] = []
        self._is_writing = False
        self._is_stuck = False
        self._is_torn = False
        self._is_fifo = stat.S_ISFIFO(os.fstat(descriptor).st_mode)
        self._supports_nowait = bool(_NOWAIT)
        self._begun = self._deadline = 0.0  # Of the waiting for the current line.
        self._budget, self._refilled = _BUDGET_SECONDS, time.monotonic()
        self._lost_at = float("-inf")

    def write(self, line: bytes) -> bool:
        """Write a line in one piece, and return whether it was written."""
        lock = self._lock
        if not lock.acquire(blocking=False) and (self._is_stuck or not lock.acquire(timeout=_TIMEOUT_SECONDS)):
            return False
        if self._is_writing:  # A signal handler logs while its thread writes a line.
            self._pending.append(line)
            lock.release()
            return True
        self._is_writing = True
        try:
            is_written = self._write_once(line) or self._write_locked(line)
            while self._pending:
                self._write_locked(self._pending.pop(0))
            return is_written
        finally:
            self._is_writing = False
            lock.release()

    def _write_once(self, line: bytes) -> bool:
        """Write a line by one call if no other process holds the lock: the usual case."""
        if len(line) > _PAGE or not self._is_fifo or not self._supports_nowait or self._is_torn:
            return False
        descriptor = self._descriptor
        try:
            _lockf(descriptor, _TRY)
        except OSError:
            return False
        try:
            _pwritev(descriptor, (line,), -1, _NOWAIT)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in _UNSUPPORTED:
                return False
            raise
        finally:
            _lockf(descriptor, _UNLOCK)
        self._is_stuck = False
        return True

    def _write_locked(self, line: bytes) -> bool:
        self._begun = self._deadline = 0.0
        has_lock = False
        try:
            try:
                while not (has_lock := self._try_lock()):
                    if not self._wait():
                        self._is_stuck = True
                        return False
            except OSError:  # The system or the descriptor does not support locks.
                has_lock = False
            self._is_stuck = not self._write_all(line)
            return not self._is_stuck
        finally:
            if has_lock:
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN)
            if self._begun:
                now = time.monotonic()
                self._budget = max(0.0, self._budget - (now - self._begun))
                self._lost_at = now if self._is_stuck else self._lost_at

    def _try_lock(self) -> bool:
        try:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):  # POSIX allows both.
            return False
        return True

    def _write_all(self, line: bytes) -> bool:
        while len(line) > _PAGE and not self._has_room(len(line)):
            if not self._wait():
                return False
        rest = b"\n" + line if self._is_torn else line
        while True:
            rest = rest[self._write_available(rest) :]
            if not rest:
                self._is_torn = False
                return True
            if not self._wait():  # The next line starts with a line break.
                self._is_torn = self._is_torn or len(rest) < len(line)
                return False

    def _wait(self) -> bool:
        """Sleep for a moment, and return whether another attempt is allowed."""
        now = time.monotonic()
        if not self._begun:
            self._begun, self._deadline = now, now + self._seconds_to_wait(now)
        if self._is_stuck or now >= self._deadline:
            return False
        time.sleep(_PAUSE_SECONDS)
        return True

    def _seconds_to_wait(self, now: float) -> float:
        self._budget = min(_BUDGET_SECONDS, self._budget + (now - self._refilled) * _REFILL)
        self._refilled = now
        is_slow = now - self._lost_at < _SLOW_SECONDS
        return self._budget if is_slow or _owned or _is_in_event_loop() else _TIMEOUT_SECONDS

    def _has_room(self, size: int) -> bool:
        """
        Return whether the pipe is certain to accept that many bytes at once.

        Linux (pipe_write) fills the rest of the last page only if the whole write fits into it. So two neighbouring
        pages hold more than one page of bytes together, and up to half of a pipe may be unused.
        """
        try:
            held = array.array("i", [0])
            fcntl.ioctl(self._descriptor, termios.FIONREAD, held)
            pages = fcntl.fcntl(self._descriptor, _F_GETPIPE_SZ) // _PAGE
        except OSError:  # A socket.
            return True
        needed = -(-size // _PAGE) + 1
        return held[0] == 0 or held[0] // (_PAGE // 2) + 2 + needed <= pages

    def _write_available(self, data: bytes) -> int:
        """Write what the pipe accepts without waiting, and return how many bytes that is."""
        if self._supports_nowait:
            try:
                return os.pwritev(self._descriptor, [data], -1, _NOWAIT)
            except BlockingIOError:
                if _may_block(self._descriptor):
                    return 0
            except OSError as error:
                if error.errno not in _UNSUPPORTED:
                    raise
            self._supports_nowait = False  # Linux before 6.4, or another system.
        if not select.select([], [self._descriptor], [], 0)[1]:
            return 0
        # A writable pipe accepts one page; `_has_room` has waited for more.
        return os.write(self._descriptor, data)


def _is_in_event_loop() -> bool:
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None  # noqa: SLF001 - The public one raises.


def _may_block(descriptor: int) -> bool:
    mode = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


class _Stream:
    """A stdout without a descriptor, as in tests."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, line: bytes) -> bool:
        text = line.decode(errors="backslashreplace")
        try:
            self._stream.write(text)
        except UnicodeEncodeError:
            self._stream.write(re.sub(r"[^\x00-\x7f]+", lambda found: json.dumps(found[0])[1:-1], text))
        self._stream.flush()
        return True


class Stdout:
    """
    Writes lines to the current `sys.stdout`, which tests and servers replace. Thread-safe.

    Each line is one write past the stream's buffer, which is flushed first: lines and the output of `print` keep their
    order. If stdout is closed or its reader is gone, the line is lost and counted.

    Attributes:
        file: each line is also written to this file, unless it is `None`.
        report_lost: logs the number of lost lines; called after the first line that is written again.
    """

    def __init__(self) -> None:
        self._stream: Any = None
        self._flush: Any = None
        self._put: Any = None
        self._descriptor: int | None = None
        self._lost = 0
        self.report_lost: Callable[[int], None] = lambda lost: None  # noqa: ARG005
        self.file: LogFile | None = None

    def write(self, line: str | bytes, level: int) -> None:
        """Write a line, and count it in the slot of its level; never raises."""
        data = (line if type(line) is bytes else line.encode(errors="backslashreplace")) + b"\n"  # type: ignore[union-attr]
        try:
            if sys.stdout is not self._stream:
                self._use_current_stream()
            self._flush()
            descriptor = self._descriptor
            if descriptor is None:
                is_written = self._put(data)
            else:
                written = _write(descriptor, data)
                while written < len(data):
                    written += _write(descriptor, data[written:])
                is_written = True
        # Broken, closed, `None` after a server closed it, or in use by the line that a signal handler interrupts.
        except (OSError, ValueError, AttributeError, RuntimeError, TypeError):
            is_written = False
        if self.file is not None:
            try:
                self.file.write(data)
                is_written = True
            except OSError:
                is_written = False
        with count_lock:
            for slots in counted_in:
                slots[level if is_written else LOST] += 1
        if not is_written:
            self._lost += 1
        elif self._lost:
            self._report()

    def _report(self) -> None:
        lost, self._lost = self._lost, 0
        self.report_lost(lost)
        if self._lost:  # The report was lost, too. The next one has all of them.
            self._lost += lost

    def _use_current_stream(self) -> None:
        stream = sys.stdout
        flush = stream.flush  # Raises for `None`, so that nothing changes.
        self._descriptor, self._put = _target_of(stream)
        self._flush, self._stream = flush, stream

    def reset(self) -> None:
        """Start again in a forked process, since another thread of the parent may have held a lock."""
        self._stream, self._flush, self._lost = None, None, 0


def _target_of(stream: Any) -> tuple[int | None, Any]:
    """Return a descriptor that accepts any line in one write, or else a function that writes one."""
    try:
        descriptor = stream.fileno()
        mode = os.fstat(descriptor).st_mode
    except (OSError, ValueError, AttributeError):
        return None, _Stream(stream).write
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
        return None, Pipe(descriptor).write
    if stat.S_ISREG(mode):
        return None, partial(Appender().write, descriptor)
    return descriptor, None  # A terminal, or /dev/null.


_write = os.write
stdout = Stdout()
after_fork(Step.STDOUT, stdout.reset)
