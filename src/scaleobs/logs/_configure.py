"""Connects structlog, stdlib logging and the servers' own loggers to the chain, reversibly."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any, Self, TypedDict, Unpack

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor

from scaleobs.logs import _chain
from scaleobs.logs._encoding import text_of
from scaleobs.logs._exceptions import as_exc_info, exception_text, is_printable
from scaleobs.logs._files import LogFile
from scaleobs.logs._handlers import (
    configured_by,
    is_console,
    is_of_a_test_runner,
    reads_fields,
    replaced,
    writes_twice,
)
from scaleobs.logs._levels import DropBelow, Levels
from scaleobs.logs._logger import Hooks, Logger, Output, StdoutHandler
from scaleobs.logs._redaction import Redact
from scaleobs.logs._sink import stdout
from scaleobs.settings import LogFormat, LogSchema, Settings, SettingsError

SERVER_LOGGERS = (
    *("uvicorn", "uvicorn.error", "uvicorn.asgi", "gunicorn.error"),
    *("hypercorn.error", "_granian"),
)
ACCESS_LOGGERS = (
    *("uvicorn.access", "gunicorn.access", "hypercorn.access", "granian.access"),
    *("sanic.access", "django.server", "django.channels.server"),
)
"""The servers' loggers of access lines; `request.finished` replaces these lines."""


class LogSettings(TypedDict, total=False):
    """The keyword arguments of `configure_logging`; see `Settings`."""

    service: str
    version: str
    log_format: LogFormat
    log_level: str
    log_schema: LogSchema
    log_redact: Iterable[str]
    log_file: str | os.PathLike[str] | None


def configure_logging(
    *, processors: Iterable[Processor] | None = None, **settings: Unpack[LogSettings]
) -> LoggingState:
    """
    Write the lines of structlog, stdlib logging and servers, warnings and uncaught exceptions to stdout.

    Each line is one JSON object. This may be called again: the last call applies. `instrument` calls it if logging is
    not configured. The result restores the former configuration. Not thread-safe.

    Args:
        processors: the chain; `None` is that of `scaleobs.logs.processors`.
        settings: `service`, `version`, `log_format`, `log_level`, `log_schema`, `log_redact` and `log_file`, as for
            `instrument`; the environment has those that are not given.

    Raises:
        SettingsError: a value is invalid.
    """
    return configure_for(Settings.read(settings), processors)


def configure_for(settings: Settings, processors: Iterable[Processor] | None = None) -> LoggingState:
    """Do the same as `configure_logging`, with finished settings."""
    before = LoggingState()
    if settings.log_format == "off":
        return before
    levels = Levels.read(settings.log_level)
    if processors is not None:
        chain = list(processors)
    elif settings.log_format == "console" or (settings.log_format == "auto" and _is_terminal()):
        chain = _chain.console(settings.log_redact)
    else:
        chain = _chain.processors(
            settings.service, settings.version, schema=settings.log_schema, redact=settings.log_redact
        )
    _open_file(settings.log_file, before)
    write = _event_writer(chain)
    before.on_restore(Hooks(write).install())
    _set_report_lost(write, before)
    Logger.current = [DropBelow(levels), *chain] if levels.by_name else list(chain)
    Logger.min_level = min(levels.default, *levels.by_name.values(), logging.CRITICAL)
    structlog.configure(
        processors=Logger.current, wrapper_class=Logger, logger_factory=Output, cache_logger_on_first_use=True
    )
    root = logging.getLogger()
    root.handlers[:] = [*replaced("root", root.handlers), StdoutHandler(chain)]
    root.setLevel(levels.default)
    for name, level in levels.by_name.items():
        before.save(name)
        logging.getLogger(name).setLevel(level)
    _process.state = before
    take_loggers()
    _set_for_server(is_for_server=False, before=before)
    return before


def server_handler() -> logging.Handler:
    """
    Configure logging for the server's own process, and return the handler; a server's log configuration names this.

    An application that the server loads later configures logging for itself.
    """
    settings = Settings.read({})
    configure_for(settings)
    _process.is_for_server = settings.log_format != "off"
    if logging.basicConfig is _basic_config:
        logging.basicConfig = _basic_config_of_application
    handlers = [one for one in logging.getLogger().handlers if isinstance(one, StdoutHandler)]
    return handlers[0] if handlers else StdoutHandler()


_basic_config = logging.basicConfig


def _basic_config_of_application(**settings: Any) -> None:
    """Do what `logging.basicConfig` does without the server's handler, with which it would do nothing."""
    root = logging.getLogger()
    if _process.is_for_server:
        before, root.handlers = root.handlers, [one for one in root.handlers if not isinstance(one, StdoutHandler)]
        try:
            _basic_config(**settings)
        finally:
            root.handlers = root.handlers or before
    else:
        _basic_config(**settings)


