"""The same story in WSGI (PEP 3333)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import Token
from time import perf_counter
from typing import Any, Unpack

from scaleobs import logs
from scaleobs.accesslog import AccessLine
from scaleobs.answers import Answer, Answers
from scaleobs.exchange import ENDED, OPEN, Exchange, ToldExchange, is_first_to_see
from scaleobs.health import Report
from scaleobs.observer import Observer
from scaleobs.settings import Arguments

Environ = dict[str, Any]
StartResponse = Callable[..., Callable[[bytes], object]]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]
_Token = Token[Mapping[str, str] | None]

_LONGEST_NUMBER = 20

_REASONS = {
    200: "200 OK",
    405: "405 Method Not Allowed",
    500: "500 Internal Server Error",
    503: "503 Service Unavailable",
}


class _Watched(ToldExchange):
    """A request whose `start_response` and whose body are watched; it is itself the iterable that the server gets."""

    __slots__ = ("body", "chunks", "headers", "is_plain", "is_read", "line", "sent", "server_start", "token")

    body: Any
    chunks: Iterator[bytes] | None
    headers: Any
    is_plain: bool
    is_read: bool
    sent: int
    server_start: StartResponse
    token: _Token | None

    def start_response(self, *args: Any, **kwargs: Any) -> Callable[[bytes], object]:
        write = self.server_start(*args, **kwargs)
        # A later status replaces an earlier one, as an application may ask for before it has sent anything.
        if self.stage == OPEN:
            self.status = args[0] if args else kwargs.get("status")
            if not self.is_plain:
                self.headers = args[1] if len(args) > 1 else kwargs.get("headers")
        return write

    def end(self, status: Any) -> None:
        if self.is_plain:
            Exchange.end(self, status)
        else:
            super().end(status)

    def __iter__(self) -> Iterator[bytes]:
        try:
            self.chunks = iter(self.body)
        except BaseException as error:
            self._over(error)
            raise
        return self

    def __next__(self) -> bytes:
        try:
            if self.chunks is None:  # By a server that asked for no iterator first.
                self.chunks = self.body
            chunk = next(self.chunks)
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
        self.chunks = None  # Without us the server's loop would have let it go by now.
        try:
            close = getattr(self.body, "close", None)
            if close is not None:
                close()
        except BaseException as error:
            self._over(error, is_whole=self.is_read)
            raise
        else:
            self._over(is_whole=True)
        finally:
            self.forget()

    def forget(self) -> None:
        """Take the request's ids from this thread's lines."""
        token, self.token = self.token, None
        if token is not None:
            logs.forget_request(token)

    def traceparent(self) -> str:
        return str(self.request.get("HTTP_TRACEPARENT", ""))

    def sizes(self) -> tuple[int, int]:
        # A whole body isn't read through us, nor is a file that the server sends by itself.
        whole = self.body if isinstance(self, _WatchedList) else ()
        sent = self.sent + sum(len(chunk) for chunk in whole if isinstance(chunk, bytes))
        return _length(self.request.get("CONTENT_LENGTH"), 0), _length(_declared(self.headers), sent)

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
            self.body = self.chunks = None


class _WatchedList(_Watched):
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
        if self.line is not None:
            self.left()
            self.forget()

    def __del__(self) -> None:
        self.abandon()  # Nothing waits for these chunks to go, and they may be measured yet.


class _WatchedSized(_Watched):
    """The same for any other iterable with a length."""

    __slots__ = ()

    def __len__(self) -> int:
        return len(self.body)


class WSGIMiddleware:
    """
    Observes a WSGI application, and answers the four endpoints in front of it.

    What the application receives, returns and raises stays as it is; its iterable is closed once, as the
    server closes it.

    Args:
        app: the application.
        observer: what it is observed by; made from the settings where it is not given.
        settings: as for `instrument`.
    """

    def __init__(self, app: Application, *, observer: Observer | None = None, **settings: Unpack[Arguments]) -> None:
        self.app = app
        self.observer = Observer(**settings) if observer is None else observer
        self._recorder = self.observer.recorder_for(app, method="REQUEST_METHOD")
        self._endpoints = self.observer.answers.endpoints
        self._here = self._recorder.here
        self._writes_lines = self._recorder.log.writes_lines
        # WSGI has no start-up of its own: an application that can be called has started, unless it says
        # otherwise.
        self.observer.lifecycle.lifespan_started()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        is_plain = self.observer.is_plain
        if not is_plain or environ.get("PATH_INFO") in self._endpoints:
            answer = self._served_here(environ, start_response)
            if answer is not None:
                return answer
        shard = self._here.shard
        shard.opened += 1
        exchange = _Watched()
        exchange.recorder = self._recorder
        exchange.request = environ
        exchange.shard = shard
        exchange.server_start = start_response
        exchange.stage = OPEN
        exchange.is_plain = is_plain
        exchange.is_read = False
        exchange.status = exchange.line = exchange.chunks = exchange.token = None
        if not is_plain:
            exchange.headers = None
            exchange.sent = 0
        exchange.begun = perf_counter()
        if self._writes_lines:
            self._begin_lines(exchange, environ)
        try:
            exchange.body = body = self.app(environ, exchange.start_response)
        except BaseException as error:
            exchange.left(error)
            exchange.forget()
            raise
        if type(body) is list or type(body) is tuple:
            exchange.__class__ = _WatchedList
            return exchange
        return _as_server_expects(body, exchange)

    def _begin_lines(self, exchange: _Watched, environ: Environ) -> None:
        """Let the lines of this request carry its ids, and give it a line of its own."""
        context = self.observer.request_context(
            str(environ.get("HTTP_X_REQUEST_ID", "")), str(environ.get("HTTP_TRACEPARENT", ""))
        )
        exchange.line = AccessLine(
            self._recorder.log,
            context,
            method=environ.get("REQUEST_METHOD", ""),
            path=environ.get("PATH_INFO", ""),
            client=environ.get("REMOTE_ADDR", ""),
        )
        exchange.token = logs.request_context.set(context)

    def _served_here(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes] | None:
        """Return the answer to what is not one of the application's requests to be counted."""
        self.observer.request_seen(environ.get("HTTP_TRACEPARENT", ""))
        endpoint = self._endpoints.get(environ.get("PATH_INFO", ""))
        if endpoint is not None:
            return _deliver(self._answer(endpoint, environ), environ, start_response)
        if is_first_to_see(environ, self.observer.storage):
            return None
        return self.app(environ, start_response)

    def _answer(self, endpoint: str, environ: Environ) -> Answer:
        if environ.get("REQUEST_METHOD") not in ("GET", "HEAD"):
            return Answers.not_allowed()
        if endpoint == "metrics":
            return self.observer.metrics(
                accept=environ.get("HTTP_ACCEPT", ""),
                accept_encoding=environ.get("HTTP_ACCEPT_ENCODING", ""),
                query=environ.get("QUERY_STRING", ""),
            )
        report = Report(is_up=True) if endpoint == "live" else self.observer.checks.report(endpoint)
        return self.observer.probe(endpoint, report)


