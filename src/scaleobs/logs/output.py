"""From records of stdlib logging to finished lines."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import islice
from typing import Any

import structlog
from structlog.typing import EventDict, Processor

from scaleobs.logs import chain, counts, encoding
from scaleobs.logs.stdout import stdout


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

    def handle(self, record: logging.LogRecord) -> None:  # type: ignore[override] # Nobody asks whether it was written.
        """Write a record that the filters let through, and never raise."""
        if self.filters:
            passed = self.filter(record)
            if not passed:
                return
            record = passed if isinstance(passed, logging.LogRecord) else record
        try:
            line = rendered(record, self._processors)
        except structlog.DropEvent:
            return
        level = _LEVELS.get(record.levelno)
        stdout.write(line, counts.level_of(record.levelno) if level is None else level)

    def emit(self, record: logging.LogRecord) -> None:
        """Do the same."""
        self.handle(record)


_LEVELS = {number: counts.level_of(number) for number in range(10, 60, 10)}
# What a record has before anything is added to it, what a formatter before ours leaves on it, and uvicorn's copy of a
# message with escape codes in it.
_USUAL = frozenset(logging.LogRecord("", 0, "", 0, "", (), None).__dict__)
_USUAL |= {"taskName", "message", "asctime", "color_message"}
_HOW_MANY = len(logging.LogRecord("", 0, "", 0, "", (), None).__dict__)
_methods: dict[str, str] = {}


def rendered(record: logging.LogRecord, processors: Sequence[Processor]) -> Any:
    """Return the line that the processors make of a record; one that they can't make any of is told as such."""
    method = _methods.get(record.levelname)
    if method is None:
        method = _methods[record.levelname] = record.levelname.lower()
    try:
        line: Any = _event_of(record)
        for processor in processors:
            line = processor(None, method, line)
    except structlog.DropEvent:
        raise
    except Exception as error:
        told = logging.LogRecord(record.name, logging.ERROR, "", 0, "", (), None)
        line = {"event": "log.unreadable", "reason": encoding.text(error), "message": encoding.text(record.msg)}
        line["_record"] = told
        for processor in chain.processors():
            line = processor(None, "error", line)
    return line


def _event_of(record: logging.LogRecord) -> EventDict:
    """Return what a record says, with what its `extra` brought."""
    fields = record.__dict__
    message = record.msg
    if type(message) is dict and "_name" in fields:  # By structlog's wrap_for_formatter.
        event: EventDict = {**message, "_record": record}
        fields = {key: value for key, value in fields.items() if key not in ("_name", "_logger", "_from_structlog")}
    elif type(message) is str and type(record) is logging.LogRecord:
        event = {"event": message % record.args if record.args else message, "_record": record}
    else:
        event = {"event": record.getMessage(), "_record": record}
    if fields["exc_info"]:
        event["exc_info"] = record.exc_info
    elif fields["exc_text"]:
        event["exception"] = record.exc_text
    if fields["stack_info"]:
        event["stack"] = record.stack_info
    if len(fields) != _HOW_MANY:
        # What was added to a record stands behind what it is made with.
        usual = _HOW_MANY if type(record) is logging.LogRecord and fields is record.__dict__ else 0
        for key, value in islice(fields.items(), usual, None):
            if key in event:
                chain.keep(event, key, value)
            elif key not in _USUAL:
                event[key] = value
    return event
