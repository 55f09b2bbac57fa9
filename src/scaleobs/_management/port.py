"""One port, its lock among the workers of a group, and the thread that reads from its connections."""

from __future__ import annotations

import _socket
import _thread
import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from scaleobs._gevent import unpatched
from scaleobs._http.answer import Answer
from scaleobs._management.connections import Connections
from scaleobs._management.messages import Request
from scaleobs._workers import join_group

_POLL_SECONDS = 0.5
"""The time between two attempts to own the port, and between two calls of `on_tick`."""

_BACKLOG = 1024


class Address(NamedTuple):
    """The number of a port, and the address of this machine on which it is open; `None` for all addresses."""

    number: int
    host: str | None = None


class PortError(OSError):
    """The management port can't be opened; the message has the port, the reason and the fix."""

    def __init__(self, address: Address, error: OSError) -> None:
        fix = "Free it, or give another one by management_port or SCALEOBS_MANAGEMENT_PORT."
        if isinstance(error, _socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
            fix = "Give an address of this machine by management_host or SCALEOBS_MANAGEMENT_HOST."
        shown = f"{address.number} can't be opened" + ("" if address.host is None else f" on {address.host!r}")
        super().__init__(f"The management port {shown}: {error.strerror}. {fix}")


class Port:
    """
    One port, of this process or of its group of workers.

    Its thread is a real one, which neither a blocked event loop nor a greenlet can delay. It waits for the lock of the
    port, then answers. If the owner dies, another worker owns the port within a second.

    Args:
        address: where it is open.
        find: see `Connections`.
        answer: see `Connections`.
        on_tick: called about twice a second from the port's thread.
        on_error: called with each error on these threads.
    """

    def __init__(
        self,
        address: Address,
        find: Callable[[Request], str | Answer],
        answer: Callable[[str, Request], Answer],
        *,
        on_tick: Callable[[], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        self._address = address
        self._find = find
        self._answer = answer
        self._on_tick = on_tick
        self._on_error = on_error
        self._lock = PortLock(address)
        self._descriptor: int | None = None
        self._is_closing = self._is_closed = False
        self._connections: Connections | None = None
        self._next_tick = 0.0

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
        self._is_closing = True
        if self._descriptor is None:
            self._is_closed = True
            return
        # In this order: once it is closed, the thread closes the descriptor, whose number another socket may get.
        _stop_listening(self._descriptor)
        self._is_closed = True
        self._lock.release()

    def forked(self) -> None:
        """Close the sockets in a child process: they are the parent's."""
        self._is_closing = self._is_closed = True
        if self._connections is not None:
            self._connections.forked()
        elif self._descriptor is not None:
            _close(self._descriptor)

    def _claim(self) -> None:
        if self._descriptor is not None or not self._lock.acquire():
            return
        try:
            self._descriptor = listen(*self._address)
        except OSError as error:
            self._lock.release()
            if not self._lock.is_isolated:
                raise PortError(self._address, error) from error

    def _run(self) -> None:
        sleep = unpatched(time, "sleep")
        while not self._is_closed:
            try:
                self._tick()
                if self._connections is not None:
                    self._connections.serve(_POLL_SECONDS)
                    continue
                self._claim()
                if self._descriptor is None:
                    sleep(_POLL_SECONDS)
                else:
                    self._connections = Connections(self._descriptor, self._find, self._answer, self._on_error)
            except Exception as error:
                if not self._is_closing:  # Otherwise the socket does not listen any more.
                    self._on_error(error)
                    sleep(_POLL_SECONDS)
        if self._connections is not None:
            self._connections.close()
        elif self._descriptor is not None:  # The port was closed while this thread acquired the lock.
            _close(self._descriptor)
            self._lock.release()

    def _tick(self) -> None:
        if (now := time.monotonic()) >= self._next_tick:
            self._next_tick = now + _POLL_SECONDS
            self._on_tick()


class PortLock:
    """
    The lock of a port among the workers of a group: its holder owns the port.

    The operating system releases it when the process ends for any reason.

    Args:
        address: of the port.

    Attributes:
        is_isolated: whether this worker has no group, so that the first worker to open the port owns it.
    """

    def __init__(self, address: Address) -> None:
        self._name = "-".join(["management", *filter(None, [address.host]), f"{address.number}.lock"])
        self._held: list[int] = []
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
            _files[path] = group.open_shared(self._name)
        # Also of groups to which it belonged as another user: the owner may be one of them.
        self._held = [file for known, file in _files.items() if known.name == self._name]
        try:
            for file in self._held:
                fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.release()
            return False
        return True

    def release(self) -> None:
        """Release the lock, if this process holds it."""
        for file in self._held:
            fcntl.lockf(file, fcntl.LOCK_UN)


_files: dict[Path, int] = {}
"""The files of the locks, each opened once: if a process closes one of its descriptors, it loses the lock."""


def forked() -> None:
    """Close the files of the locks in a child process, which holds none of them."""
    for file in _files.values():
        _close(file)
    _files.clear()


def check_free(number: int, host: str | None = None) -> None:
    """
    Open a port and close it again.

    Raises:
        PortError: it can't be opened.
    """
    try:
        _close(listen(number, host))
    except OSError as error:
        raise PortError(Address(number, host), error) from error


def listen(port: int, host: str | None = None) -> int:
    """
    Return the descriptor of a socket that listens on a port of a host, or on all addresses of IPv6 and IPv4.

    It isn't a `socket.socket`, which gevent replaces with one that belongs to an event loop.

    Raises:
        OSError: the port is in use, this user may not open it, or the host is none of this machine.
    """
    if host is not None:
        family, _, _, _, address = _socket.getaddrinfo(host, port, 0, _socket.SOCK_STREAM)[0]
        return _bind(family, address)
    try:
        return _bind(_socket.AF_INET6, ("::", port))
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            raise
        return _bind(_socket.AF_INET, ("", port))  # This machine has no IPv6.


def _bind(family: int, address: Any) -> int:
    listener = _socket.socket(family, _socket.SOCK_STREAM)
    try:
        listener.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        if family == _socket.AF_INET6:
            listener.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, 0)
        listener.bind(address)
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


def _close(descriptor: int) -> None:
    """Close a descriptor at once: gevent's `os.close` waits for its event loop, which may not run any more."""
    unpatched(os, "close")(descriptor)