def is_configured() -> bool:
    """Return whether logging is configured by a call: not by a framework itself, nor for the server only."""
    is_ours = structlog.is_configured() and structlog.get_config()["wrapper_class"] is Logger
    return (is_ours and not _process.is_for_server) or bool(_configured_by())


def _configured_by() -> str:
    """Return what the application has configured logging with, as a text, or an empty one."""
    if structlog.is_configured() and structlog.get_config()["wrapper_class"] is not Logger:
        return "structlog.configure"
    return configured_by()


def take_loggers() -> None:
    """
    Pass the lines of all loggers to the root logger, once, if the root logger is configured by us.

    A server that is started with an application object, or a framework, may configure its loggers after `instrument`,
    so this is called again when the application starts. Servers' access lines are dropped.
    """
    if not any(isinstance(handler, StdoutHandler) for handler in logging.getLogger().handlers):
        return
    for name in (*SERVER_LOGGERS, *ACCESS_LOGGERS):
        server = logging.getLogger(name)
        server.handlers = []
        server.propagate = name in SERVER_LOGGERS
        server.disabled = False  # `dictConfig` disables loggers that it does not name.
    for name, logger in list[tuple[str, Any]](logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and logger.handlers:
            with contextlib.suppress(Exception):  # A handler of the application raised.
                _take_logger(name, logger)


def _take_logger(name: str, logger: logging.Logger) -> None:
    if writes_twice(logger):
        if _process.state is not None:
            _process.state.save(name)
        logger.handlers = replaced(name, logger.handlers)
        logger.propagate = True


def get_logger(name: str | None = None, **values: Any) -> FilteringBoundLogger:
    """
    Return a structlog logger whose lines have the fields of the current request. Thread-safe.

    Args:
        name: the field `logger`; without it, `root`.
        values: fields of each of its lines.
    """
    logger: FilteringBoundLogger = structlog.get_logger(name or "root", **values)
    return logger


def own_logger() -> Any:
    """
    Return the logger of scaleobs itself: structlog's if structlog is configured, otherwise one of stdlib logging.

    Handlers that export records receive only those of stdlib logging.
    """
    if structlog.is_configured() and not has_exporters():
        return get_logger("scaleobs")
    return structlog.wrap_logger(
        logging.getLogger("scaleobs"),
        processors=[_pass_exception, _rename_reserved, _show_fields, structlog.stdlib.render_to_log_kwargs],
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def has_exporters() -> bool:
    """Return whether logging is configured by us, beside handlers that write to no console."""
    handlers = logging.getLogger().handlers
    if len(handlers) < 2 or not any(isinstance(one, StdoutHandler) for one in handlers):  # noqa: PLR2004
        return False
    return not all(isinstance(one, StdoutHandler) or is_of_a_test_runner(one) for one in handlers)


def _pass_exception(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Pass an exception on in a form that logging reads without its methods, or as a text if they raise."""
    error = event.get("exc_info")
    if isinstance(error, BaseException):
        event["exc_info"] = as_exc_info(error)
        if not is_printable(error):
            del event["exc_info"]
            event["exception"] = exception_text(error)[0]
    return event


def _rename_reserved(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Add an underscore to the names of fields that stdlib logging refuses."""
    return {f"{key}_" if key in _RESERVED else key: value for key, value in event.items()}


def _show_fields(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Add the fields to the message, without secrets, if a handler of the console does not show those of `extra`."""
    handlers = [(one, one.formatter) for one in logging.getLogger().handlers]
    probed, are_shown = _process.probed
    if probed != handlers:  # To probe them costs as much as a line.
        are_shown = all(reads_fields(one) for one, _ in handlers if is_console(one))
        _process.probed = handlers, are_shown
    if are_shown:
        return event
    fields = {key: value for key, value in event.items() if key not in ("event", "exc_info")}
    shown = [f"{key}={_quoted(text_of(value))}" for key, value in _redact(_logger, _method, fields).items()]
    return {**event, "event": " ".join([event["event"], *shown])}


def _quoted(text: str) -> str:
    return json.dumps(text) if not text or any(one in text for one in ' "=') or not text.isprintable() else text


_redact = Redact()
_RESERVED = frozenset({*logging.LogRecord("", 0, "", 0, "", (), None).__dict__, "message", "asctime"}) - {"exc_info"}


def leave_alone() -> None:
    """Keep the user's configuration of logging, and log once which setting would replace it; never raises."""
    source = _configured_by()
    if _process.is_for_server and _process.state is not None:  # What `scaleobs run` has configured for the server.
        _process.is_for_server = False
        _process.state.undo()
    if _process.is_reported or not source:
        return
    _process.is_reported = True
    fix = "log_format='json' writes all lines as JSON; log_format='off' ends this line and those of requests"
    level = logging.getLevelName(logging.getLogger("scaleobs").getEffectiveLevel()).lower()
    with contextlib.suppress(Exception):
        own_logger().warning("logging.left_alone", configured_by=source, lowest_level=level, fix=fix)


class LoggingState:
    """The configuration of logging before a change; `restore`, or the end of a `with` block, restores it."""

    def __init__(self) -> None:
        self._logger = Logger.current, Logger.min_level
        self._structlog = structlog.get_config() if structlog.is_configured() else None
        names = (None, *SERVER_LOGGERS, *ACCESS_LOGGERS)
        self._loggers = [_state_of(logging.getLogger(name)) for name in names]
        self._undo: list[Callable[[], None]] = []

    def save(self, name: str) -> None:
        """Save the state of one more logger."""
        self._loggers.append(_state_of(logging.getLogger(name)))

    def on_restore(self, undo: Callable[[], None]) -> None:
        """Call a function at `restore`; the last one is called first."""
        self._undo.append(undo)

    def undo(self) -> None:
        """Restore everything but the loggers, unless structlog was configured since."""
        for undo in reversed(self._undo):
            undo()
        self._undo.clear()
        if structlog.get_config()["wrapper_class"] is Logger:
            self._restore_structlog()

    def _restore_structlog(self) -> None:
        Logger.current, Logger.min_level = self._logger
        structlog.reset_defaults()
        if self._structlog is not None:
            structlog.configure(**self._structlog)

    def restore(self) -> None:
        """Restore the former configuration; a second call changes nothing."""
        self.undo()
        self._restore_structlog()
        for logger, handlers, level, propagate, disabled in reversed(self._loggers):
            logger.handlers[:] = handlers
            logger.setLevel(level)
            logger.propagate, logger.disabled = propagate, disabled
        self._loggers.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.restore()


def _state_of(logger: logging.Logger) -> tuple[logging.Logger, list[logging.Handler], int, bool, bool]:
    return logger, list(logger.handlers), logger.level, logger.propagate, logger.disabled


class _Process:
    """
    The state of logging in this process.

    Attributes:
        is_for_server: whether logging is configured for the server only, so that an application configures it again.
        is_reported: whether a line with the configuration that stays was written.
        state: what the latest configuration has replaced.
        probed: the handlers of the root logger with their formatters, and whether their lines have all fields.
    """

    is_for_server = False
    is_reported = False
    state: LoggingState | None = None
    probed: tuple[list[tuple[logging.Handler, logging.Formatter | None]], bool] = ([], True)


_process = _Process()


def _set_for_server(*, is_for_server: bool, before: LoggingState) -> None:
    previous = _process.is_for_server

    def restore() -> None:
        _process.is_for_server = previous

    _process.is_for_server = is_for_server
    before.on_restore(restore)


def _set_report_lost(write: Callable[..., None], before: LoggingState) -> None:
    previous = stdout.report_lost

    def report_lost(lost: int) -> None:
        write("warning", "scaleobs", "log.lines_lost", lines=lost)

    def restore() -> None:
        stdout.report_lost = previous

    stdout.report_lost = report_lost
    before.on_restore(restore)


def _open_file(path: str | None, before: LoggingState) -> None:
    previous = stdout.file
    try:
        stdout.file = None if path is None else LogFile(path)
    except OSError as error:
        msg = f"log_file is {path!r}: it can't be opened ({error.strerror}). Give a file that can be written."
        raise SettingsError(msg) from None

    def restore() -> None:
        if stdout.file is not None:
            stdout.file.close()
        stdout.file = previous

    before.on_restore(restore)


def _event_writer(chain: list[Processor]) -> Callable[..., None]:
    """Return a function that writes a line through this chain, even if structlog is configured otherwise later."""
    handler = StdoutHandler(chain)

    def write(level: str, name: str, event: str, *, exc_info: BaseException | None = None, **fields: Any) -> None:
        number = logging.getLevelNamesMapping()[level.upper()]
        error = as_exc_info(exc_info) if exc_info is not None else None
        record = logging.LogRecord(name, number, "", 0, event, (), error)
        record.__dict__.update(fields)
        if logging.getLogger(name).isEnabledFor(number):
            handler.emit(record)

    return write


def _is_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()
