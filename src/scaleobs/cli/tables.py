"""Where the commands that answer with a table print it."""

from __future__ import annotations

from rich.console import Console

_WIDE = 140


def plain_console() -> Console:
    """Return a console as wide as its terminal, and wide enough for a table where that is a log of CI."""
    # What rules say may have brackets, which Rich would take for its own.
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = _WIDE
    return console
