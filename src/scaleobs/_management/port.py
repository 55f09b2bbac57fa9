"""One port, which one process at a time owns, and the thread that answers there."""

from __future__ import annotations

import _thread
import fcntl
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from scaleobs._management import listening
from scaleobs._workers import join_group

_EVERY = 0.5
"""Seconds between two attempts to become the owner, and between two calls of `on_tick`."""

_MOST_AT_ONCE = 32
"""Requests that are served at a time; the others wait, and each has its limit."""

_SOON = 0.01


class PortError(OSError):
    """The management port can't be opened; the message says which, why, and what to do."""

    def __init__(self, port: int, error: OSError) -> None:
        super().__init__(
            f"The management port {port} can't be opened: {error.strerror}. Free it, or give another one by "
            "management_port or SCALEOBS_MANAGEMENT_PORT."
        )


class Port:
    """
    One port of this process, or of the group of workers that it is one of.

    Its thread is a real one, which neither a blocked event loop nor a greenlet can hold up. It waits for the turn of
    this process and then answers. Where the owner dies, another worker has the port within a second.

    Args:
        number: which port.
        respond: returns the answer to a request's method, path and headers; called from several threads.
        on_tick: called about twice a second from the port's thread.
        on_error: called with what goes wrong there.
    """

    def __init__(
        self,
        number: int,
        respond: Callable[..., Any],
        on_tick: Callable[[], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        self._number = number
        self._respond = respond
        self._on_tick = on_tick
        self._on_error = on_error
        self._lock = PortLock(number)
        self._descriptor: int | None = None
        self._is_wanted = True
        self._serving: set[socket.socket] = set()

    def open(self) -> None:
        """
        Begin to answer, or to wait for the turn of this process.

        Raises:
            PortError: it would be the turn of this process, and the port can't be had.
        """
        self._claim()
        start_thread(self._run)

    def close(self) -> None:
        """Answer no more, and let another worker have the port; returns at once."""
        self._is_wanted = False
        if self._descriptor is not None:
            listening.stop(self._descriptor)
            self._lock.end()

    def forked(self) -> None:
        """Let go of what is the parent's."""
        self._is_wanted = False
        if self._descriptor is not None:
            _close(self._descriptor)

    def _claim(self) -> None:
        if self._descriptor is not None or not self._lock.take():
            return
        try:
            self._descriptor = listening.listen(self._number)
        except OSError as error:
            self._lock.end()
            if not self._lock.is_shared:
                raise PortError(self._number, error) from error

    def _run(self) -> None:
        from scaleobs._management.handler import Handler

        # A class of its own, since an instance answers as soon as it is made.
        handler = type("Handler", (Handler,), {"respond": staticmethod(self._respond)})
        waiting: socket.socket | None = None
        sleep = _real(time, "sleep")
        while self._is_wanted:
            try:
                if waiting is None:
                    self._claim()
                    if self._descriptor is None:
                        sleep(_EVERY)
                    else:
                        waiting = _real(socket, "socket")(fileno=self._descriptor)
                        waiting.settimeout(_EVERY)
                elif len(self._serving) < _MOST_AT_ONCE:
                    self._serve(waiting, handler)
                else:
                    sleep(_SOON)
                self._on_tick()
            except Exception as error:
                self._on_error(error)
                sleep(_EVERY)
        if waiting is not None:
            waiting.close()
        elif self._descriptor is not None:  # It was closed just as it became the turn of this process.
            _close(self._descriptor)
            self._lock.end()

    def _serve(self, waiting: socket.socket, handler: Callable[..., object]) -> None:
        """Answer one connection on a thread of its own, if one comes."""
        try:
            # `accept` would make a socket of what stands in its module now, which may be gevent's.
            descriptor, address = waiting._accept()  # type: ignore[attr-defined]  # noqa: SLF001
        except TimeoutError:
            return
        except OSError:
            if self._is_wanted:  # No descriptor is left, for one.
                raise
            return
        connection = type(waiting)(fileno=descriptor)
        self._serving.add(connection)
        try:
            start_thread(lambda: self._handle(connection, address, handler))
        except RuntimeError:  # No thread is left.
            self._handle(connection, address, handler)

    def _handle(self, connection: socket.socket, address: Any, handler: Callable[..., object]) -> None:
        try:
            with connection:
                handler(connection, address, None)
        except OSError:  # The client has gone, or takes too long.
            return
        except Exception as error:
            self._on_error(error)
        finally:
            self._serving.discard(connection)


class PortLock:
    """
    Which worker of the group owns a port.

    A lock of the process, which ends with it however it ends.

    Args:
        port: which port.

    Attributes:
        is_shared: whether workers that can't meet share it, so that whoever comes first owns it.
    """

    def __init__(self, port: int) -> None:
        self._name = f"management-{port}.lock"
        self._file: int | None = None
        self.is_shared = False

    def take(self) -> bool:
        """Return whether it is the turn of this process; without others it always is."""
        try:
            mine = join_group()
        except OSError:
            self.is_shared = True
            return True
        if mine is None:
            return True
        path = mine.root_directory / self._name
        if path not in _files:
            _files[path] = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._file = _files[path]
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def end(self) -> None:
        """Let another process have its turn."""
        if self._file is not None:
            fcntl.lockf(self._file, fcntl.LOCK_UN)


_files: dict[Path, int] = {}
"""The files of the locks, each opened once, since closing one anywhere in this process ends its lock."""


def forked() -> None:
    """Begin anew in a child process, which has none of its parent's locks."""
    for file in _files.values():
        _close(file)
    _files.clear()


def check_free(number: int) -> None:
    """
    Find out whether a port can be opened, and leave it.

    Raises:
        PortError: it can't.
    """
    try:
        _close(listening.listen(number))
    except OSError as error:
        raise PortError(number, error) from error


def start_thread(run: Callable[[], None]) -> None:
    """Run a function on a thread of its own, a real one, which doesn't hold up the end of the process."""
    _real(_thread, "start_new_thread")(run, ())


def _close(descriptor: int) -> None:
    """Close a descriptor now: gevent's `os.close` waits for its event loop, which may not run any more."""
    _real(os, "close")(descriptor)


def _real(module: ModuleType, name: str) -> Any:
    """Return what a module had before gevent put something of its own there, by which one thread could hold another."""
    monkey: Any = sys.modules.get("gevent.monkey")
    return getattr(module, name) if monkey is None else monkey.get_original(module.__name__, name)
