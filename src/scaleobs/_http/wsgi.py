"""The WSGI middleware: serves a request, or answers an endpoint."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from functools import partial
from time import perf_counter
from typing import Any, Unpack

from scaleobs._http import wsgi_websocket
from scaleobs._http.answer import Answer
from scaleobs._http.exchange import OPEN
from scaleobs._http.wsgi_exchange import WITHOUT_LENGTH, SizedBody, StartResponse, WSGIExchange, as_server_expects
from scaleobs._routes import around
from scaleobs._tracing import request_attributes
from scaleobs.observer import Observer
from scaleobs.settings import Arguments

Environ = dict[str, Any]
WSGIApp = Callable[[Any, Any], Iterable[bytes]]
"""A WSGI application. Any, since applications annotate their parameters in several ways."""

_REASONS = {
    200: "200 OK",
    401: "401 Unauthorized",
    405: "405 Method Not Allowed",
    500: "500 Internal Server Error",
    503: "503 Service Unavailable",
}


class WSGIMiddleware:
    """
    Observes a WSGI application, and answers the four endpoints in front of it.

    The application receives, returns and raises the same as without it. Its iterable is closed once, when the server
    closes it.

    Args:
        app: the application.
        observer: by default, a new one with the settings.
        settings: as for `instrument`.
    """

    def __init__(self, app: WSGIApp, *, observer: Observer | None = None, **settings: Unpack[Arguments]) -> None:
        self.observer: Observer = Observer(**settings) if observer is None else observer
        self._service = self.observer._service
        self._recorder = self._service.recorder_for(app, method="REQUEST_METHOD")
        self.app: WSGIApp = around(self._recorder.routes, app)
        self._endpoints = self._service.answers.endpoints
        self._abandoned = self._service.storage.abandoned
        self._on_memory_changed()
        self._recorder.on_memory_changed = self._on_memory_changed
        self._local = self._recorder.local
        self._writes_lines = self._recorder.log.writes_lines
        self._unexamined = () if self._writes_lines else self._service.storage.unexamined
        self._service.on_loaded(has_lifespan=False)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        if self._abandoned:
            self._service.storage.finish_abandoned()
        if (
            not self._fast_path[0]
            or environ.get("PATH_INFO") in self._endpoints
            or "HTTP_UPGRADE" in environ
            or (self._unexamined and self._service.storage.examine(str(environ.get("HTTP_TRACEPARENT", ""))))
        ):
            return self._serve_other(environ, start_response)
        if self._writes_lines:
            return self._serve_detailed(environ, start_response)
        shard = self._local.shard
        shard.open[0] += 1
        exchange = WSGIExchange()
        exchange.recorder = self._recorder
        exchange.request = environ
        exchange.shard = shard
        exchange.server_start = start_response
        exchange.stage = OPEN
        exchange.takes_fast_path = True
        exchange.is_read = False
        exchange.status = None
        exchange.begun = perf_counter()
        app = self.app  # A call of an attribute would cost a lookup of methods.
        try:
            exchange.body = body = app(environ, exchange.start_response)
        except BaseException as error:
            exchange.app_finished(error)
            raise
        kind = type(body)
        if kind is list or kind is tuple:
            exchange.__class__ = SizedBody
            return exchange
        if kind in WITHOUT_LENGTH and kind is not environ.get("wsgi.file_wrapper"):
            return exchange
        return as_server_expects(body, exchange)

    def _on_memory_changed(self) -> None:
        self._fast_path = self._service.storage.fast_path

    def _serve_detailed(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve a request with a line, a span, an exemplar or sizes."""
        recorder, storage = self._recorder, self._service.storage
        shard = self._local.shard
        shard.open[0] += 1
        exchange = WSGIExchange()
        exchange.recorder = recorder
        exchange.request = environ
        exchange.shard = shard
        exchange.server_start = start_response
        exchange.stage = OPEN
        exchange.takes_fast_path = exchange.is_read = exchange.client_disconnected = False
        exchange.status = exchange.headers = exchange.context = exchange.pending_log_fields = exchange.span = None
        exchange.body = None
        exchange.sent = 0
        exchange.path = environ.get("PATH_INFO", "")
        exchange.begun = perf_counter()
        if self._writes_lines:
            ids = recorder.ids
            parts = str(environ.get(ids.key, "")), str(environ.get("HTTP_TRACEPARENT", ""))
            exchange.context = ids.new_context(*parts)
            if ids.is_passed_on:
                environ[ids.key] = exchange.context["request_id"]
            if "trace_id" in exchange.context and storage.awaits_trace:
                storage.enable_exemplars()
        if not storage.fast_path[0]:
            self._begin_span(exchange, environ)
        if "HTTP_UPGRADE" in environ and wsgi_websocket.is_handshake(environ):
            return self._serve_handshake(exchange, environ)
        try:
            exchange.body = body = exchange.run_in_context(self.app, environ, exchange.start_response)
        except BaseException as error:
            exchange.app_finished(error)
            raise
        return as_server_expects(body, exchange)

    def _serve_handshake(self, exchange: WSGIExchange, environ: Environ) -> Iterable[bytes]:
        """Serve a request for a WebSocket, which the application may accept without a response."""
        wsgi_websocket.begin(exchange)
        try:
            start_response = partial(wsgi_websocket.start, exchange)
            exchange.body = body = exchange.run_in_context(self.app, environ, start_response)
        except BaseException as error:
            if not wsgi_websocket.raised(exchange, error):
                exchange.app_finished(error)
            raise
        return body if wsgi_websocket.returned(exchange, body) else as_server_expects(body, exchange)

    def _begin_span(self, exchange: WSGIExchange, environ: Environ) -> None:
        """Begin the server span of a request, if it has one."""

        def header(name: str) -> str:
            return str(environ.get(f"HTTP_{name.upper().replace('-', '_')}", ""))

        try:
            exchange.span = span = self._recorder.spans.begin(header, partial(attributes_of, environ, header))
            if span is not None and exchange.context is not None:
                exchange.context.update(trace_id=span.ids.trace_id, span_id=span.ids.span_id)
        except Exception as error:
            self._recorder.fault(error)

    def _serve_other(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve everything that does not take the fast path."""
        self._service.on_first_traffic()
        endpoint = self._endpoints.get(environ.get("PATH_INFO", ""))
        if endpoint is not None:
            return _deliver(self._answer(endpoint, environ), environ, start_response)
        self._service.choose_path(environ.get("HTTP_TRACEPARENT", ""))
        claim = self._recorder.claim(environ)
        if claim is None:
            return self.app(environ, start_response)
        with claim:
            return self._serve_detailed(environ, start_response)

    def _answer(self, endpoint: str, environ: Environ) -> Answer:
        def header(name: str) -> str:
            return str(environ.get("HTTP_" + name.upper().replace("-", "_"), ""))

        answers, method = self._service.answers, environ.get("REQUEST_METHOD", "")
        report = self._service.checks.report(endpoint) if answers.needs_report(endpoint, method) else None
        return answers.answer(endpoint, method, header, query=environ.get("QUERY_STRING", ""), report=report)


def attributes_of(environ: Environ, header: Callable[[str], str]) -> dict[str, str | int]:
    """Return the attributes of the server span of a request."""
    path = str(environ.get("SCRIPT_NAME", "")) + str(environ.get("PATH_INFO", ""))
    return request_attributes(
        str(environ.get("REQUEST_METHOD", "")),
        scheme=str(environ.get("wsgi.url_scheme", "http")),
        path=path.encode("latin-1", "replace").decode(errors="replace"),
        client=str(environ.get("REMOTE_ADDR", "")),
        version=str(environ.get("SERVER_PROTOCOL", "")).removeprefix("HTTP/"),
        header=header,
    )


def _deliver(answer: Answer, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    headers = answer.headers
    if answer.rest is None:
        headers = [*headers, ("Content-Length", str(len(answer.body)))]
    start_response(_REASONS[answer.status], headers)
    if environ.get("REQUEST_METHOD") == "HEAD":
        return [b""]
    return [answer.body] if answer.rest is None else itertools.chain([answer.body], filter(None, answer.rest))
