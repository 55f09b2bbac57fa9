"""Where finished lines go: stdout, one write each."""

from __future__ import annotations

import json
import logging
import re
import sys
from typing import Any

import structlog

from scaleobs.logs import chain, encoding

_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+")


def write(line: str) -> None:
    """
    Write a line to stdout at once.

    stdout is looked up at each line, since tests and servers replace it. Where it is closed the line is lost and the
    application goes on.
    """
    try:
        try:
            sys.stdout.write(line + "\n")
        except UnicodeEncodeError:
            sys.stdout.write(_BEYOND_ASCII.sub(_escaped, line) + "\n")
        sys.stdout.flush()
    # Broken, closed, None under a server that closed it, or in use by the very line that a signal's handler interrupts.
    except (OSError, ValueError, AttributeError, RuntimeError):
        return


def _escaped(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1]


class Output:
    """
    A named logger at the end of structlog's chain.

    Args:
        name: shown as `logger`.
    """

    def __init__(self, name: str = "root", *_: Any) -> None:
        self.name = name

    def msg(self, line: str) -> None:
        """Write a line."""
        write(line)

    debug = info = warning = warn = error = critical = fatal = exception = failure = log = msg


class JSONFormatter(structlog.stdlib.ProcessorFormatter):
    """
    A `logging.Formatter` that makes one JSON object of a record, for the log configuration of a server.

    Args:
        service: added to every line; left out where it is not given.
        version: added beside it.
    """

    def __init__(self, *_: Any, service: str | None = None, version: str = "unknown", **__: Any) -> None:
        super().__init__(
            foreign_pre_chain=[chain.add_extra, *chain.processors(service, version)],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                chain.render_json,
            ],
        )


class ConsoleFormatter(structlog.stdlib.ProcessorFormatter):
    """The same record as a coloured line for a person."""

    def __init__(self) -> None:
        super().__init__(
            foreign_pre_chain=[chain.add_extra, *chain.processors()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, structlog.dev.ConsoleRenderer()],
        )


class StdoutHandler(logging.Handler):
    """Hands stdlib records to stdout; one that can't be formatted is told as such, never to stderr in plain text."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record."""
        try:
            write(self.format(record))
        except Exception as error:
            told = {"level": "error", "event": "log.unreadable", "logger": record.name, "reason": repr(error)}
            told["message"] = encoding.text(record.msg)
            write(chain.render_json(None, "error", chain.add_timestamp(None, "error", told)))
