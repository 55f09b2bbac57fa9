"""One request whose `start_response` and whose body are watched, in whatever form the server expects the body."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from operator import length_hint
from typing import Any, TypeVar

from scaleobs import logs
from scaleobs.exchange import ENDED, OPEN, SERVER_ERROR, Exchange
from scaleobs.told import ToldExchange

Result = TypeVar("Result")
StartResponse = Callable[..., Callable[[bytes], object]]

_NOT_GIVEN: Any = object()
_LIST_ITERATOR = type(iter(list[bytes]()))
_count = Exchange.end

_LENGTH_OF_NAME = len("x-request-id")
_LONGEST_NUMBER = 13
"""In digits: what a client declares beyond a terabyte would be all that the sum of such a histogram says."""


class Watched(ToldExchange):
    """
    A request whose `start_response` and whose body are watched; it is itself the iterable that the server gets.

    What has the request's ids in its lines is what the application does in a call of ours, in whichever thread: a
    server may read and close in another one than it called in, or let go of a body without closing it.
    """

    __slots__ = (
        *("body", "headers", "is_plain", "is_read", "listed", "sent", "server_start"),
        *("context", "is_gone", "path", "span", "waiting"),
    )

    body: Any
    headers: Any
    is_plain: bool
    is_read: bool
    listed: Iterator[bytes]
    sent: int
    server_start: StartResponse

    def within(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call a function of the application's, whose lines have the request's ids and whose spans its span."""
        span, context = self.span, self.context
        token = None if context is None else logs.request_context.set(context)
        entered = None if span is None else span.enter()
        try:
            return function(*arguments)
        finally:
            if span is not None:
                span.leave(entered)
            if token is not None:
                logs.request_context.reset(token)

    def start_response(
        self, status: Any = _NOT_GIVEN, headers: Any = _NOT_GIVEN, /, *more: Any, **named: Any
    ) -> Callable[[bytes], object]:
        """Start the response with the server, and note its status."""
        start = self.server_start  # A call of `self.server_start(...)` would look for a method first.
        if self.is_plain and headers is not _NOT_GIVEN and not more and not named:
            write = start(status, headers)
            # A later status replaces an earlier one, as an application may ask for before it has sent anything.
            if self.stage == OPEN:
                self.status = status
            return write
        args = () if status is _NOT_GIVEN else (status,) if headers is _NOT_GIVEN else (status, headers, *more)
        write = start(*(args if self.is_plain or self.context is None else self._with_id(args)), **named)
        if self.stage == OPEN:
            self.status = args[0] if args else named.get("status")
            if not self.is_plain:
                self.headers = args[1] if len(args) > 1 else named.get("headers")
        return write if self.is_plain or not self.recorder.storage.has_sizes else self._measured(write)

    def _with_id(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the start of an answer with `X-Request-ID`, unless the application has given one."""
        try:
            status, headers, *rest = args
            for name, _ in headers:
                if len(name) == _LENGTH_OF_NAME and name.lower() == "x-request-id":
                    return args
            return status, [*headers, ("X-Request-ID", self.context["request_id"])], *rest  # type: ignore[index]
        except Exception:  # What is wrong with it is for the server to say.
            return args

    def _measured(self, write: Callable[[bytes], object]) -> Callable[[bytes], object]:
        def measured(chunk: bytes) -> object:
            result = write(chunk)
            self.sent += len(chunk)
            return result

        return measured

    def end(self, status: Any) -> None:
        """Count the request with this status, now; to be called once."""
        if self.is_plain:
            Exchange.end(self, status)
        else:
            super().end(status)

    def left(self, error: BaseException | None = None) -> None:
        """Note that the application returned, or raised; it can add nothing to its answer from now on."""
        if self.is_plain:
            Exchange.left(self, error)
        else:
            super().left(error)

    def __iter__(self) -> Iterator[bytes]:
        try:
            chunks = iter(self.body) if self.is_plain else self.within(iter, self.body)
        except BaseException as error:
            self._over(error)
            raise
        if self.is_plain:
            if type(chunks) is _LIST_ITERATOR:  # That of Django's usual responses; it can't fail.
                self.listed = chunks
                return chunks
            return self._chunks(chunks)
        # A body that isn't its own iterator may be read again from its beginning, or by several.
        return self if chunks is self.body else _Reading(self, chunks)

    def _chunks(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the chunks; a generator costs a third of what `__next__` does, which raises at their end."""
        try:
            for chunk in chunks:
                try:
                    yield chunk
                except GeneratorExit:  # The reader has dropped this. What `chunks` raises is not caught here.
                    return
        except BaseException as error:
            self._over(error)
            raise
        self.is_read = True

    def __next__(self) -> bytes:
        return self.read(self.body)

    def read(self, chunks: Iterator[bytes]) -> bytes:
        """Return the next chunk."""
        try:
            chunk = next(chunks) if self.is_plain else self.within(next, chunks)
            if not self.is_plain and isinstance(chunk, bytes):
                self.sent += len(chunk)
            return chunk  # noqa: TRY300 - It reads as it happens.
        except StopIteration:
            self.is_read = True
            raise
        except BaseException as error:
            self._over(error)
            raise

    def close(self) -> None:
        """Close the application's iterable, and end the request."""
        try:
            close = getattr(self.body, "close", None)
            if close is not None:
                close() if self.is_plain else self.within(close)
        except BaseException as error:
            self._over(error, is_whole=self._is_whole())
            raise
        if not self.is_plain:
            self._over(is_whole=True)
        elif self.stage != ENDED:
            self.shard = self.recorder.here.shard
            _count(self, SERVER_ERROR if self.status is None else self.status)

    def client(self) -> str:
        """Return the address of the client, as far as the server knows."""
        return str(self.request.get("REMOTE_ADDR", ""))

    def traceparent(self) -> str:
        """Return the `traceparent` that the client sent, or nothing."""
        return str(self.request.get("HTTP_TRACEPARENT", ""))

    def sizes(self) -> tuple[int, int]:
        """Return the bytes of both bodies: what they declare, or as far as they were sent."""
        received = _length(self.request.get("CONTENT_LENGTH"), 0)
        # A whole body isn't read through us, nor is a file that the server sends by itself.
        whole = self.body if isinstance(self, WatchedList) else ()
        sent = self.sent + sum(len(chunk) for chunk in whole if isinstance(chunk, bytes))
        return received, sent if self.request.get("REQUEST_METHOD") == "HEAD" else _length(
            _declared(self.headers), sent
        )

    def _is_whole(self) -> bool:
        """Return whether the server has read all chunks."""
        listed = getattr(self, "listed", None)
        return self.is_read if listed is None else length_hint(listed) == 0

    def _over(self, error: BaseException | None = None, *, is_whole: bool = False) -> None:
        if self.stage != ENDED:
            # The server may close in another thread than it called in, and each counts for itself.
            self.shard = self.recorder.here.shard
            if is_whole:
                self.finished()
        self.left(error)

    def __del__(self) -> None:
        # A finalizer may run in the middle of anything, so it only leaves word. The body goes now, as without us.
        if self.stage != ENDED:
            self.abandon()
            self.body = None


class _Reading:
    """One time that a body is read."""

    __slots__ = ("_chunks", "_exchange")

    def __init__(self, exchange: Watched, chunks: Iterator[bytes]) -> None:
        self._exchange = exchange
        self._chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return self._exchange.read(self._chunks)


class WatchedList(Watched):
    """The same for a body that is there as a whole: it can't fail, nor be closed, and servers ask for its length."""

    __slots__ = ()

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.body)

    def __len__(self) -> int:
        return len(self.body)

    def __del__(self) -> None:
        if self.stage != ENDED:
            self.abandon()  # Nothing waits for these chunks to go, and they may be measured yet.


class WatchedSized(Watched):
    """The same for any other iterable with a length."""

    __slots__ = ()

    def __len__(self) -> int:
        return len(self.body)


def _declared(headers: Any) -> object:
    """Return the length that the headers of an answer declare."""
    try:
        return next((value for name, value in headers if name.lower() == "content-length"), None)
    except Exception:  # There are none, or what is wrong with them is for the server to say.
        return None


def _length(declared: object, otherwise: int) -> int:
    if isinstance(declared, str) and declared.isdecimal() and len(declared) <= _LONGEST_NUMBER:
        return int(declared)
    return otherwise
