"""
One request from first byte to last: timed, labelled, counted and logged once, whatever the application does.

ASGI and WSGI tell what happens in the words of this file, so that both mean the same by it. Nothing here
raises into the application: a fault of our own is counted, logged once, and the request goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, MutableMapping
from typing import Any

from scaleobs import catalog, logs
from scaleobs.metrics.storage import Storage

CLIENT_GONE = 499
"""The status of a request whose client went away before the answer began; nginx's number for it."""

SERVER_ERROR = 500

_SIGNED = "scaleobs.counted_in"


class Recorder:
    """
    What hears of every request of a service: the storage counts it, the logger writes its line.

    Args:
        storage: where requests are counted.
        logger: a structlog logger.
    """

    __slots__ = ("_logger", "_told", "storage")

    def __init__(self, storage: Storage, logger: Any) -> None:
        self.storage = storage
        self._logger = logger
        self._told: set[str] = set()

    def request_finished(self, exchange: Exchange) -> None:
        """Write the one line of a request."""
        fields: dict[str, Any] = {
            **exchange.context,
            "method": exchange.method,
            "route": exchange.route,
            "path": exchange.path,
            "status_code": exchange.status,
            "duration_seconds": round(exchange.seconds, 6),
            "client": exchange.client,
        }
        if exchange.is_truncated:
            fields["truncated"] = True
        if exchange.sent_status is not None and exchange.sent_status != exchange.status:
            fields["sent_status"] = exchange.sent_status
        if exchange.error is not None:
            fields["exc_info"] = exchange.error
        write = self._logger.error if exchange.status >= SERVER_ERROR else self._logger.info
        write("request.finished", **fields)
        if exchange.error is not None:
            logs.mark_logged(exchange.error)

    def background_failed(self, exchange: Exchange, error: BaseException) -> None:
        """Write that the application raised after its answer was complete."""
        route = {"method": exchange.method, "route": exchange.route}
        self._logger.error("background.failed", **exchange.context, **route, exc_info=error)
        logs.mark_logged(error)

    def websocket_closed(self, find_route: Callable[[], str], **fields: Any) -> None:
        """Count a WebSocket as closed, write its one line, and never raise."""
        self.storage.closed("websocket")
        try:
            self._logger.info("websocket.closed", route=find_route(), **fields)
        except Exception as error:
            self.fault(error)

    def fault(self, error: Exception) -> None:
        """Count a fault of scaleobs itself, write it once per kind and place, and never raise."""
        try:
            self.storage.fault()
            frames = error.__traceback__
            while frames is not None and frames.tb_next is not None:
                frames = frames.tb_next
            kind = f"{type(error).__name__} at {frames.tb_frame.f_code.co_qualname if frames else '?'}"
            if kind not in self._told:
                self._told.add(kind)
                self._logger.error("scaleobs.fault", kind=kind, exc_info=error)
        except Exception:  # noqa: S110 - There is nobody left to tell.
            pass


class Exchange:
    """
    One HTTP request.

    It is made when the server calls, and ended by whichever comes first: `finished`, `client_gone` or `left`.
    Each may be called any number of times and in any order; what follows the end changes nothing but the log.

    Args:
        recorder: what hears of it.
        method: as the client sent it.
        path: as the client sent it, for the log only.
        client: the client's address, for the log only.
        context: what identifies the request in every log line.
        find_route: called once, at the end, for the route's template.
    """

    __slots__ = (
        "_begun",
        "_ended_at",
        "_find_route",
        "_is_logged",
        "_recorder",
        "client",
        "context",
        "error",
        "is_client_gone",
        "is_ended",
        "is_truncated",
        "method",
        "path",
        "route",
        "seconds",
        "sent_status",
        "status",
    )

    def __init__(
        self,
        recorder: Recorder,
        *,
        method: str,
        path: str,
        client: str,
        context: dict[str, str],
        find_route: Callable[[], str],
    ) -> None:
        self._begun = time.perf_counter()
        self._ended_at: float | None = None
        self._recorder = recorder
        self._find_route = find_route
        self._is_logged = False
        self.method = method
        self.path = path
        self.client = client
        self.context = context
        self.route = catalog.UNMATCHED_ROUTE
        self.sent_status: int | None = None
        self.status = 0
        self.seconds = 0.0
        self.error: BaseException | None = None
        self.is_ended = False
        self.is_client_gone = False
        self.is_truncated = False
        recorder.storage.opened("http")

    def response_started(self, status: object) -> None:
        """
        Note the status that was handed to the server, as a number, an enum or a WSGI status line.

        A later one replaces it, as a WSGI application may do before it has sent anything.
        """
        if not self.is_ended:
            self.sent_status = _code(status)

    def finished(self) -> None:
        """Note that the last byte was handed to the server."""
        self._end(SERVER_ERROR if self.sent_status is None else self.sent_status)
        # An application that has sent an error may be about to raise it, and its line should carry the
        # exception.
        if self.status < SERVER_ERROR:
            self._log()

    def client_gone(self) -> None:
        """Note that the client went away."""
        if not self.is_ended:
            self.is_client_gone = True
            self.is_truncated = self.sent_status is not None
            self._end(CLIENT_GONE if self.sent_status is None else self.sent_status)
        self._log()

    def left(self, error: BaseException | None = None) -> None:
        """Note that the application returned, or raised; it can add nothing to its answer from now on."""
        if not self.is_ended:
            self.error = error
            self._end(SERVER_ERROR)
        elif error is not None and not self._is_logged:
            self.error = error
        elif error is not None and not self.is_client_gone:
            self._contained(lambda: self._recorder.background_failed(self, error))
        self._log()

    def collected(self) -> None:
        """Note that nobody read the answer to its end, nor closed it."""
        if not self.is_ended:
            self.finished()
            self._log()

    def abandon(self) -> None:
        """Leave word that nobody will end this any more; safe in a finalizer. The next scrape calls `collected`."""
        if not self.is_ended:
            self._ended_at = time.perf_counter()
            self._recorder.storage.abandoned.append(self)

    def _end(self, status: int) -> None:
        if self.is_ended:
            return
        self.is_ended = True
        self.status = status
        # perf_counter can't go back, but a virtual machine's can stand still.
        self.seconds = max(0.0, (self._ended_at or time.perf_counter()) - self._begun)
        self._recorder.storage.closed("http")
        self._contained(self._count)

    def _count(self) -> None:
        try:
            self.route = self._find_route()
        finally:
            method = self.method if self.method in catalog.METHODS else catalog.OTHER_METHOD
            self._recorder.storage.observe((method, self.route, f"{self.status:03d}"), self.seconds)

    def _log(self) -> None:
        if not self._is_logged:
            self._is_logged = True
            self._contained(lambda: self._recorder.request_finished(self))

    def _contained(self, act: Callable[[], Any]) -> None:
        try:
            act()
        except Exception as error:
            self._recorder.fault(error)


def is_first_to_see(request: MutableMapping[str, Any], storage: Storage) -> bool:
    """
    Return whether no other middleware counts this request in the same storage, and sign it.

    An application that is mounted in another one, both instrumented, would count twice.
    """
    signed = request.get(_SIGNED, ())
    if storage in signed:
        return False
    request[_SIGNED] = (*signed, storage)
    return True


def _code(status: object) -> int:
    """Return a status as a number below 1000, and 0 for what is none."""
    try:
        code = int(status.split(None, 1)[0]) if isinstance(status, str) else int(status)  # type: ignore[call-overload]
    except Exception:  # Whatever the number that an application made up says of itself.
        return 0
    return int(code) if 0 <= code < 1000 else 0  # noqa: PLR2004
