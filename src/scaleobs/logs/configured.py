"""What logging was before it was configured, to make it that again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Self

import structlog

SERVER_LOGGERS = (
    *("uvicorn", "uvicorn.error", "uvicorn.asgi", "gunicorn.error"),
    *("hypercorn.error", "_granian"),
)
ACCESS_LOGGERS = ("uvicorn.access", "gunicorn.access", "hypercorn.access", "granian.access")
"""The servers' access lines, which `request.finished` replaces."""


class Configured:
    """What `configure_logging` has changed; as a context manager, or by `restore`, it is as it was before."""

    def __init__(self) -> None:
        self._structlog = structlog.get_config() if structlog.is_configured() else None
        names = (None, *SERVER_LOGGERS, *ACCESS_LOGGERS)
        self._loggers = [_state_of(logging.getLogger(name)) for name in names]
        self._undo: list[Callable[[], None]] = []

    def keep(self, name: str) -> None:
        """Remember how a logger is."""
        self._loggers.append(_state_of(logging.getLogger(name)))

    def later(self, undo: Callable[[], None]) -> None:
        """Have something undone at the end."""
        self._undo.append(undo)

    def restore(self) -> None:
        """Make logging what it was before; a second time changes nothing."""
        for undo in reversed(self._undo):
            undo()
        self._undo.clear()
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
