"""Which lines are written: the level of all loggers, and of some."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import structlog
from structlog.typing import EventDict

from scaleobs.values import parse_levels

_NUMBERS = {name.lower(): number for name, number in logging.getLevelNamesMapping().items()} | {"exception": 40}


class Levels(NamedTuple):
    """
    Levels by number.

    Attributes:
        everywhere: of all loggers that have none of their own.
        own: by the logger's name; the loggers below it have it, too.
    """

    everywhere: int
    own: dict[str, int]

    @classmethod
    def read(cls, text: str) -> Levels:
        """Return what `info,sqlalchemy.engine=debug` means."""
        numbers = logging.getLevelNamesMapping()
        everywhere, own = parse_levels(text)
        return cls(numbers[everywhere.upper()], {name: numbers[level.upper()] for name, level in own.items()})

    def of(self, name: str) -> int:
        """Return the level of a logger."""
        while name:
            if name in self.own:
                return self.own[name]
            name = name.rpartition(".")[0]
        return self.everywhere


class DropBelow:
    """Drops structlog's lines whose logger has a higher level of its own: a processor."""

    def __init__(self, levels: Levels) -> None:
        self._levels = levels
        self._known: dict[str, int] = {}

    def __call__(self, logger: Any, method: str, event: EventDict) -> EventDict:
        """Return the event, or drop it."""
        name = getattr(logger, "name", "root")
        least = self._known.get(name)
        if least is None:
            least = self._known[name] = self._levels.of(name)
        if _NUMBERS.get(method, logging.CRITICAL) < least:
            raise structlog.DropEvent
        return event
