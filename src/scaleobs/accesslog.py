"""The one line of a request, `request.finished`, and the lines of what went wrong around it."""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import structlog

from scaleobs import logs
from scaleobs.logs import counts
from scaleobs.logs.logger import Logger, Output
from scaleobs.logs.stdout import stdout

SLOW_SECONDS = 1.0
"""From when a request is slow where no objective says so."""

_ERROR, _SERVER_ERROR = 400, 500


class AccessLog:
    """
    Writes of requests.

    Args:
        logger: a structlog logger.
        writes_lines: whether each request has its line; faults and failures behind an answer are always told.
        levels: of that line by status, or class of statuses such as `4xx`.
        sample: which share of successful requests has one, by route; `*` is for the others.
        slow_seconds: what takes longer than this always has one.
    """

    def __init__(
        self,
        logger: Any,
        *,
        writes_lines: bool = True,
        levels: Mapping[str, str] = MappingProxyType({}),
        sample: Mapping[str, float] = MappingProxyType({}),
        slow_seconds: float = SLOW_SECONDS,
    ) -> None:
        self.logger = logger
        self.writes_lines = writes_lines
        self._levels = ["info"] * _SERVER_ERROR + ["error"] * _SERVER_ERROR
        for status in sorted(levels, reverse=True):  # A class of statuses before each of them.
            code = int(status.replace("x", "0"))
            self._levels[code : code + (100 if "x" in status else 1)] = [levels[status]] * (100 if "x" in status else 1)
        self._sample = sample
        self._slow_seconds = slow_seconds
        self._write: Callable[[str, dict[str, Any]], None] = self._by_logger
        self._told: set[str] = set()
        self._told_of_limit = False

    def renew_writer(self) -> None:
        """Write as logging is configured now, which takes longer to find out than to write a line; never raises."""
        with contextlib.suppress(Exception):
            self._write = access_writer("scaleobs") or self._by_logger

    def request_finished(self, fields: dict[str, Any], error: BaseException | None = None) -> None:
        """Write the line of a request, with what the application raised; `fields` has its event and is its to keep."""
        if self._sample and self._is_left_out(fields):
            return
        if error is not None:
            fields["exc_info"] = error
        self._write(self._levels[fields["status_code"]], fields)
        if error is not None:
            logs.mark_logged(error)

    def background_failed(self, fields: dict[str, Any], error: BaseException) -> None:
        """Write what the application raised after the line of its request was written."""
        self.logger.error("background.failed", **fields, exc_info=error)
        logs.mark_logged(error)

    def websocket_closed(self, fields: dict[str, Any], error: BaseException | None = None) -> None:
        """Write the one line of a WebSocket, with what the application raised while it was open."""
        if not self.writes_lines:
            return
        if isinstance(error, Exception):
            self.logger.error("websocket.closed", **fields, exc_info=error)
            logs.mark_logged(error)
        else:
            self.logger.info("websocket.closed", **fields)

    def _by_logger(self, level: str, fields: dict[str, Any]) -> None:
        getattr(self.logger, level)(fields.pop("event"), **fields)

    def _is_left_out(self, fields: dict[str, Any]) -> bool:
        """Return whether a request is one of the many that went as they should."""
        if fields["status_code"] >= _ERROR or fields["duration_seconds"] > self._slow_seconds or "truncated" in fields:
            return False
        share = self._sample.get(fields["route"], self._sample.get("*", 1.0))
        return share < 1 and random.random() >= share  # noqa: S311

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


def access_writer(name: str) -> Callable[[str, dict[str, Any]], None] | None:
    """
    Return what writes an event with a level through the configured chain, or `None` if that isn't scaleobs's.

    structlog's loggers pass the fields of a line on as keyword arguments, three times, which takes a third of what the
    line takes. The writer has the configuration of this moment: a change needs another one.

    Args:
        name: shown as `logger`.
    """
    config = structlog.get_config()
    processors, least = config["processors"], Logger.least
    if config["logger_factory"] is not Output or config["wrapper_class"] is not Logger:
        return None
    output, put = Output(name), stdout.write
    numbers = logging.getLevelNamesMapping()
    places = {level: place for level, place in counts.LEVELS.items() if numbers[level.upper()] >= least}

    def write(level: str, event: dict[str, Any]) -> None:
        place = places.get(level)
        if place is None:
            return
        line: Any = event
        try:
            for processor in processors:
                line = processor(output, level, line)
        except structlog.DropEvent:
            return
        put(line, place)

    return write
