"""What is logged once in a process: limits, and faults of scaleobs itself."""

from __future__ import annotations

import contextlib
from typing import Any

from scaleobs._metrics.user_names import PageError
from scaleobs.logs._encoding import name_of
from scaleobs.logs._exceptions import traceback_of

_MAX_KINDS = 1000


class Reports:
    """
    Logs each event of a kind once; no method raises.

    Args:
        logger: a structlog logger.
    """

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self._logged: dict[str, object] = {}

    def limit_reached(self, limit: int) -> None:
        """Log that requests are counted in overflow series from now on."""
        fix = "make each route a template and no path, or give instrument(max_label_sets=...) a higher number"
        self._warn("label_sets.limit_reached", limit=limit, fix=fix)

    def route_missing(self, requests: int) -> None:
        """Log that so many successful requests in a row had no template."""
        fix = "give instrument(route=...) a function that returns the template of a request, as docs/routes.md shows"
        self._warn("route.missing", requests=requests, fix=fix)

    def loop_unknown(self) -> None:
        """Log that what runs the application is neither asyncio nor trio."""
        fix = "serve the application with asyncio or trio; otherwise its async checks run in threads of their own"
        self._warn("event_loop.unknown", fix=fix)

    def routes_shadowed(self, paths: list[str], fix: str) -> None:
        """Log that the application has routes at the paths of endpoints, which receive no requests."""
        self._warn("route.shadowed", paths=paths, fix=fix)

    def fault(self, error: BaseException) -> None:
        """Log a fault of scaleobs itself, once per type of error and function, or per name on a page."""
        with contextlib.suppress(Exception):
            frames = traceback_of(error)
            while frames is not None and frames.tb_next is not None:
                frames = frames.tb_next
            kind = f"{name_of(error)} at {frames.tb_frame.f_code.co_qualname if frames else '?'}"
            if isinstance(error, PageError):
                if len(self._logged) >= _MAX_KINDS:  # A collector may make up any number of names.
                    return
                kind = error.kind
            if self._note(kind):
                self._logger.error("scaleobs.fault", kind=kind, exc_info=error)

    def _warn(self, event: str, **fields: Any) -> None:
        if self._note(event):
            with contextlib.suppress(Exception):
                self._logger.warning(event, **fields)

    def _note(self, kind: str) -> bool:
        own = object()
        return self._logged.setdefault(kind, own) is own  # One step, unlike a test and a change: threads may race.
