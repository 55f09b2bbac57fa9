"""The one line that tells of a request, `request.finished`, and the lines that tell of what went wrong around it."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from scaleobs import logs

_SERVER_ERROR = 500


class AccessLog:
    """
    Writes of requests.

    Args:
        logger: a structlog logger.
        writes_lines: whether each request has its line; faults and failures behind an answer are always told.
    """

    def __init__(self, logger: Any, *, writes_lines: bool = True) -> None:
        self.logger = logger
        self.writes_lines = writes_lines
        self._told: set[str] = set()
        self._told_of_limit = False

    def websocket_closed(self, **fields: Any) -> None:
        """Write the one line of a WebSocket."""
        if self.writes_lines:
            self.logger.info("websocket.closed", **fields)

    def limit_reached(self, limit: int) -> None:
        """Write, once, that requests are counted in overflow series from now on, and never raise."""
        if self._told_of_limit:
            return
        self._told_of_limit = True
        fix = "look for routes that are not templates, or give instrument(max_label_sets=...) a higher number"
        with contextlib.suppress(Exception):
            self.logger.warning("label_sets.limit_reached", limit=limit, fix=fix)

    def fault(self, error: Exception) -> None:
        """Write a fault of scaleobs itself, once per kind and place, and never raise."""
        try:
            frames = error.__traceback__
            while frames is not None and frames.tb_next is not None:
                frames = frames.tb_next
            kind = f"{type(error).__name__} at {frames.tb_frame.f_code.co_qualname if frames else '?'}"
            if kind not in self._told:
                self._told.add(kind)
                self.logger.error("scaleobs.fault", kind=kind, exc_info=error)
        except Exception:  # noqa: S110 - There is nobody left to tell.
            pass


class AccessLine:
    """
    The line of one request.

    It is written when the request has ended; after an answer of 5xx, when the application has left, because it may be
    about to raise what the line should carry.

    Args:
        log: where it goes.
        context: what identifies the request in every log line.
        method: as the client sent it, like the path, which comes without its query.
        client: the client's address.
    """

    __slots__ = (
        "_client",
        "_error",
        "_fields",
        "_has_left",
        "_is_gone",
        "_is_written",
        "_log",
        "_method",
        "_path",
        "context",
    )

    def __init__(self, log: AccessLog, context: Mapping[str, str], *, method: str, path: str, client: str) -> None:
        self.context = context
        self._log = log
        self._method = method
        self._path = path
        self._client = client
        self._error: BaseException | None = None
        self._fields: dict[str, Any] = {}
        self._has_left = False
        self._is_gone = False
        self._is_written = False

    def client_gone(self) -> None:
        """Note that the client went away; what the application raises because of it is not told."""
        self._is_gone = True

    def ended(self, *, route: str, status: int, sent_status: int | None, seconds: float) -> None:
        """Note what was counted."""
        self._fields = {
            "method": self._method,
            "route": route,
            "path": self._path,
            "status_code": status,
            "duration_seconds": round(seconds, 6),
            "client": self._client,
        }
        if self._is_gone and sent_status is not None:
            self._fields["truncated"] = True
        if sent_status is not None and sent_status != status:
            self._fields["sent_status"] = sent_status
        if self._has_left or self._is_gone or status < _SERVER_ERROR:
            self._write()

    def left(self, error: BaseException | None) -> None:
        """Note that the application returned or raised."""
        self._has_left = True
        if self._is_written:
            if error is not None and not self._is_gone:
                route = {"method": self._method, "route": self._fields["route"]}
                self._log.logger.error("background.failed", **self.context, **route, exc_info=error)
                logs.mark_logged(error)
            return
        self._error = error
        if self._fields:
            self._write()

    def _write(self) -> None:
        self._is_written = True
        fields = {**self.context, **self._fields}
        if self._error is not None:
            fields["exc_info"] = self._error
        is_error = self._fields["status_code"] >= _SERVER_ERROR
        (self._log.logger.error if is_error else self._log.logger.info)("request.finished", **fields)
        if self._error is not None:
            logs.mark_logged(self._error)
