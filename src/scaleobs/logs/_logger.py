"""What turns log calls, records of stdlib logging, uncaught exceptions and warnings into lines."""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from types import FunctionType, TracebackType
from typing import Any, ClassVar, TextIO

import structlog
from structlog.typing import EventDict, Processor

from scaleobs.logs import _chain, _sink
from scaleobs.logs._encoding import text_of
from scaleobs.logs._odd_records import add_stack, readable, with_arguments
from scaleobs.logs._sink import slot_of, stdout


class Output:
    """
    A named logger at the end of structlog's chain; wrapper classes other than `Logger` call its methods.

    Args:
        name: the field `logger` of its lines.
    """

    __slots__ = ("name",)

    def __init__(self, name: str = "root", *_: Any) -> None:
        self.name = name

    def debug(self, line: str | bytes) -> None:
        """Write a line of this level."""
        stdout.write(line, _sink.DEBUG)

    def info(self, line: str | bytes) -> None:
        stdout.write(line, _sink.INFO)

    def warning(self, line: str | bytes) -> None:
        stdout.write(line, _sink.WARNING)

    def error(self, line: str | bytes) -> None:
        stdout.write(line, _sink.ERROR)

    def critical(self, line: str | bytes) -> None:
        stdout.write(line, _sink.CRITICAL)

    notset = debug
    msg = log = info
    warn = warning
    exception = failure = err = error
    fatal = critical


class Logger(structlog.make_filtering_bound_logger(logging.NOTSET)):  # type: ignore[misc]
    """
    structlog's bound logger with a shorter path to the line.

    structlog may cache it for good: a logger made under an earlier configuration uses the current one.

    Attributes:
        current: the processors of the current configuration.
        min_level: the number of the lowest level that is written.
    """

    current: ClassVar[Any] = None
    min_level: ClassVar[int] = logging.INFO

    def _proxy_to_logger(self, method_name: str, event: str | None = None, **fields: Any) -> Any:
        return getattr(self, method_name)(event, **fields)

    def is_enabled_for(self, level: int) -> bool:
        """Return whether lines of a level are written."""
        return level >= Logger.min_level

    def get_effective_level(self) -> int:
        """Return the number of the lowest level that is written."""
        return Logger.min_level


def _method(name: str, number: int) -> Callable[..., Any]:
    slot = slot_of(number)

    def log(self: Any, event: Any, *args: Any, stack_info: Any = False, **fields: Any) -> Any:
        processors = self._processors
        if processors is not Logger.current:
            return _current_method(self, name)(event, *args, stack_info=stack_info, **fields)
        if number < Logger.min_level:
            return None
        if stack_info is not False:
            add_stack(fields, stack_info)
        line: Any = {**self._context, **fields} if self._context else fields
        if args:
            event = _interpolate(event, args, line)
        line["event"] = event
        logger = self._logger
        try:
            for processor in processors:
                line = processor(logger, name, line)
        except structlog.DropEvent:
            return None
        except Exception as error:
            line = _unreadable(getattr(logger, "name", "root"), event, error)
        if type(line) is bytes or type(line) is str:
            return stdout.write(line, slot)
        # Other results of the last processor: as in structlog.
        args, fields = line if isinstance(line, tuple) else ((), line)
        return getattr(logger, name)(*args, **fields)

    # structlog's CallsiteParameterAdder skips frames of modules whose names start with `structlog`.
    made = FunctionType(log.__code__, {**globals(), "__name__": "structlog.scaleobs"}, name, None, log.__closure__)
    made.__kwdefaults__ = log.__kwdefaults__
    return made


def _current_method(logger: Any, name: str) -> Any:
    """Return the method of a logger with the same name and values under the current configuration."""
    made = structlog.get_logger(getattr(logger._logger, "name", "root")).bind(**logger._context)  # noqa: SLF001
    return getattr(made, name)


def _interpolate(event: Any, args: tuple[Any, ...], line: dict[str, Any]) -> Any:
    try:
        return event % (args[0] if len(args) == 1 and isinstance(args[0], Mapping) and args[0] else args)
    except Exception:
        line |= {"args_": line["args"]} if "args" in line else {}
        line |= with_arguments(event, args)
        return line["event"]


