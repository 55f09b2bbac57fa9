"""One port, its lock among the workers of a group, and the thread that accepts its connections."""

from __future__ import annotations

import _socket
import _thread
import errno
import fcntl
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from scaleobs._workers import join_group

_POLL_SECONDS = 0.5
"""The time between two attempts to own the port, and at most between two calls of `on_tick`."""

_MAX_REQUESTS = 32
"""Requests that are served at the same time; the others wait."""

_FULL_SECONDS = 0.01
"""The time until the next attempt to accept, if `_MAX_REQUESTS` are being served."""

_BACKLOG = 128

Handle = Callable[[socket.socket, Any], object]
"""Answers one connection, given its socket and the address of its client."""


class PortError(OSError):
    """The management port can't be opened; the message has the port, the reason and the fix."""

    def __init__(self, port: int, error: OSError) -> None:
        super().__init__(
            f"The management port {port} can't be opened: {error.strerror}. Free it, or give another one by "
            "management_port or SCALEOBS_MANAGEMENT_PORT."
        )


class Port:
    """
    One port, of this process or of its group of workers.

    Its thread is a real one, which neither a blocked event loop nor a greenlet can delay. It waits for the lock of the
    port, then answers. If the owner dies, another worker owns the port within a second.

    Args:
        number: of the port.
        handle: answers one connection; called from several threads.
        on_tick: called about twice a second from the port's thread.
        on_error: called with each error on these threads.
    """

    def __init__(
        self, number: int, handle: Handle, on_tick: Callable[[], None], on_error: Callable[[Exception], None]
    ) -> None:
        self._number = number
        self._handle = handle
        self._on_tick = on_tick
        self._on_error = on_error
        self._lock = PortLock(number)
        self._descriptor: int | None = None
        self._is_closed = False
        self._connections: set[socket.socket] = set()

    def open(self) -> None:
        """
        Start to answer, or to wait for the lock.

        Raises:
            PortError: this process owns the lock, and the port can't be opened.
        """
        self._claim()
        start_thread(self._run)

    def close(self) -> None:
        """Stop, and release the lock for another worker; returns at once."""
        self._is_closed = True
        if self._descriptor is not None:
            _stop_listening(self._descriptor)
            self._lock.release()

    def forked(self) -> None:
        """Close the socket in a child process: it is the parent's."""
        self._is_closed = True
        if self._descriptor is not None:
            _close(self._descriptor)

    def _claim(self) -> None:
        if self._descriptor is not None or not self._lock.acquire():
            return
        try:
            self._descriptor = listen(self._number)
        except OSError as error:
            self._lock.release()
            if not self._lock.is_isolated:
                raise PortError(self._number, error) from error

    def _run(self) -> None:
        listener: socket.socket | None = None
        sleep = unpatched(time, "sleep")
        while not self._is_closed:
            try:
                self._on_tick()
                if listener is None:
                    self._claim()
                    if self._descriptor is None:
                        sleep(_POLL_SECONDS)
                    else:
                        listener = unpatched(socket, "socket")(fileno=self._descriptor)
                        listener.settimeout(_POLL_SECONDS)
                elif len(self._connections) < _MAX_REQUESTS:
                    self._accept(listener)
                else:
                    sleep(_FULL_SECONDS)
            except Exception as error:
                self._on_error(error)
                sleep(_POLL_SECONDS)
        if listener is not None:
            listener.close()
        elif self._descriptor is not None:  # The port was closed while this thread acquired the lock.
            _close(self._descriptor)
            self._lock.release()

    def _accept(self, listener: socket.socket) -> None:
        """Answer one connection on a thread of its own, if a client connects."""
        try:
            # `accept` makes a socket of the class that its module has now, which may be gevent's.
            descriptor, address = listener._accept()  # type: ignore[attr-defined]  # noqa: SLF001
        except TimeoutError:
            return
        except OSError:
            if self._is_closed:
                return
            raise  # For example, no descriptor is left.
        connection = type(listener)(fileno=descriptor)
        self._connections.add(connection)
        try:
            start_thread(lambda: self._answer(connection, address))
        except RuntimeError:  # The process has no thread left.
            self._answer(connection, address)

    def _answer(self, connection: socket.socket, address: Any) -> None:
        try:
            with connection:
                self._handle(connection, address)
        except OSError:  # The client has disconnected, or takes too long.
            return
        except Exception as error:
            self._on_error(error)
        finally:
            self._connections.discard(connection)


