"""The access line's way through the chain, which is the configured one, without the loggers around it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import structlog

from scaleobs.catalog import LOG_LEVELS
from scaleobs.logs.logger import Logger, Output


def direct(name: str) -> Callable[[str, dict[str, Any]], None] | None:
    """
    Return what writes an event with a level, or `None` where lines don't end with us.

    structlog's loggers hand the fields of a line on as keyword arguments, three times, which takes a third of what the
    line takes. What they are configured with now is what counts: it is to be asked again after a change.

    Args:
        name: shown as `logger`.
    """
    config = structlog.get_config()
    processors, least = config["processors"], Logger.least
    if config["logger_factory"] is not Output or config["wrapper_class"] is not Logger:
        return None
    output = Output(name)
    numbers = logging.getLevelNamesMapping()
    ends = {level: getattr(output, level) for level in LOG_LEVELS if numbers[level.upper()] >= least}

    def write(level: str, event: dict[str, Any]) -> None:
        end = ends.get(level)
        if end is None:
            return
        line: Any = event
        try:
            for processor in processors:
                line = processor(output, level, line)
        except structlog.DropEvent:
            return
        end(line)

    return write
