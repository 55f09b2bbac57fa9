"""The URL patterns of Django."""

from __future__ import annotations

import re
from typing import Any

from scaleobs.catalog import UNMATCHED_ROUTE
from scaleobs.routes.notes import NOTE, Notes, note

_ANCHOR = re.compile(r"(?<![\[\\])\^|(?<!\\)\$$|\\[AZ]")


def watch(handler: Any) -> None:
    """Note the pattern of every request that a handler resolves, and of those that its middleware answers before."""
    if "resolve_request" in vars(handler):
        return
    resolve, respond, respond_async = handler.resolve_request, handler.get_response, handler.get_response_async

    def resolve_and_note(request: Any) -> Any:
        from django.urls import Resolver404

        try:
            match = resolve(request)
        except Resolver404:
            note(_notes(request), lambda: _slash_route(request) or UNMATCHED_ROUTE)
            raise
        note(_notes(request), lambda: _template(match.route))
        return match

    def respond_and_note(request: Any) -> Any:
        response = respond(request)
        _note_unresolved(request)
        return response

    async def respond_and_note_async(request: Any) -> Any:
        response = await respond_async(request)
        _note_unresolved(request)
        return response

    handler.resolve_request = resolve_and_note
    handler.get_response, handler.get_response_async = respond_and_note, respond_and_note_async


def _notes(request: Any) -> Notes:
    notes: Notes = request.scope if hasattr(request, "scope") else request.META
    return notes


def _note_unresolved(request: Any) -> None:
    if NOTE not in _notes(request):
        note(_notes(request), lambda: _resolved(request, request.path_info) or _slash_route(request))


def _slash_route(request: Any) -> str | None:
    """Return the route that `APPEND_SLASH` redirects to."""
    from django.conf import settings

    if not settings.APPEND_SLASH or request.path_info.endswith("/"):
        return None
    return _resolved(request, f"{request.path_info}/")


def _resolved(request: Any, path: str) -> str | None:
    from django.urls import Resolver404, resolve

    try:
        return _template(resolve(path, getattr(request, "urlconf", None)).route)
    except Resolver404:
        return None


def _template(route: str) -> str:
    """Return a route as the others are written: from the root, without the anchors of `re_path`."""
    return "/" + _ANCHOR.sub("", route).lstrip("/")
