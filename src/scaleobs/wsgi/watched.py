"""One request whose `start_response` and whose body are watched, in whatever form the server expects the body."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from scaleobs import logs
from scaleobs.exchange import ENDED, OPEN, DetailedExchange, Exchange

Result = TypeVar("Result")
StartResponse = Callable[..., Callable[[bytes], object]]

_LENGTH_OF_NAME = len("x-request-id")
_LONGEST_NUMBER = 13
"""In digits: what a client declares beyond a terabyte would be all that the sum of such a histogram says."""


class WSGIExchange(DetailedExchange):
    """
    A request whose `start_response` and whose body are watched; it is itself the iterable that the server gets.

    What has the request's ids in its lines is what the application does in a call of ours, in whichever thread: a
    server may read and close in another one than it called in, or let go of a body without closing it.
    """

    __slots__ = ("body", "headers", "is_plain", "is_read", "sent", "server_start")

    body: Any
    headers: Any
    is_plain: bool
    is_read: bool
    sent: int
    server_start: StartResponse

    def run_in_context(self, function: Callable[..., Result], *arguments: Any) -> Result:
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

    def start_response(self, *args: Any, **kwargs: Any) -> Callable[[bytes], object]:
        """Start the response with the server, and note its status."""
        write = self.server_start(*(args if self.context is None else self._with_id(args)), **kwargs)
        # A later status replaces an earlier one, as an application may ask for before it has sent anything.
        if self.stage == OPEN:
            self.status = args[0] if args else kwargs.get("status")
            if not self.is_plain:
                self.headers = args[1] if len(args) > 1 else kwargs.get("headers")
        return self._measured(write) if self.recorder.storage.has_sizes else write

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

    def app_finished(self, error: BaseException | None = None) -> None:
        """Note that the application returned, or raised; it can add nothing to its answer from now on."""
        if self.is_plain:
            Exchange.app_finished(self, error)
        else:
            super().app_finished(error)

    def __iter__(self) -> Iterator[bytes]:
        try:
            chunks = iter(self.body) if self.is_plain else self.run_in_context(iter, self.body)
        except BaseException as error:
            self._over(error)
            raise
        # A body that isn't its own iterator may be read again from its beginning, or by several.
        return self if chunks is self.body else BodyIterator(self, chunks)

    def __next__(self) -> bytes:
        return self.read(self.body)

    def read(self, chunks: Iterator[bytes]) -> bytes:
        """Return the next chunk."""
        try:
            chunk = next(chunks) if self.is_plain else self.run_in_context(next, chunks)
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
                close() if self.is_plain else self.run_in_context(close)
        except BaseException as error:
            self._over(error, is_whole=self.is_read)
            raise
        else:
            self._over(is_whole=True)

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
        whole = self.body if isinstance(self, ListBody) else ()
        sent = self.sent + sum(len(chunk) for chunk in whole if isinstance(chunk, bytes))
        return received, sent if self.request.get("REQUEST_METHOD") == "HEAD" else _length(
            _declared(self.headers), sent
        )

    def _over(self, error: BaseException | None = None, *, is_whole: bool = False) -> None:
        if self.stage != ENDED:
            # The server may close in another thread than it called in, and each counts for itself.
            self.shard = self.recorder.here.shard
            if is_whole:
                self.finished()
        self.app_finished(error)

    def __del__(self) -> None:
        # A finalizer may run in the middle of anything, so it only leaves word. The body goes now, as without us.
        if self.stage != ENDED:
            self.mark_abandoned()
            self.body = None


class BodyIterator:
    """One time that a body is read."""

    __slots__ = ("_chunks", "_exchange")

    def __init__(self, exchange: WSGIExchange, chunks: Iterator[bytes]) -> None:
        self._exchange = exchange
        self._chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return self._exchange.read(self._chunks)


class ListBody(WSGIExchange):
    """The same for a body that is there as a whole: it can't fail, nor be closed, and servers ask for its length."""

    __slots__ = ()

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.body)

    def __len__(self) -> int:
        return len(self.body)

    def close(self) -> None:
        """End the request."""
        if self.stage != ENDED:
            self.shard = self.recorder.here.shard
            self.finished()
        if not self.is_plain:
            self.app_finished()

    def __del__(self) -> None:
        self.mark_abandoned()  # Nothing waits for these chunks to go, and they may be measured yet.


class SizedBody(WSGIExchange):
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