def _deliver(answer: Answer, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    headers = answer.headers
    if answer.rest is None:
        headers = [*headers, ("Content-Length", str(len(answer.body)))]
    start_response(_REASONS[answer.status], headers)
    if environ.get("REQUEST_METHOD") == "HEAD":
        return [b""]
    return [answer.body] if answer.rest is None else itertools.chain([answer.body], filter(None, answer.rest))


def _as_server_expects(body: Iterable[bytes], exchange: _Watched) -> Iterable[bytes]:
    """Return what looks to the server like the body: with a length where it has one, or its own file wrapper."""
    file_wrapper = exchange.request.get("wsgi.file_wrapper")
    if isinstance(file_wrapper, type) and isinstance(body, file_wrapper):
        return _watched_file(body, exchange)
    if hasattr(type(body), "__len__"):
        exchange.__class__ = _WatchedSized
    return exchange


def _declared(headers: Any) -> object:
    """Return the length that the headers of an answer declare."""
    try:
        return next((value for name, value in headers if name.lower() == "content-length"), None)
    except Exception:  # There are none, or what is wrong with them is for the server to say.
        return None


def _length(declared: object, otherwise: int) -> int:
    if isinstance(declared, str) and declared.isdecimal() and len(declared) < _LONGEST_NUMBER:
        return int(declared)
    return otherwise


def _watched_file(body: Any, exchange: _Watched) -> Iterable[bytes]:
    """Return the server's own file wrapper, which it must recognise to send the file itself, with a watched `close`."""
    closing = getattr(body, "close", None)
    exchange.body = _Closing(closing)
    try:
        # The exchange lives as long as the wrapper does, and leaves word when both are collected.
        body.close = exchange.close
    except (
        AttributeError,
        TypeError,
    ):  # An object of the server's that takes no attribute: end here rather than never.
        exchange.body = None
        exchange.close()
    watched: Iterable[bytes] = body
    return watched


class _Closing:
    """What is left of a body whose chunks the server reads by itself."""

    def __init__(self, close: Callable[[], None] | None) -> None:
        if close is not None:
            self.close = close
