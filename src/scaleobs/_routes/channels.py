"""The URL patterns of Channels, which lead to consumers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from scaleobs._routes.django import template_of
from scaleobs._routes.interface import NOTE, Pairs, Request
from scaleobs._routes.visits import IS_RECORDING, own_path, record_visit
from scaleobs.catalog import UNMATCHED_ROUTE

_REST = "path_remaining"
"""The key of the path that an outer router has left, in the scope of an inner one."""


class ChannelsRoutes:
    """The patterns of a router and of the routers inside it, by the path of a request that it has received."""

    route_key = NOTE

    def __init__(self, router: Any) -> None:
        self._router = router

    def template(self, request: Request) -> tuple[str, bool]:
        """Return the patterns that match the path."""
        found = _match(self._router, own_path(request).lstrip("/"))
        return (UNMATCHED_ROUTE if found is None else template_of(found[0])), False

    def passed_to(self, request: Request) -> Any:
        """Return the application behind the patterns that match the path."""
        found = _match(self._router, own_path(request).lstrip("/"))
        return None if found is None else found[1]

    def known(self) -> Pairs:
        """Return nothing: a WebSocket has no method."""
        return ()

    def mounts(self) -> list[tuple[Any, str]]:
        """Return the applications behind the patterns; a router passes on the whole path."""
        return [(callback, "") for callback in _callbacks(self._router)]

    def announce(self) -> None:
        """Record a visit of each request that reaches a router which is in no other one."""
        kind = type(self._router)
        if not hasattr(kind.__call__, IS_RECORDING):
            kind.__call__ = _recording(kind.__call__)


def _recording(call: Any) -> Any:
    async def record_and_call(router: Any, scope: Request, receive: Any, send: Any) -> Any:
        if _REST not in scope:
            record_visit(router, lambda: scope)
        return await call(router, scope, receive, send)

    setattr(record_and_call, IS_RECORDING, True)
    return record_and_call


def _match(router: Any, path: str) -> tuple[str, Any] | None:
    """Return the patterns that a router matches, as it does, and the application: the first match counts."""
    for route in router.routes:
        match = route.pattern.match(path)
        if match:
            pattern = str(route.pattern)
            if not _is_router(route.callback):
                return pattern, route.callback
            rest = _match(route.callback, match[0])
            if rest is not None:
                return pattern + rest[0].removeprefix("^"), rest[1]
    return None


def _callbacks(router: Any) -> Iterator[Any]:
    for route in router.routes:
        if _is_router(route.callback):
            yield from _callbacks(route.callback)
        else:
            yield route.callback


def _is_router(callback: Any) -> bool:
    return getattr(callback, "_path_routing", False) is True and hasattr(callback, "routes")
