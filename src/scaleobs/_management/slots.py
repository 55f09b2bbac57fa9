"""The slots of one kind of request: how many are answered at a time, each on a thread of its own."""

from __future__ import annotations

import _socket
import _thread
import contextlib
import struct
from collections import deque
from collections.abc import Callable
from functools import partial
from time import monotonic

from scaleobs._gevent import unpatched
from scaleobs._http.answer import BROKEN, Answer
from scaleobs._management import messages
from scaleobs._management.messages import Request

MAX_WAITING = 64
"""The requests of one kind that wait for a slot; each one more receives 503."""

WAIT_SECONDS = 10.0
"""How long a request waits for a slot before it receives 503."""

SEND_SECONDS = 30.0
"""How long a client may block an answer, all in all."""

SEND_SECONDS_IF_OTHERS_WAIT = 1.0

_BLOCK_SECONDS = 0.5
"""How long one system call blocks, after which the limits are compared again."""

_RESET = struct.pack("ii", 1, 0)
"""The value of `SO_LINGER` by which a socket that is closed resets its connection."""


class Job:
    """A request that is answered, or waits for it."""

    __slots__ = ("connection", "request", "since")

    def __init__(self, connection: _socket.socket, request: Request) -> None:
        self.connection = connection
        self.request = request
        self.since = monotonic()


class Slots:
    """
    The slots of one kind of request. So many are answered at a time; the others wait in turn.

    A request that hangs keeps its slot until it ends, and none of another kind.

    Args:
        size: the number of slots.
        answer: returns the answer to a request; called on threads.
        on_error: called with each error that `answer` raises.
        on_sent: called with each connection whose answer was sent, to close it.
        needs_thread: whether a request is refused if the process has no thread left. Otherwise the thread that adds it
            answers it.
    """

    def __init__(
        self,
        size: int,
        answer: Callable[[Request], Answer],
        on_error: Callable[[Exception], None],
        on_sent: Callable[[_socket.socket], None],
        *,
        needs_thread: bool,
    ) -> None:
        self._size = size
        self._answer = answer
        self._on_error = on_error
        self._on_sent = on_sent
        self._needs_thread = needs_thread
        self._serving: set[Job] = set()
        self._waiting: deque[Job] = deque()
        self._lock = unpatched(_thread, "allocate_lock")()

    def add(self, job: Job) -> bool:
        """Answer a request when there is a slot; return whether it is answered or waits."""
        with self._lock:
            is_begun = len(self._serving) < self._size
            if not is_begun and len(self._waiting) >= MAX_WAITING:
                return False
            if is_begun:
                self._serving.add(job)
            else:
                self._waiting.append(job)
        return not is_begun or self._begin(job)

    def pop_late(self, now: float) -> list[Job]:
        """Remove and return the requests that have waited too long."""
        late = []
        with self._lock:
            while self._waiting and now - self._waiting[0].since > WAIT_SECONDS:
                late.append(self._waiting.popleft())
        return late

    def close(self) -> None:
        """Close the connections that wait."""
        with contextlib.suppress(IndexError):
            while True:
                self._waiting.popleft().connection.close()

    def forked(self) -> None:
        """Close all connections in a child process, where another thread of the parent may hold the lock."""
        for job in (*self._waiting, *self._serving):
            job.connection.close()

    def _begin(self, job: Job) -> bool:
        try:
            unpatched(_thread, "start_new_thread")(partial(self._run, job), ())
        except RuntimeError:  # The process has no thread left.
            if not self._needs_thread:
                self._run(job)
                return True
            with self._lock:
                self._serving.discard(job)
            return False
        return True

    def _run(self, job: Job | None) -> None:
        while job is not None:
            self._serve(job)
            with self._lock:
                self._serving.discard(job)
                job = self._waiting.popleft() if self._waiting else None
                if job is not None:
                    self._serving.add(job)

    def _serve(self, job: Job) -> None:
        try:
            answer = self._answer(job.request)
        except Exception as error:
            self._on_error(error)
            answer = BROKEN
        try:
            self._send(job, answer)
            self._on_sent(job.connection)
        except OSError:  # The client has disconnected, or reads too slowly.
            _reset(job.connection)
        except Exception as error:
            self._on_error(error)
            _reset(job.connection)

    def _send(self, job: Job, answer: Answer) -> None:
        connection, blocked = job.connection, 0.0
        connection.settimeout(_BLOCK_SECONDS)
        for part in messages.parts(answer, job.request):
            unsent = memoryview(part)
            while unsent:
                begun = monotonic()
                with contextlib.suppress(TimeoutError):
                    unsent = unsent[connection.send(unsent) :]
                blocked += monotonic() - begun
                if unsent and blocked > (SEND_SECONDS_IF_OTHERS_WAIT if self._waiting else SEND_SECONDS):
                    raise TimeoutError


def _reset(connection: _socket.socket) -> None:
    """Close a connection so that its client sees an error, and takes no half page for a whole one."""
    try:
        connection.setsockopt(_socket.SOL_SOCKET, _socket.SO_LINGER, _RESET)
    except OSError:  # It is closed already.
        return
    finally:
        connection.close()