def _unreadable(name: str, message: Any, error: Exception) -> Any:
    """Return the line for an event in which a processor, or the message itself, raised."""
    logger = Output(name)
    line: Any = {"event": "log.unreadable", "reason": text_of(error), "message": text_of(message)}
    for processor in _chain.processors():
        line = processor(logger, "error", line)
    return line


for _name, _number in {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50, "notset": 0}.items():
    setattr(Logger, _name, _method(_name, _number))
Logger.msg, Logger.warn, Logger.fatal = Logger.info, Logger.warning, Logger.critical


# stdlib logging.


class JSONFormatter(logging.Formatter):
    """
    A `logging.Formatter` that makes one JSON object of a record, for the log configuration of a server.

    Args:
        service: a field of every line; `None` leaves it and the version out.
        version: a field of every line.
    """

    def __init__(self, *_: Any, service: str | None = None, version: str = "unknown", **__: Any) -> None:
        super().__init__()
        self._processors = _chain.processors(service, version)

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        line = render_record(record, self._processors)
        return line if isinstance(line, str) else line.decode()


class StdoutHandler(logging.Handler):
    """
    Writes records to stdout, through the same chain as structlog's lines.

    Args:
        processors: the chain; `None` is that of `scaleobs.logs.processors()`.
    """

    def __init__(self, processors: Sequence[Processor] | None = None) -> None:
        super().__init__()
        self._processors = _chain.processors() if processors is None else processors

    def createLock(self) -> None:  # noqa: N802 - The name of the standard library.
        """Have no lock: lines are whole without one, and a signal handler that logs must not wait for one."""
        self.lock: Any = None

    def handle(self, record: logging.LogRecord) -> None:  # type: ignore[override] # No caller uses the result.
        """Write a record that passes the filters; never raises."""
        if self.filters:
            passed = self.filter(record)
            if not passed:
                return
            record = passed if isinstance(passed, logging.LogRecord) else record
        try:
            line = render_record(record, self._processors)
        except structlog.DropEvent:
            return
        try:
            slot = _SLOTS.get(record.levelno)
            slot = slot_of(record.levelno) if slot is None else slot
        except Exception:  # A record without a level.
            slot = _sink.INFO
        stdout.write(line, slot)

    def emit(self, record: logging.LogRecord) -> None:
        """Call `handle`."""
        self.handle(record)


_SLOTS = {number: slot_of(number) for number in range(10, 60, 10)}
# The fields of each record, those that another formatter leaves on it, and uvicorn's copy of a message with escape
# codes.
_STANDARD_FIELDS = frozenset(logging.LogRecord("", 0, "", 0, "", (), None).__dict__)
_STANDARD_FIELDS |= {"taskName", "message", "asctime", "color_message"}
_FIELD_COUNT = len(logging.LogRecord("", 0, "", 0, "", (), None).__dict__)
_method_names: dict[str, str] = {}
_MAX_METHOD_NAMES = 100


def render_record(record: logging.LogRecord, processors: Sequence[Processor]) -> Any:
    """
    Return the line that the processors make of a record, or one with the error that they raised.

    Raises:
        DropEvent: a processor drops the record.
    """
    try:
        method = _method_names.get(record.levelname)
        if method is None:
            fixed = readable(record)
            if fixed is not None:
                return render_record(fixed, processors)
            method = record.levelname.lower()
            if len(_method_names) < _MAX_METHOD_NAMES:
                _method_names[record.levelname] = method
        line: Any = _event_of(record)
        for processor in processors:
            line = processor(None, method, line)
    except structlog.DropEvent:
        raise
    except Exception as error:
        fixed = readable(record)
        if fixed is not None:
            return render_record(fixed, processors)
        return _unreadable(record.name, record.msg, error)
    return line


