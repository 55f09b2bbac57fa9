"""One request of WSGI: its `start_response` and its body, in the form that the server expects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from operator import length_hint
from typing import Any, TypeVar

from scaleobs._http import wsgi_websocket
from scaleobs._http.exchange import ENDED, OPEN, SERVER_ERROR, DetailedExchange, Exchange, code_of
from scaleobs._routes.exceptions import note_error
from scaleobs.logs._context import request_context
from scaleobs.logs._exceptions import exception_of

Result = TypeVar("Result")
StartResponse = Callable[..., Callable[[bytes], object]]

WITHOUT_LENGTH: set[type] = set()
"""A cache of types of bodies: the test whether a type has a length is slow."""

_MAX_TYPES = 100

_NOT_GIVEN: Any = object()
_LIST_ITERATOR = type(iter(list[bytes]()))
# A call of the function costs half of a call through `super()`.
_count, _end = Exchange.end, DetailedExchange.end

_LONGEST_NUMBER = 13
"""In digits: a client may declare any length, and one above a terabyte would dominate the sum of the histogram."""


class WSGIExchange(DetailedExchange):
    """
    A request of WSGI, which is also the iterable that the server receives.

    The ids of the request are bound only during calls of the application: a server may read and close the body in
    another thread, or drop it without closing it.

    Attributes:
        body: the iterable that the application returned.
        headers: of the response, if the request is not only counted.
        is_websocket: whether the request counts as an open WebSocket; set for handshakes only.
        is_failed: whether the application has failed while the WebSocket was open, and answered it with a 5xx.
        written_before: the bytes that were written to the connection before a handshake, if they are known.
        takes_fast_path: whether the request is only counted. If not, the slots of `DetailedExchange` are set.
        is_read: whether the server has read all chunks.
        list_iterator: the iterator that the server reads, if the body is iterated as a list.
        sent: the bytes that the server has read.
        server_start: the server's `start_response`.
    """

    __slots__ = (
        *("body", "headers", "is_failed", "is_read", "is_websocket", "list_iterator"),
        *("sent", "server_start", "takes_fast_path", "written_before"),
    )

    body: Any
    headers: Any
    takes_fast_path: bool
    is_websocket: bool
    is_failed: bool
    written_before: int | None
    is_read: bool
    list_iterator: Iterator[bytes]
    sent: int
    server_start: StartResponse

    def run_in_context(self, function: Callable[..., Result], *arguments: Any) -> Result:
        """Call a function of the application, with the ids of the request and its span bound."""
        span, context = self.span, self.context
        token = None if context is None else request_context.set(context)
        entered = None if span is None else span.enter()
        try:
            return function(*arguments)
        finally:
            if span is not None:
                span.leave(entered)
            if token is not None:
                request_context.reset(token)

    def start_response(
        self, status: Any = _NOT_GIVEN, headers: Any = _NOT_GIVEN, /, *more: Any, **named: Any
    ) -> Callable[[bytes], object]:
        """Start the response with the server, and keep its status."""
        start = self.server_start  # A call of an attribute would cost a lookup of methods.
        if self.takes_fast_path and headers is not _NOT_GIVEN and not more and not named:
            write = start(status, headers)
            # Before the body is sent, an application may replace the status.
            if self.stage == OPEN:
                self.status = status
            return write
        args = () if status is _NOT_GIVEN else (status,) if headers is _NOT_GIVEN else (status, headers, *more)
        if not self.takes_fast_path and (more or named):
            self._note_error(args[0] if args else named.get("status"), more[0] if more else named.get("exc_info"))
        write = start(*(args if self.takes_fast_path or self.context is None else self._with_id(args)), **named)
        if self.stage == OPEN:
            self.status = args[0] if args else named.get("status")
            if not self.takes_fast_path:
                self.headers = args[1] if len(args) > 1 else named.get("headers")
        return write if self.takes_fast_path or not self.recorder.storage.has_sizes else self._measured(write)

    def _note_error(self, status: Any, exc_info: Any) -> None:
        """Note the exception that an application passes to `start_response` (PEP 3333), as Bottle does."""
        error = exception_of(exc_info) if type(exc_info) is tuple else None
        if error is not None and code_of(status) >= SERVER_ERROR:
            note_error(error, lambda: self.request)

    def _with_id(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the start of a response with `X-Request-ID`, unless the application has set one."""
        own = self.recorder.ids.shown
        try:
            status, headers, *rest = args
            for name, _ in headers:
                if len(name) == len(own) and name.lower() == own.lower():
                    return args
            return (status, [*headers, (own, self.context["request_id"])], *rest) if own else args  # type: ignore[index]
        except Exception:  # The server reports malformed arguments.
            return args

    def _measured(self, write: Callable[[bytes], object]) -> Callable[[bytes], object]:
        def measured(chunk: bytes) -> object:
            result = write(chunk)
            self.sent += len(chunk)
            return result

        return measured

    def end(self, status: Any) -> None:
        """Count the request with this status; called once."""
        if self.takes_fast_path:
            Exchange.end(self, status)
        else:
            super().end(status)

    def finished(self) -> None:
        """The last byte was passed to the server, or the body was closed without a response."""
        if self.stage != ENDED and self.status is None and getattr(self, "is_websocket", False):
            wsgi_websocket.close(self)
        else:
            super().finished()

    def app_finished(self, error: BaseException | None = None) -> None:
        """The application returned or raised."""
        if self.takes_fast_path:
            Exchange.app_finished(self, error)
        else:
            super().app_finished(error)

    def __iter__(self) -> Iterator[bytes]:
        try:
            chunks = iter(self.body) if self.takes_fast_path else self.run_in_context(iter, self.body)
        except BaseException as error:
            self._finish(error)
            raise
        if not self.takes_fast_path:
            return self._read_all(chunks)
        if type(chunks) is _LIST_ITERATOR:  # Django's usual responses return one; it cannot raise.
            self.list_iterator = chunks
            return chunks
        return self._chunks(chunks)

    def _chunks(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the chunks; a generator costs a third of `__next__`."""
        try:
            for chunk in chunks:
                try:
                    yield chunk
                except GeneratorExit:  # The server has dropped the generator. Errors of `chunks` are not caught.
                    return
        except BaseException as error:
            self._finish(error)
            raise
        self.is_read = True

    def _read_all(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Yield the chunks, each read with the ids of the request bound."""
        with suppress(StopIteration):
            while True:
                yield self._read(chunks)

    def __next__(self) -> bytes:
        return self._read(self.body)

    def _read(self, chunks: Iterator[bytes]) -> bytes:
        try:
            chunk = next(chunks) if self.takes_fast_path else self.run_in_context(next, chunks)
            if not self.takes_fast_path and isinstance(chunk, bytes):
                self.sent += len(chunk)
            return chunk  # noqa: TRY300 - In the order of events.
        except StopIteration:
            self.is_read = True
            raise
        except BaseException as error:
            self._finish(error)
            raise

    def close(self) -> None:
        """Close the application's iterable, and end the request."""
        try:
            close = getattr(self.body, "close", None)
            if close is not None:
                close() if self.takes_fast_path else self.run_in_context(close)
        except BaseException as error:
            self._finish(error, is_whole=self._is_whole())
            raise
        if self.stage != ENDED:
            self.shard = self.recorder.local.shard
            if self.status is None:
                self.finished()
            else:
                end = _count if self.takes_fast_path else _end
                end(self, self.status)
        if not self.takes_fast_path:
            self.app_finished()

    def client(self) -> str:
        """Return the address of the client; empty without one."""
        return str(self.request.get("REMOTE_ADDR", ""))

    def traceparent(self) -> str:
        """Return the `traceparent` header; empty without one."""
        return str(self.request.get("HTTP_TRACEPARENT", ""))

    def sizes(self) -> tuple[int, int]:
        """Return the bytes of both bodies: the declared lengths, or else the bytes that were sent."""
        received = _length(self.request.get("CONTENT_LENGTH"), 0)
        # A list is not read through this object, nor is a file that the server sends by itself.
        whole = self.body if _is_listed(self.body) else ()
        sent = self.sent + sum(len(chunk) for chunk in whole if isinstance(chunk, bytes))
        return received, sent if self.request.get("REQUEST_METHOD") == "HEAD" else _length(
            _declared(self.headers), sent
        )

    def _is_whole(self) -> bool:
        """Return whether the server has read all chunks."""
        list_iterator = getattr(self, "list_iterator", None)
        return self.is_read if list_iterator is None else length_hint(list_iterator) == 0

    def _finish(self, error: BaseException | None = None, *, is_whole: bool = False) -> None:
        if self.stage != ENDED:
            # The server may close in another thread, which has its own shard.
            self.shard = self.recorder.local.shard
            if is_whole:
                self.finished()
            elif error is not None and getattr(self, "is_websocket", False) and wsgi_websocket.raised(self, error):
                return
        self.app_finished(error)

    def __del__(self) -> None:
        # A finalizer may run at any point, so the next scrape counts. The body is released now, as without scaleobs.
        if self.stage != ENDED:
            self.mark_abandoned()
            self.body = None


class SizedBody(WSGIExchange):
    """The same for a body with a length, which servers read; a list cannot raise, nor be closed."""

    __slots__ = ()

    def __iter__(self) -> Iterator[bytes]:
        kind = type(self.body)
        return iter(self.body) if kind is list or kind is tuple else super().__iter__()

    def __len__(self) -> int:
        return len(self.body)

    def __del__(self) -> None:
        if self.stage != ENDED:
            self.mark_abandoned()
            if not _is_listed(self.body):  # A list needs no release, and its chunks may still be measured.
                self.body = None


def _is_listed(body: object) -> bool:
    kind = type(body)
    return kind is list or kind is tuple


def _declared(headers: Any) -> object:
    """Return the length that the headers of a response declare."""
    try:
        return next((value for name, value in headers if name.lower() == "content-length"), None)
    except Exception:  # No headers, or malformed ones, which the server reports.
        return None


def _length(declared: object, otherwise: int) -> int:
    if isinstance(declared, str) and declared.isdecimal() and len(declared) <= _LONGEST_NUMBER:
        return int(declared)
    return otherwise


def as_server_expects(body: Iterable[bytes], exchange: WSGIExchange) -> Iterable[bytes]:
    """Return the body for the server: with a length if the application's has one, or the server's file wrapper."""
    kind = type(body)
    if kind is list or kind is tuple:
        exchange.__class__ = SizedBody
        return exchange
    file_wrapper = exchange.request.get("wsgi.file_wrapper")
    if isinstance(file_wrapper, type) and isinstance(body, file_wrapper):
        return _with_close(body, exchange)
    if kind not in WITHOUT_LENGTH:
        if hasattr(kind, "__len__"):
            exchange.__class__ = SizedBody
        elif len(WITHOUT_LENGTH) < _MAX_TYPES:
            WITHOUT_LENGTH.add(kind)
    return exchange


def _with_close(body: Any, exchange: WSGIExchange) -> Iterable[bytes]:
    """Return the server's file wrapper with a replaced `close`; the server recognises its type to send the file."""
    closing = getattr(body, "close", None)
    exchange.body = _Closing(closing)
    try:
        # The wrapper keeps the exchange alive; its finalizer runs when both are collected.
        body.close = exchange.close
    except (AttributeError, TypeError):  # The wrapper allows no attribute: end the request now rather than never.
        exchange.body = None
        exchange.close()
    wrapper: Iterable[bytes] = body
    return wrapper


class _Closing:
    """The `close` of a body whose chunks the server reads by itself."""

    def __init__(self, close: Callable[[], None] | None) -> None:
        if close is not None:
            self.close = close
