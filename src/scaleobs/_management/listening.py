"""Sockets that wait for connections, as the operating system has them."""

from __future__ import annotations

import _socket
import errno
from collections.abc import Iterator
from pathlib import Path

_BACKLOG = 128
_TABLES = (("tcp", 3, "0A", 9), ("tcp6", 3, "0A", 9), ("unix", 3, "00010000", 6))
"""Files of `/proc/net`: in which field the state stands, what it is where a socket listens, and where its inode is."""


def listen(port: int) -> int:
    """
    Return the descriptor of a socket that listens on a port of every address, IPv6 and IPv4.

    It isn't a `socket.socket`, which belongs to an event loop where gevent has replaced it.

    Raises:
        OSError: the port is in use, or not for this user.
    """
    try:
        return _listening(_socket.AF_INET6, "::", port)
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            raise
        return _listening(_socket.AF_INET, "", port)  # There is no IPv6 here.


def _listening(family: int, address: str, port: int) -> int:
    made = _socket.socket(family, _socket.SOCK_STREAM)
    try:
        made.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        if family == _socket.AF_INET6:
            made.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, 0)
        made.bind((address, port))
        made.listen(_BACKLOG)
    except OSError:
        made.close()
        raise
    return made.detach()


def stop(descriptor: int) -> None:
    """Have a socket listen no more, whoever waits for it; it stays to be closed."""
    same = _socket.socket(fileno=descriptor)
    try:
        same.shutdown(_socket.SHUT_RDWR)
    finally:
        same.detach()


def is_server() -> bool:
    """Return whether this process listens anywhere, as far as that can be known."""
    own = set(_inodes())
    for name, state, listens, inode in _TABLES if own else ():
        for line in _lines(f"/proc/self/net/{name}"):
            fields = line.split()
            if len(fields) > inode and fields[state] == listens and fields[inode] in own:
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
        except OSError:  # It was closed meanwhile.
            continue
        if kind == "socket":
            yield inode.strip("[]")


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()[1:]
    except OSError:
        return []