def _event_of(record: logging.LogRecord) -> EventDict:
    """Return the event of a record, with the fields of its `extra`."""
    fields = record.__dict__
    message = record.msg
    try:
        if type(message) is dict and "_name" in fields:  # From structlog's wrap_for_formatter.
            event: EventDict = {**message, "_record": record}
            fields = {key: value for key, value in fields.items() if key not in ("_name", "_logger", "_from_structlog")}
        elif type(message) is str and type(record) is logging.LogRecord:
            event = {"event": message % record.args if record.args else message, "_record": record}
        else:
            event = {"event": record.getMessage(), "_record": record}
    except Exception:
        event = {**with_arguments(message, record.args), "_record": record}
    if fields["exc_info"]:
        event["exc_info"] = record.exc_info
    elif fields["exc_text"]:
        event["exception"] = record.exc_text
    if fields["stack_info"]:
        event["stack"] = record.stack_info
    if len(fields) != _FIELD_COUNT:
        _add_extra(event, record, fields)
    return event


def _add_extra(event: EventDict, record: logging.LogRecord, fields: dict[str, Any]) -> None:
    # Added fields come after those that a record is made with.
    first_added = _FIELD_COUNT if type(record) is logging.LogRecord and fields is record.__dict__ else 0
    for key, value in islice(fields.items(), first_added, None):
        if key in event:
            _chain.add_renamed(event, key, value)
        elif key not in _STANDARD_FIELDS:
            event[key] = value


# Python's hooks.

WriteEvent = Callable[..., None]
"""Writes one line: takes the level, the logger's name and the event, and fields by name."""


class Hooks:
    """
    Logs uncaught exceptions and warnings, which Python would print to stderr.

    The hooks of other libraries are called as well. asyncio logs the exceptions of its tasks itself (`asyncio`).

    Args:
        write: writes a line.
    """

    def __init__(self, write: WriteEvent) -> None:
        self._write = write
        self._previous: tuple[Callable[..., Any], ...] = ()

    def install(self) -> Callable[[], None]:
        """Set the hooks, and return a function that sets the previous ones."""
        before: tuple[Any, ...] = sys.excepthook, threading.excepthook, sys.unraisablehook, warnings.showwarning
        self._previous = tuple(map(_foreign, before))
        sys.excepthook = self._uncaught
        threading.excepthook = self._uncaught_in_thread
        sys.unraisablehook = self._unraisable
        warnings.showwarning = self._warned

        def restore() -> None:
            sys.excepthook, threading.excepthook, sys.unraisablehook, warnings.showwarning = before

        return restore

    def _uncaught(self, kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if hasattr(sys, "ps1"):  # An interactive interpreter.
            sys.__excepthook__(kind, error, traceback)
            return
        level = "info" if issubclass(kind, KeyboardInterrupt) else "critical"
        self._write(level, "root", "exception.uncaught", exc_info=BaseException.with_traceback(error, traceback))
        self._previous[0](kind, error, traceback)

    def _uncaught_in_thread(self, args: threading.ExceptHookArgs) -> None:
        if args.exc_type is SystemExit:
            return
        error = _error_of(args)
        thread = args.thread.name if args.thread is not None else None
        self._write("error", "threading", "exception.uncaught", thread=thread, exc_info=error)
        self._previous[1](args)

    def _unraisable(self, args: Any) -> None:
        error = _error_of(args)
        reason = args.err_msg or "Exception ignored in"
        self._write("error", "root", "exception.ignored", reason=reason, where=text_of(args.object), exc_info=error)
        self._previous[2](args)

    def _warned(  # noqa: PLR0917 - The signature of the standard library.
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if file is not None:
            file.write(warnings.formatwarning(message, category, filename, lineno, line))
            return
        fields = {"category": category.__name__, "file": filename, "line": lineno}
        self._write("warning", "py.warnings", text_of(message), **fields)


def _error_of(args: Any) -> BaseException:
    """Return the exception of a hook's argument, which may have its class only."""
    kind: type[BaseException] = args.exc_type
    return args.exc_value if args.exc_value is not None else kind.__new__(kind)


def _foreign(hook: Callable[..., Any]) -> Callable[..., Any]:
    """Return a hook of another library, and a function without effect for `Hooks` and for Python's own, which print."""
    own = (sys.__excepthook__, threading.__excepthook__, sys.__unraisablehook__)
    if hook in own or isinstance(getattr(hook, "__self__", None), Hooks):
        return lambda *_: None
    return hook
