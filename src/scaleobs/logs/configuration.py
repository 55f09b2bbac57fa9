"""Connects structlog, stdlib logging and the servers' own loggers to the chain."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable
from typing import Any, TypedDict, Unpack

import structlog
from structlog.typing import Processor

from scaleobs.logs import chain
from scaleobs.logs.configured import ACCESS_LOGGERS, SERVER_LOGGERS, Configured
from scaleobs.logs.levels import DropBelow, Levels
from scaleobs.logs.output import Output, StdoutHandler
from scaleobs.logs.stdout import LogFile, stdout
from scaleobs.logs.uncaught import Hooks
from scaleobs.settings import Settings, SettingsError


class LogSettings(TypedDict, total=False):
    """The keyword arguments of `configure_logging`; see `Settings`."""

    service: str
    version: str
    log_format: str
    log_level: str
    log_schema: str
    log_redact: Iterable[str]
    log_file: str | None


def configure_logging(*, processors: Iterable[Processor] | None = None, **settings: Unpack[LogSettings]) -> Configured:
    """
    Send structlog, stdlib logging, warnings, uncaught exceptions and the servers' own lines to stdout.

    Each is one JSON object on a line. May be called again; the last call counts. `instrument` calls it unless logging
    was configured already. What it returns makes logging what it was before.

    Args:
        processors: the chain, where it is to be another one than `scaleobs.logs.processors` returns.
        settings: `service`, `version`, `log_format`, `log_level`, `log_schema`, `log_redact` and `log_file`, as
            `instrument` takes them, from the environment where they aren't given.

    Raises:
        SettingsError: a value can't be used.
    """
    return configure_for(Settings.read(settings), processors)


def configure_for(settings: Settings, processors: Iterable[Processor] | None = None) -> Configured:
    """Do what `configure_logging` does, by settings that have been read."""
    before = Configured()
    levels = Levels.read(settings.log_level)
    if processors is not None:
        rendering = list(processors)
    elif settings.log_format == "console" or (settings.log_format == "auto" and _is_terminal()):
        rendering = chain.console(settings.log_redact)
    else:
        rendering = chain.processors(
            settings.service, settings.version, schema=settings.log_schema, redact=settings.log_redact
        )
    _open_file(settings.log_file, before)
    tell = _tell_by(rendering)
    before.later(Hooks(tell).install())
    _tell_lost_by(tell, before)
    structlog.configure(
        processors=[DropBelow(levels), *rendering] if levels.own else rendering,
        wrapper_class=structlog.make_filtering_bound_logger(min(levels.everywhere, *levels.own.values(), 50)),
        logger_factory=Output,
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    root.handlers[:] = [*filter(_is_of_a_test_runner, root.handlers), StdoutHandler(rendering)]
    root.setLevel(levels.everywhere)
    for name, level in levels.own.items():
        before.keep(name)
        logging.getLogger(name).setLevel(level)
    take_server_loggers()
    before.later(_is_servers_again(_state.is_servers))
    _state.is_servers = False
    return before


def server_handler() -> logging.Handler:
    """
    Return the handler that a server's log configuration names, and configure logging for the server's own process.

    An application that is loaded later configures it for itself.
    """
    settings = Settings.read({})
    if settings.log_format == "off":
        return StdoutHandler()
    configure_for(settings)
    handler = next(one for one in logging.getLogger().handlers if isinstance(one, StdoutHandler))
    _state.is_servers = True
    return handler


def is_configured() -> bool:
    """Return whether somebody has said where log lines go: the application, or scaleobs for another one."""
    if _state.is_servers:
        return False
    return structlog.is_configured() or not all(map(_is_of_a_test_runner, logging.getLogger().handlers))


def take_server_loggers() -> None:
    """
    Let the servers' loggers end where all others do, where that is with us, and silence their access lines.

    A server that is started with an application object configures its loggers after `instrument` did, so this is said
    again when the application starts.
    """
    if not any(isinstance(handler, StdoutHandler) for handler in logging.getLogger().handlers):
        return
    for name in (*SERVER_LOGGERS, *ACCESS_LOGGERS):
        logger = logging.getLogger(name)
        logger.handlers = []
        logger.propagate = name in SERVER_LOGGERS


def get_logger(name: str | None = None, **values: Any) -> Any:
    """
    Return a structlog logger whose lines carry the request they were written in.

    Args:
        name: shown as `logger`.
        values: added to each of its lines.
    """
    return structlog.get_logger(name or "root", **values)


def own_logger() -> Any:
    """Return the logger for scaleobs's own lines: structlog where it is configured, otherwise the stdlib's."""
    if structlog.is_configured():
        return get_logger("scaleobs")
    return structlog.wrap_logger(
        logging.getLogger("scaleobs"),
        processors=[structlog.stdlib.render_to_log_kwargs],
        wrapper_class=structlog.stdlib.BoundLogger,
    )


class _State:
    """
    What this process has been told.

    Attributes:
        is_servers: whether logging is configured for a server, which an application may do again.
    """

    is_servers = False


_state = _State()


def _is_servers_again(was: bool) -> Callable[[], None]:
    def again() -> None:
        _state.is_servers = was

    return again


def _tell_lost_by(tell: Callable[..., None], before: Configured) -> None:
    known = stdout.tell_lost

    def tell_lost(lost: int) -> None:
        tell("warning", "scaleobs", "log.lines_lost", lines=lost)

    def restore() -> None:
        stdout.tell_lost = known

    stdout.tell_lost = tell_lost
    before.later(restore)


def _open_file(path: str | None, before: Configured) -> None:
    known = stdout.file
    try:
        stdout.file = None if path is None else LogFile(path)
    except OSError as error:
        msg = f"log_file is {path!r}: it can't be opened ({error.strerror}). Give one that can be written to."
        raise SettingsError(msg) from None

    def restore() -> None:
        if stdout.file is not None:
            stdout.file.close()
        stdout.file = known

    before.later(restore)


def _tell_by(rendering: list[Processor]) -> Callable[..., None]:
    """Return what writes a line whatever structlog's configuration has become."""
    handler = StdoutHandler(rendering)

    def tell(level: str, name: str, event: str, *, exc_info: BaseException | None = None, **about: Any) -> None:
        number = logging.getLevelNamesMapping()[level.upper()]
        told = (type(exc_info), exc_info, exc_info.__traceback__) if exc_info is not None else None
        record = logging.LogRecord(name, number, "", 0, event, (), told)
        record.__dict__.update(about)
        if logging.getLogger(name).isEnabledFor(number):
            handler.emit(record)

    return tell


def _is_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


def _is_of_a_test_runner(handler: logging.Handler) -> bool:
    """Return whether a handler watches beside whatever is configured, as pytest's do."""
    return type(handler).__module__.startswith("_pytest.")
