"""Where a framework's hook leaves the template: in the WSGI environ or the ASGI scope."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from scaleobs.catalog import UNMATCHED_ROUTE
from scaleobs.routes.contract import Request

NOTE = "scaleobs.route"


def note(request: Request, find: Callable[[], str | None]) -> None:
    """Note what is found, and a fault of ours to be raised by `noted`, not in the application."""
    try:
        template = find()
    except Exception as error:
        request[NOTE] = error
    else:
        if template is not None:
            request[NOTE] = template


def noted(request: Request) -> tuple[str, bool]:
    """Return the template and that the note tells it, or raise what finding it raised, where faults are counted."""
    template: Any = request.get(NOTE)
    if isinstance(template, Exception):
        raise template
    return (UNMATCHED_ROUTE, False) if template is None else (str(template), True)
