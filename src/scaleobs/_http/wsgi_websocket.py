"""
One WebSocket of WSGI.

The application takes the connection from the server and exchanges the messages itself. It starts no response, and
raises `StopIteration` (gunicorn) or returns an empty list (gevent). If it starts a response or raises another error,
the bytes that it has written before show that it had accepted the WebSocket: with werkzeug's server, each application
starts a response that the client ignores. The server of gevent-websocket accepts the WebSocket before the call.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

from scaleobs._http import closed_websocket
from scaleobs._http.exchange import ENDED, SERVER_ERROR, code_of
from scaleobs._http.recorder import Request
from scaleobs._metrics.child import HTTP, WEBSOCKET
from scaleobs.logs._handled import take_handled

if TYPE_CHECKING:
    from scaleobs._http.wsgi_exchange import WSGIExchange

_SWITCHED = 101
"""The status of an application that accepts a WebSocket by `start_response`."""

_ACCEPTED_BY_SERVER = "wsgi.websocket"
_EARLY_HINTS = "wsgi.early_hints"

_SOCKETS = ("gunicorn.socket", "werkzeug.socket")
"""The keys of a connection in the environ of servers."""

_TCP_INFO = getattr(socket, "TCP_INFO", None)
_NOT_SENT = struct.Struct("=144xI")
_SENT = struct.Struct("=200xQQ")
"""In Linux's `struct tcp_info`: bytes not sent yet; bytes sent, and those of them that were sent again."""


def is_handshake(environ: Request) -> bool:
    """Return whether a request of WSGI is the handshake of a WebSocket."""
    return "websocket" in str(environ.get("HTTP_UPGRADE", "")).lower() and environ.get("REQUEST_METHOD") == "GET"


def begin(exchange: WSGIExchange) -> None:
    """Count a request as an open WebSocket until its response starts."""
    exchange.is_websocket = True
    environ = exchange.request
    # A server that sends a `100 Continue` writes, too, when the application reads the body.
    exchange.written_before = None if "HTTP_EXPECT" in environ else _written(environ)
    if _EARLY_HINTS in environ and exchange.written_before is not None:
        environ[_EARLY_HINTS] = partial(_send_hints, exchange, environ[_EARLY_HINTS])
    exchange.shard.open[WEBSOCKET] += 1
    exchange.shard.open[HTTP] -= 1


def start(exchange: WSGIExchange, *args: Any, **named: Any) -> Any:
    """Start a response of the application: by HTTP unless the WebSocket was accepted, or is by this response."""
    status = args[0] if args else named.get("status")
    if exchange.is_websocket and (code_of(status) == _SWITCHED or _is_accepted(exchange)):
        exchange.is_failed = code_of(status) >= SERVER_ERROR
        return exchange.server_start(*args, **named)
    write = exchange.start_response(*args, **named)
    _answered(exchange)
    return write


def returned(exchange: WSGIExchange, body: object) -> bool:
    """Return whether the application has finished with the WebSocket when it returned this body."""
    # The servers' marks of a connection that was taken over: gunicorn's is an `object()`.
    if exchange.is_websocket and type(body) in {list, tuple, object}:
        close(exchange)
        return True
    return False


def raised(exchange: WSGIExchange, error: BaseException) -> bool:
    """Return whether an exception ends an accepted WebSocket. If not, it is the answer to the handshake."""
    if exchange.is_websocket and issubclass(type(error), StopIteration):
        close(exchange)
    elif exchange.is_websocket and _is_accepted(exchange):
        close(exchange, error)
    else:
        _answered(exchange)
        return False
    return True


def close(exchange: WSGIExchange, error: BaseException | None = None) -> None:
    """Count the WebSocket, and end the exchange without an answer."""
    recorder = exchange.recorder
    exchange.is_websocket = False
    exchange.stage = ENDED
    recorder.local.shard.open[WEBSOCKET] -= 1
    seconds = perf_counter() - exchange.begun
    is_failed = getattr(exchange, "is_failed", False)
    handled = take_handled(exchange.context, is_failed=is_failed)
    error = handled[1] if error is None and handled is not None else error
    fields = {**(exchange.context or {}), "path": exchange.path, "client": exchange.client()}
    closed_websocket.count(recorder, exchange.request, seconds, fields=fields, error=error, is_failed=is_failed)
    span, exchange.span = exchange.span, None
    closed_websocket.end_span(span, recorder, exchange.request, error, is_failed=is_failed)


def _send_hints(exchange: WSGIExchange, send: Callable[..., Any], *args: Any, **named: Any) -> Any:
    """Send a response of status 103, whose bytes accept nothing."""
    result = send(*args, **named)
    exchange.written_before = _written(exchange.request)
    return result


def _answered(exchange: WSGIExchange) -> None:
    if exchange.is_websocket:
        exchange.is_websocket = False
        open_now = exchange.recorder.local.shard.open
        open_now[WEBSOCKET] -= 1
        open_now[HTTP] += 1


def _is_accepted(exchange: WSGIExchange) -> bool:
    """Return whether the WebSocket was accepted: by the server, or by the application, which wrote to the client."""
    if exchange.request.get(_ACCEPTED_BY_SERVER) is not None:
        return True
    if exchange.written_before is None:
        return False
    written = _written(exchange.request)
    return written is None or written > exchange.written_before  # The application has closed the connection.


def _written(environ: Request) -> int | None:
    """Return how many bytes were written to the connection, those not sent yet included; `None` if it is unknown."""
    try:
        info = _socket_of(environ).getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 256)
        (not_sent,), (sent, sent_again) = _NOT_SENT.unpack_from(info), _SENT.unpack_from(info)
    except Exception:  # Another system than Linux, a Unix socket, or a server that passes none on.
        return None
    return int(not_sent + sent - sent_again)


def _socket_of(environ: Request) -> Any:
    """Return the connection of a request: the one that a library for WebSockets takes."""
    for key in _SOCKETS:
        if environ.get(key) is not None:
            return environ[key]
    if "eventlet.input" in environ:
        return environ["eventlet.input"].get_socket()
    body: Any = environ["wsgi.input"]  # gevent
    return getattr(body, "rfile", body).raw._sock  # noqa: SLF001
