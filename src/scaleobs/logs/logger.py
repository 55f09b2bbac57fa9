"""structlog's logger, in less: the same methods, the same processors, and a line at the end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any, ClassVar

import structlog

from scaleobs.logs import chain, counts, encoding
from scaleobs.logs.stdout import stdout


class Output:
    """
    A named logger at the end of structlog's chain, for wrapper classes other than `Logger`.

    Args:
        name: shown as `logger`.
    """

    __slots__ = ("name",)

    def __init__(self, name: str = "root", *_: Any) -> None:
        self.name = name

    def debug(self, line: str | bytes) -> None:
        """Write a line of this level, as the others do."""
        stdout.write(line, counts.DEBUG)

    def info(self, line: str | bytes) -> None:  # noqa: D102
        stdout.write(line, counts.INFO)

    def warning(self, line: str | bytes) -> None:  # noqa: D102
        stdout.write(line, counts.WARNING)

    def error(self, line: str | bytes) -> None:  # noqa: D102
        stdout.write(line, counts.ERROR)

    def critical(self, line: str | bytes) -> None:  # noqa: D102
        stdout.write(line, counts.CRITICAL)

    notset = debug
    msg = log = info
    warn = warning
    exception = failure = err = error
    fatal = critical


class Logger(structlog.make_filtering_bound_logger(logging.NOTSET)):  # type: ignore[misc]
    """
    A bound logger that structlog may keep for good: one that was made under an earlier configuration goes by today's.

    Attributes:
        current: the processors of today's configuration.
        least: the number of the least severe level that is written.
    """

    current: ClassVar[Any] = None
    least: ClassVar[int] = logging.INFO

    def _proxy_to_logger(self, method_name: str, event: str | None = None, **fields: Any) -> Any:
        return getattr(self, method_name)(event, **fields)

    def is_enabled_for(self, level: int) -> bool:
        """Return whether lines of a level are written."""
        return level >= Logger.least

    def get_effective_level(self) -> int:
        """Return the least severe level that is written."""
        return Logger.least


def _method(name: str, number: int) -> Callable[..., Any]:
    place = counts.level_of(number)

    def log(self: Any, event: Any, *args: Any, **fields: Any) -> Any:
        processors = self._processors
        if processors is not Logger.current:
            return _todays(self, name)(event, *args, **fields)
        if number < Logger.least:
            return None
        line: Any = {**self._context, **fields} if self._context else fields
        if args:
            event = _interpolated(event, args, line)
        line["event"] = event
        logger = self._logger
        try:
            for processor in processors:
                line = processor(logger, name, line)
        except structlog.DropEvent:
            return None
        except Exception as error:
            line = _unreadable(logger, event, error)
        if type(line) is bytes or type(line) is str:
            return stdout.write(line, place)
        # As structlog does with what its last processor may return.
        args, fields = line if isinstance(line, tuple) else ((), line)
        return getattr(logger, name)(*args, **fields)

    # structlog's CallsiteParameterAdder tells of the first frame that isn't structlog's.
    return FunctionType(log.__code__, {**globals(), "__name__": "structlog.scaleobs"}, name, None, log.__closure__)


def _todays(logger: Any, name: str) -> Any:
    """Return a method of the logger that today's configuration makes of one that an earlier one has made."""
    made = structlog.get_logger(getattr(logger._logger, "name", "root")).bind(**logger._context)  # noqa: SLF001
    return getattr(made, name)


def _interpolated(event: Any, args: tuple[Any, ...], line: dict[str, Any]) -> Any:
    try:
        return event % (args[0] if len(args) == 1 and isinstance(args[0], Mapping) and args[0] else args)
    except Exception:  # They don't fit. The line has them, and the application goes on.
        line["args"] = args
        return event


def _unreadable(logger: Any, event: Any, error: Exception) -> Any:
    line: Any = {"event": "log.unreadable", "reason": encoding.text(error), "message": encoding.text(event)}
    for processor in chain.processors():
        line = processor(logger, "error", line)
    return line


for _name, _number in {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50, "notset": 0}.items():
    setattr(Logger, _name, _method(_name, _number))
Logger.msg, Logger.warn, Logger.fatal = Logger.info, Logger.warning, Logger.critical
