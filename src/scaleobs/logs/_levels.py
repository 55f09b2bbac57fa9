"""The lowest level that is written, of all loggers and of single ones."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import structlog
from structlog.typing import EventDict


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


_MAX_CACHED, _MAX_NAME = 4096, 100


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
            min_level = self._levels.of(name)
            if len(self._cache) < _MAX_CACHED and len(name) <= _MAX_NAME:
                self._cache[name] = min_level
        if _NUMBERS.get(method, logging.CRITICAL) < min_level:
            raise structlog.DropEvent
        return event


_NUMBERS = {name.lower(): number for name, number in logging.getLevelNamesMapping().items()} | {"exception": 40}