class PortLock:
    """
    The lock of a port among the workers of a group: its holder owns the port.

    The operating system releases it when the process ends for any reason.

    Args:
        port: its number.

    Attributes:
        is_isolated: whether this worker has no group, so that the first worker to open the port owns it.
    """

    def __init__(self, port: int) -> None:
        self._name = f"management-{port}.lock"
        self._file: int | None = None
        self.is_isolated = False

    def acquire(self) -> bool:
        """Return whether this process holds the lock now; without siblings it always does."""
        try:
            group = join_group()
        except OSError:
            self.is_isolated = True
            return True
        if group is None:
            return True
        path = group.root_directory / self._name
        if path not in _files:
            _files[path] = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._file = _files[path]
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        """Release the lock, if this process holds it."""
        if self._file is not None:
            fcntl.lockf(self._file, fcntl.LOCK_UN)


_files: dict[Path, int] = {}
"""The files of the locks, each opened once: if a process closes one of its descriptors, it loses the lock."""


def forked() -> None:
    """Close the files of the locks in a child process, which holds none of them."""
    for file in _files.values():
        _close(file)
    _files.clear()


def check_free(number: int) -> None:
    """
    Open a port and close it again.

    Raises:
        PortError: it can't be opened.
    """
    try:
        _close(listen(number))
    except OSError as error:
        raise PortError(number, error) from error


def listen(port: int) -> int:
    """
    Return the descriptor of a socket that listens on a port, on all addresses of IPv6 and IPv4.

    It isn't a `socket.socket`, which gevent replaces with one that belongs to an event loop.

    Raises:
        OSError: the port is in use, or this user may not open it.
    """
    try:
        return _bind(_socket.AF_INET6, "::", port)
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            raise
        return _bind(_socket.AF_INET, "", port)  # This machine has no IPv6.


def _bind(family: int, address: str, port: int) -> int:
    listener = _socket.socket(family, _socket.SOCK_STREAM)
    try:
        listener.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        if family == _socket.AF_INET6:
            listener.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, 0)
        listener.bind((address, port))
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener.detach()


def _stop_listening(descriptor: int) -> None:
    """Wake the thread that accepts on a socket; the descriptor remains open."""
    listener = _socket.socket(fileno=descriptor)
    try:
        listener.shutdown(_socket.SHUT_RDWR)
    finally:
        listener.detach()


_TABLES = (("tcp", 3, "0A", 9), ("tcp6", 3, "0A", 9), ("unix", 3, "00010000", 6))
"""Files of `/proc/net`: the field of the state, its value for a socket that listens, and the field of the inode."""


def is_listening() -> bool:
    """Return whether a socket of this process listens; false if that can't be read."""
    own = set(_inodes())
    for name, state, value, inode in _TABLES if own else ():
        for line in _lines(f"/proc/self/net/{name}"):
            fields = line.split()
            if len(fields) > inode and fields[state] == value and fields[inode] in own:
                return True
    return False


def _inodes() -> Iterator[str]:
    """Yield the inode of each socket of this process."""
    try:
        descriptors = list(Path("/proc/self/fd").iterdir())
    except OSError:
        return
    for descriptor in descriptors:
        try:
            kind, _, inode = str(descriptor.readlink()).partition(":")
        except OSError:  # It was closed since.
            continue
        if kind == "socket":
            yield inode.strip("[]")


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()[1:]
    except OSError:
        return []


def start_thread(function: Callable[[], None]) -> None:
    """Run a function on a real thread of its own, which doesn't delay the end of the process."""
    unpatched(_thread, "start_new_thread")(function, ())


def unpatched(module: ModuleType, name: str) -> Any:
    """Return the original of what gevent has replaced in a module; a replacement may block other threads."""
    monkey: Any = sys.modules.get("gevent.monkey")
    return getattr(module, name) if monkey is None else monkey.get_original(module.__name__, name)


def _close(descriptor: int) -> None:
    """Close a descriptor at once: gevent's `os.close` waits for its event loop, which may not run any more."""
    unpatched(os, "close")(descriptor)
