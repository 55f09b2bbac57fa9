"""The connections of a port: one thread reads the heads of all requests, and others answer."""

from __future__ import annotations

import _socket
import contextlib
import errno
import select
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from time import monotonic
from typing import Any

from scaleobs._gevent import unpatched
from scaleobs._http.answer import BROKEN, Answer, text_answer
from scaleobs._management import messages
from scaleobs._management.messages import BadRequestError, Request
from scaleobs._management.slots import Job, Slots

SLOTS = {"live": 8, "ready": 8, "startup": 8, "metrics": 4}
"""How many requests of a kind are answered at the same time. Each kind has its own: scrapes delay no probe."""

MAX_CONNECTIONS = 128
"""Connections without a request, or whose answer was sent. If there is one more, the oldest is closed."""

HEAD_SECONDS = 5.0
"""How long a client may take to send the whole head of its request."""

_CLOSING_SECONDS = 1.0
_CLOSING_BYTES = 256 * 1024
"""What is read after an answer, until the client closes: unread bytes would reset the connection with its answer."""

_READ_BYTES = 64 * 1024
_ACCEPTS_AT_ONCE = 64
_EXHAUSTED_SECONDS = 0.05
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_BAD_REQUEST = text_answer(400, "This is no HTTP/1.1 request that can be read.")
_TOO_MANY = text_answer(503, "Too many requests at once; try again.")


class _Client:
    """A connection whose request is not complete, or whose answer was sent."""

    __slots__ = ("connection", "received", "since")

    def __init__(self, connection: _socket.socket) -> None:
        self.connection = connection
        self.received = bytearray()
        self.since = monotonic()


