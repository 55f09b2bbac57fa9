"""The access line's way through the chain, which is the configured one, without the loggers around it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import structlog

from scaleobs.logs import counts
from scaleobs.logs.logger import Logger, Output
from scaleobs.logs.stdout import stdout


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
