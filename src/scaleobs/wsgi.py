"""The same story in WSGI (PEP 3333)."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextvars import Token
from typing import Any, Unpack

from scaleobs import logs, routes
from scaleobs.answers import Answer, Answers
from scaleobs.exchange import Exchange, is_first_to_see
from scaleobs.health import Report
from scaleobs.observer import Observer
from scaleobs.settings import Arguments

Environ = dict[str, Any]
StartResponse = Callable[..., Callable[[bytes], object]]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]
_Token = Token[Mapping[str, str] | None]

_REASONS = {
    200: "200 OK",
    405: "405 Method Not Allowed",
    500: "500 Internal Server Error",
    503: "503 Service Unavailable",
}


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
        self._endpoints = self.observer.answers.endpoints
        routes.watch_framework(app)
        # WSGI has no start-up of its own: an application that can be called has started, unless it says
        # otherwise.
        self.observer.lifecycle.lifespan_started()

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        endpoint = self._endpoints.get(environ.get("PATH_INFO", ""))
        if endpoint is not None:
            return _deliver(self._answer(endpoint, environ), environ, start_response)
        if not is_first_to_see(environ, self.observer.storage):
            return self.app(environ, start_response)
        context = self.observer.request_context(
            environ.get("HTTP_X_REQUEST_ID", ""), environ.get("HTTP_TRACEPARENT", "")
        )
        exchange = Exchange(
            self.observer.recorder,
            method=environ.get("REQUEST_METHOD", ""),
            path=environ.get("PATH_INFO", ""),
            client=environ.get("REMOTE_ADDR", ""),
            context=context,
            find_route=lambda: routes.of_environ(environ),
        )

        def watched_start(*args: Any, **kwargs: Any) -> Callable[[bytes], object]:
            write = start_response(*args, **kwargs)
            exchange.response_started(args[0] if args else kwargs.get("status"))
            return write

        token = logs.request_context.set(context)
        try:
            body = self.app(environ, watched_start)
        except BaseException as error:
            exchange.left(error)
            logs.forget_request(token)
            raise
        return _watched(body, exchange, environ, token)

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


def _deliver(answer: Answer, environ: Environ, start_response: StartResponse) -> list[bytes]:
    start_response(_REASONS[answer.status], [*answer.headers, ("Content-Length", str(len(answer.body)))])
    return [b""] if environ.get("REQUEST_METHOD") == "HEAD" else [answer.body]


class _Body:
    """The application's iterable, watched until the server closes it."""

    __slots__ = ("_body", "_chunks", "_exchange", "_is_read", "_token")

    def __init__(self, body: Iterable[bytes], exchange: Exchange, token: _Token) -> None:
        self._body = body
        self._chunks: Iterator[bytes] | None = None
        self._exchange = exchange
        self._is_read = False
        self._token: _Token | None = token

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            if self._chunks is None:
                self._chunks = iter(self._body)
            return next(self._chunks)
        except StopIteration:
            self._is_read = True
            raise
        except BaseException as error:
            self._exchange.left(error)
            raise

    def close(self) -> None:
        token, self._token = self._token, None
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        except BaseException as error:
            if self._is_read:  # The answer was whole: this is WSGI's way to fail in the background.
                self._exchange.finished()
            self._exchange.left(error)
            raise
        finally:
            self._exchange.finished()
            self._exchange.left()
            if token is not None:
                logs.forget_request(token)

    def __del__(self) -> None:
        # A finalizer may run in the middle of anything, so it only leaves word.
        self._exchange.abandon()


class _SizedBody(_Body):
    """The same for an iterable with a length, which servers ask for to add a Content-Length."""

    __slots__ = ()

    def __len__(self) -> int:
        return len(self._body)  # type: ignore[arg-type]


def _watched(body: Iterable[bytes], exchange: Exchange, environ: Environ, token: _Token) -> Iterable[bytes]:
    file_wrapper = environ.get("wsgi.file_wrapper")
    if isinstance(file_wrapper, type) and isinstance(body, file_wrapper):
        return _watched_file(body, exchange, token)
    return (_SizedBody if hasattr(body, "__len__") else _Body)(body, exchange, token)


def _watched_file(body: Any, exchange: Exchange, token: _Token) -> Iterable[bytes]:
    """Return the server's own file wrapper, which it must recognise to send the file itself, with a watched `close`."""
    close = getattr(body, "close", None)

    def watched_close() -> None:
        try:
            if close is not None:
                close()
        finally:
            exchange.finished()
            exchange.left()
            logs.forget_request(token)

    try:
        weakref.finalize(body, exchange.abandon).atexit = False
        body.close = watched_close
    except (
        AttributeError,
        TypeError,
    ):  # An object of the server's that takes no attribute: end here rather than never.
        exchange.finished()
        exchange.left()
        logs.forget_request(token)
    watched: Iterable[bytes] = body
    return watched
