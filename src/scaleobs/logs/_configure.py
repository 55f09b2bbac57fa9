"""Connects structlog, stdlib logging and the servers' own loggers to the chain, reversibly."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, Self, TypedDict, Unpack

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor

from scaleobs.logs import _chain
from scaleobs.logs._encoding import traceback_of
from scaleobs.logs._logger import Hooks, Logger, Output, StdoutHandler
from scaleobs.logs._sink import LogFile, stdout
from scaleobs.settings import LogFormat, LogSchema, Settings, SettingsError

SERVER_LOGGERS = (
    *("uvicorn", "uvicorn.error", "uvicorn.asgi", "gunicorn.error"),
    *("hypercorn.error", "_granian"),
)
ACCESS_LOGGERS = ("uvicorn.access", "gunicorn.access", "hypercorn.access", "granian.access")
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
    root.handlers[:] = [*filter(_is_of_a_test_runner, root.handlers), StdoutHandler(chain)]
    root.setLevel(levels.default)
    for name, level in levels.by_name.items():
        before.save(name)
        logging.getLogger(name).setLevel(level)
    take_server_loggers()
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
    handlers = [one for one in logging.getLogger().handlers if isinstance(one, StdoutHandler)]
    return handlers[0] if handlers else StdoutHandler()


def is_configured() -> bool:
    """Return whether logging is configured, by the application or by scaleobs, but not only for the server."""
    if _process.is_for_server:
        return False
    return structlog.is_configured() or not all(map(_is_of_a_test_runner, logging.getLogger().handlers))


def take_server_loggers() -> None:
    """
    Pass the servers' lines to the root logger, and drop their access lines, if the root logger is configured by us.

    A server that is started with an application object configures its loggers after `instrument`, so this is called
    again when the application starts.
    """
    if not any(isinstance(handler, StdoutHandler) for handler in logging.getLogger().handlers):
        return
    for name in (*SERVER_LOGGERS, *ACCESS_LOGGERS):
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.propagate = name in SERVER_LOGGERS


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
    """Return the logger of scaleobs itself: structlog's if structlog is configured, otherwise one of stdlib logging."""
    if structlog.is_configured():
        return get_logger("scaleobs")
    return structlog.wrap_logger(
        logging.getLogger("scaleobs"),
        processors=[structlog.stdlib.render_to_log_kwargs],
        wrapper_class=structlog.stdlib.BoundLogger,
    )


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

    def restore(self) -> None:
        """Restore the former configuration; a second call changes nothing."""
        for undo in reversed(self._undo):
            undo()
        self._undo.clear()
        Logger.current, Logger.min_level = self._logger
        structlog.reset_defaults()
        if self._structlog is not None:
            structlog.configure(**self._structlog)
        for logger, handlers, level, propagate in reversed(self._loggers):
            logger.handlers[:] = handlers
            logger.setLevel(level)
            logger.propagate = propagate
        self._loggers.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.restore()


def _state_of(logger: logging.Logger) -> tuple[logging.Logger, list[logging.Handler], int, bool]:
    return logger, list(logger.handlers), logger.level, logger.propagate


class Levels(NamedTuple):
    """
    Levels by number.

    Attributes:
        default: of loggers without a level of their own.
        by_name: by the logger's name; they apply to the loggers below it, too.
    """

    default: int
    by_name: dict[str, int]

    @classmethod
    def read(cls, text: str) -> Levels:
        """Return the levels of a text such as `info,sqlalchemy.engine=debug`."""
        numbers = logging.getLevelNamesMapping()
        default, by_name = numbers["INFO"], {}
        for part in text.split(","):
            name, _, level = part.rpartition("=")
            if name:
                by_name[name] = numbers[level.upper()]
            else:
                default = numbers[level.upper()]
        return cls(default, by_name)

    def of(self, name: str) -> int:
        """Return the level of a logger."""
        while name:
            if name in self.by_name:
                return self.by_name[name]
            name = name.rpartition(".")[0]
        return self.default


class DropBelow:
    """Drops structlog's lines below the level of their logger: a processor."""

    def __init__(self, levels: Levels) -> None:
        self._levels = levels
        self._cache: dict[str, int] = {}

    def __call__(self, logger: Any, method: str, event: EventDict) -> EventDict:
        """
        Return the event.

        Raises:
            DropEvent: its level is too low.
        """
        name = getattr(logger, "name", "root")
        min_level = self._cache.get(name)
        if min_level is None:
            min_level = self._cache[name] = self._levels.of(name)
        if _NUMBERS.get(method, logging.CRITICAL) < min_level:
            raise structlog.DropEvent
        return event


_NUMBERS = {name.lower(): number for name, number in logging.getLevelNamesMapping().items()} | {"exception": 40}


class _Process:
    """
    The state of logging in this process.

    Attributes:
        is_for_server: whether logging is configured for the server only, so that an application configures it again.
    """

    is_for_server = False


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
        error = (type(exc_info), exc_info, traceback_of(exc_info)) if exc_info is not None else None
        record = logging.LogRecord(name, number, "", 0, event, (), error)
        record.__dict__.update(fields)
        if logging.getLogger(name).isEnabledFor(number):
            handler.emit(record)

    return write


def _is_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


def _is_of_a_test_runner(handler: logging.Handler) -> bool:
    """Return whether a handler is pytest's, which only captures records."""
    return type(handler).__module__.startswith("_pytest.")
