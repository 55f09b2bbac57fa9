"""Where a framework's hook leaves the template: in the WSGI environ or the ASGI scope."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any

Notes = MutableMapping[str, Any]

NOTE = "scaleobs.route"


def note(notes: Notes, find: Callable[[], str | None]) -> None:
    """Note what is found, and a fault of ours to be raised by `noted`, not in the application."""
    try:
        template = find()
    except Exception as error:
        notes[NOTE] = error
    else:
        if template is not None:
            notes[NOTE] = template


def noted(notes: Notes) -> str:
    """Return the template, or raise what finding it raised, where faults are counted."""
    template = notes[NOTE]
    if isinstance(template, Exception):
        raise template
    return str(template)
