"""From records and events to finished lines: the ends of stdlib logging's way and of structlog's."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from typing import Any

import structlog
from structlog.typing import EventDict, Processor

from scaleobs.logs import chain, counts, encoding
from scaleobs.logs.stdout import write


class Output:
    """
    A named logger at the end of structlog's chain.

    Args:
        name: shown as `logger`.
    """

    def __init__(self, name: str = "root", *_: Any) -> None:
        self.name = name

    def debug(self, line: str | bytes) -> None:
        """Write a line of this level, as the others do."""
        write(line, counts.DEBUG)

    def info(self, line: str | bytes) -> None:  # noqa: D102
        write(line, counts.INFO)

    def warning(self, line: str | bytes) -> None:  # noqa: D102
        write(line, counts.WARNING)

    def error(self, line: str | bytes) -> None:  # noqa: D102
        write(line, counts.ERROR)

    def critical(self, line: str | bytes) -> None:  # noqa: D102
        write(line, counts.CRITICAL)

    notset = debug
    msg = log = info
    warn = warning
    exception = failure = err = error
    fatal = critical


class JSONFormatter(logging.Formatter):
    """
    A `logging.Formatter` that makes one JSON object of a record, for the log configuration of a server.

    Args:
        service: added to every line; left out where it is not given.
        version: added beside it.
    """

    def __init__(self, *_: Any, service: str | None = None, version: str = "unknown", **__: Any) -> None:
        super().__init__()
        self._processors = chain.processors(service, version)

    def format(self, record: logging.LogRecord) -> str:
        """Return a record as a line, whatever is in it."""
        line = rendered(record, self._processors)
        return line if isinstance(line, str) else line.decode()


class StdoutHandler(logging.Handler):
    """
    Writes records to stdout, as structlog's lines are.

    Args:
        processors: what makes a line of a record.
    """

    def __init__(self, processors: Sequence[Processor] | None = None) -> None:
        super().__init__()
        self._processors = chain.processors() if processors is None else processors

    def createLock(self) -> None:  # noqa: N802 - The standard library's.
        """Have no lock: lines are whole without one, and a signal's handler that logs waits for none."""
        self.lock = None

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, and never raise."""
        with contextlib.suppress(structlog.DropEvent):
            write(rendered(record, self._processors), counts.level_of(record.levelno))


# What a record has before anything is added to it.
_USUAL = frozenset(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {"taskName"}
_HOW_MANY = len(logging.LogRecord("", 0, "", 0, "", (), None).__dict__)
# What a formatter before ours leaves on the record.
_LEFT = ("message", "asctime")
_level_names: dict[str, str] = {}


def rendered(record: logging.LogRecord, processors: Sequence[Processor]) -> Any:
    """Return the line that the processors make of a record; one that they can't make any of is told as such."""
    try:
        return _run(_event_of(record), record, processors)
    except structlog.DropEvent:
        raise
    except Exception as error:
        told = logging.LogRecord(record.name, logging.ERROR, "", 0, "", (), None)
        event = {"event": "log.unreadable", "reason": encoding.text(error), "message": encoding.text(record.msg)}
        return _run({**event, "_record": told}, told, chain.processors())


def _run(event: EventDict, record: logging.LogRecord, processors: Sequence[Processor]) -> Any:
    name = record.levelname
    method = _level_names.get(name) or _level_names.setdefault(name, name.lower())
    line: Any = event
    for processor in processors:
        line = processor(None, method, line)
    return line


def _event_of(record: logging.LogRecord) -> EventDict:
    """Return what a record says, with what its `extra` brought."""
    event: EventDict
    fields = record.__dict__
    if isinstance(record.msg, dict) and "_name" in fields:  # By structlog's wrap_for_formatter.
        event = {**record.msg, "_record": record}
        fields = {key: value for key, value in fields.items() if key not in ("_name", "_logger", "_from_structlog")}
    else:
        event = {"event": record.getMessage(), "_record": record}
    if record.exc_info:
        event["exc_info"] = record.exc_info
    elif record.exc_text:
        event["exception"] = record.exc_text
    if record.stack_info:
        event["stack"] = record.stack_info
    if len(fields) != _HOW_MANY:
        for key, value in fields.items():
            if key not in _USUAL and key not in _LEFT:
                chain.keep(event, key, value)
    return event