class Connections:
    """
    The connections of a port. One thread calls all methods.

    A client that sends nothing, or slowly, costs a descriptor and no thread. Nothing that a client sends is an error
    of scaleobs.

    Args:
        descriptor: of the socket that listens.
        find: returns the kind of a request, whose slots answer it, or the answer.
        answer: returns the answer to a request of a kind; called on threads.
        on_error: called with errors of scaleobs itself.
    """

    def __init__(
        self,
        descriptor: int,
        find: Callable[[Request], str | Answer],
        answer: Callable[[str, Request], Answer],
        on_error: Callable[[Exception], None],
    ) -> None:
        self._listener = _socket.socket(fileno=descriptor)
        self._listener.setblocking(False)
        self._find = find
        self._on_error = on_error
        self._slots = {
            kind: Slots(size, partial(answer, kind), on_error, self._sent, needs_thread=kind == "metrics")
            for kind, size in SLOTS.items()
        }
        # By descriptor, in the order of their times.
        self._silent: dict[int, _Client] = {}
        self._closing: dict[int, _Client] = {}
        self._unread: deque[_socket.socket] = deque()
        self._poll: Any = unpatched(select, "poll")()
        self._poll.register(descriptor, select.POLLIN)

    def serve(self, seconds: float) -> None:
        """Read and answer what arrives within some seconds at most."""
        for descriptor, _ in self._poll.poll(int(1000 * seconds)):
            if descriptor == self._listener.fileno():
                self._accept()
            elif descriptor in self._silent:
                self._read(self._silent[descriptor])
            elif descriptor in self._closing:
                self._discard(self._closing[descriptor])
        while self._unread:
            self._linger(self._unread.popleft())
        self._close_late()

    def close(self) -> None:
        """Close all connections but those that are being answered."""
        self._close_own()
        for slots in self._slots.values():
            slots.close()

    def forked(self) -> None:
        """Close all connections in a child process: they are the parent's."""
        self._close_own()
        for slots in self._slots.values():
            slots.forked()

    def _close_own(self) -> None:
        self._listener.close()
        for connection in (*(client.connection for client in self._clients()), *self._unread):
            connection.close()

    def _clients(self) -> Iterator[_Client]:
        """Yield the connections that are not being answered, the least useful ones first."""
        yield from self._closing.values()
        yield from self._silent.values()

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_AT_ONCE):
            try:
                descriptor, _ = self._listener._accept()  # type: ignore[attr-defined]  # noqa: SLF001 - `accept` is socket.socket's.
            except (BlockingIOError, ConnectionError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                # The application's clients may have all descriptors, which is no error of scaleobs.
                if not self._close_oldest():
                    unpatched(time, "sleep")(_EXHAUSTED_SECONDS)
                return
            client = _Client(_socket.socket(fileno=descriptor))
            client.connection.setblocking(False)
            self._silent[descriptor] = client
            self._poll.register(descriptor, select.POLLIN)
            # Before others are closed for it: most clients send their request at once.
            self._read(client)
            if len(self._silent) + len(self._closing) > MAX_CONNECTIONS:
                self._close_oldest()

    def _read(self, client: _Client) -> None:
        try:
            received = client.connection.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self._release(client).close()
            return
        client.received += received
        try:
            request = messages.read(bytes(client.received))
        except BadRequestError:
            self._reply(self._release(client), _BAD_REQUEST, None)
            return
        if request is not None:
            self._handle(self._release(client), request)
        elif not received and client.received:
            self._reply(self._release(client), _BAD_REQUEST, None)
        elif not received:
            self._release(client).close()

    def _handle(self, connection: _socket.socket, request: Request) -> None:
        try:
            found = self._find(request)
        except Exception as error:
            self._on_error(error)
            found = BROKEN
        if isinstance(found, Answer):
            self._reply(connection, found, request)
        elif not self._slots[found].add(Job(connection, request)):
            self._reply(connection, _TOO_MANY, request)

    def _reply(self, connection: _socket.socket, answer: Answer, request: Request | None) -> None:
        """Send a short answer, for which every socket has room, without waiting."""
        try:
            connection.setblocking(False)
            connection.send(b"".join(messages.parts(answer, request)))
            connection.shutdown(_socket.SHUT_WR)
        except OSError:  # The client has disconnected.
            connection.close()
        else:
            self._linger(connection)

    def _sent(self, connection: _socket.socket) -> None:
        """Close a connection after its answer; called on any thread."""
        connection.setblocking(False)
        connection.shutdown(_socket.SHUT_WR)
        try:
            is_unread = bool(connection.recv(_READ_BYTES))
        except BlockingIOError:
            is_unread = False
        if is_unread:
            self._unread.append(connection)
        else:
            connection.close()

    def _linger(self, connection: _socket.socket) -> None:
        self._closing[connection.fileno()] = _Client(connection)
        self._poll.register(connection.fileno(), select.POLLIN)

    def _discard(self, client: _Client) -> None:
        """Read what follows a request, until the client closes."""
        try:
            received = client.connection.recv(_READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            received = b""
        client.received += received
        if not received or len(client.received) > _CLOSING_BYTES:
            self._release(client).close()

    def _release(self, client: _Client) -> _socket.socket:
        """Remove a connection from those that this thread reads."""
        descriptor = client.connection.fileno()
        (self._silent if self._silent.get(descriptor) is client else self._closing).pop(descriptor, None)
        with contextlib.suppress(KeyError):
            self._poll.unregister(descriptor)
        return client.connection

    def _close_oldest(self) -> bool:
        """Close the oldest connection that is not being answered; return whether there was one."""
        client = next(self._clients(), None)
        if client is not None:
            self._release(client).close()
        return client is not None

    def _close_late(self) -> None:
        now = monotonic()
        for clients, seconds in ((self._silent, HEAD_SECONDS), (self._closing, _CLOSING_SECONDS)):
            while clients:
                client = next(iter(clients.values()))
                if now - client.since < seconds:
                    break
                self._release(client).close()
        for slots in self._slots.values():
            for job in slots.pop_late(now):
                self._reply(job.connection, _TOO_MANY, job.request)
