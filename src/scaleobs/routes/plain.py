"""What isn't any framework known here: the user's own function, or nothing."""

from __future__ import annotations

from collections.abc import Callable

from scaleobs.catalog import UNMATCHED_ROUTE
from scaleobs.routes.contract import Pairs, Request
from scaleobs.routes.notes import NOTE, noted

_LONGEST = 200


class PlainRoutes:
    """
    What a function says of each request.

    Args:
        find: takes the scope or environ, as the application left it, and returns the template, or `None`. It is asked
            for each request. What is no text of at most 200 printable characters counts as `None`.
    """

    route_key = NOTE

    def __init__(self, find: Callable[[Request], str | None]) -> None:
        self._find = find

    def template(self, request: Request) -> tuple[str, bool]:
        """Return what the function says; raises what it raises."""
        template = self._find(request)
        is_usable = isinstance(template, str) and 0 < len(template) <= _LONGEST and template.isprintable()
        return (str(template) if is_usable else UNMATCHED_ROUTE), False

    def known(self) -> Pairs:
        """Return nothing: a function can't be asked what it may say."""
        return ()


class NoRoutes:
    """What is asked where nothing is known of an application: all is unmatched, unless a hook says otherwise."""

    route_key = NOTE

    def template(self, request: Request) -> tuple[str, bool]:
        """Return what was noted."""
        return noted(request)[0], True

    def known(self) -> Pairs:
        """Return nothing."""
        return ()
