"""The URL patterns of Django."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from scaleobs.catalog import UNMATCHED_ROUTE
from scaleobs.routes.contract import UNTOLD_METHODS, Pairs, Request, listed, rooted
from scaleobs.routes.notes import NOTE, note, noted

_ANCHOR = re.compile(r"(?<![\[\\])\^|(?<!\\)\$$|\\[AZ]")
_REDIRECTS = frozenset({301, 302, 307, 308})
_LANGUAGE = "<language>/"


class DjangoRoutes:
    """The patterns of a site, by what a hook in its handler leaves."""

    clue = NOTE

    def __init__(self, handler: Any) -> None:
        self._resolver: Any = None
        self._known: Pairs = ()
        if "resolve_request" not in vars(handler):
            _watch(handler, _Templates())

    def template(self, request: Request) -> tuple[str, bool]:
        """Return the pattern that was noted."""
        return noted(request)

    def known(self) -> Pairs:
        """Return every pattern of the root URLconf, with the methods that its view names."""
        from django.urls import get_resolver

        resolver = get_resolver()
        if resolver is not self._resolver:
            pairs = ((method, template) for _, template, view in _patterns(resolver) for method in _methods(view))
            self._known = listed(pairs)
            self._resolver = resolver
        return self._known


class _Templates:
    """What routes are called: one name for a pattern in all languages, since the client chooses among them."""

    def __init__(self) -> None:
        self._of: dict[str, str] = {}

    def of(self, request: Any, route: str) -> str:
        """Return the template of a route that was just resolved, in the language of the request."""
        if route not in self._of:
            from django.urls import get_resolver

            resolver = get_resolver(getattr(request, "urlconf", None))
            self._of |= {now: template for now, template, _ in _patterns(resolver)}
            self._of.setdefault(route, _template(route))
        return self._of[route]

    def of_path(self, request: Any, path: str) -> str | None:
        """Return the template that a path would resolve to."""
        from django.urls import Resolver404, resolve

        try:
            return self.of(request, resolve(path, getattr(request, "urlconf", None)).route)
        except Resolver404:
            return None


def _watch(handler: Any, templates: _Templates) -> None:
    """Note the pattern of every request that a handler resolves, and of those that its middleware answers before."""
    from django.urls import Resolver404

    resolve, respond, respond_async = handler.resolve_request, handler.get_response, handler.get_response_async

    def resolve_and_note(request: Any) -> Any:
        try:
            match = resolve(request)
        except Resolver404:
            note(_notes(request), lambda: UNMATCHED_ROUTE)
            raise
        note(_notes(request), lambda: templates.of(request, match.route))
        return match

    def respond_and_note(request: Any) -> Any:
        response = respond(request)
        _note_unresolved(request, response, templates)
        return response

    async def respond_and_note_async(request: Any) -> Any:
        response = await respond_async(request)
        _note_unresolved(request, response, templates)
        return response

    handler.resolve_request = resolve_and_note
    handler.get_response, handler.get_response_async = respond_and_note, respond_and_note_async


def _notes(request: Any) -> Request:
    notes: Request = request.scope if hasattr(request, "scope") else request.META
    return notes


def _note_unresolved(request: Any, response: Any, templates: _Templates) -> None:
    notes = _notes(request)
    if notes.get(NOTE, UNMATCHED_ROUTE) == UNMATCHED_ROUTE:
        is_resolved = NOTE in notes
        note(notes, lambda: _unresolved(request, response, templates, is_resolved=is_resolved))


def _unresolved(request: Any, response: Any, templates: _Templates, *, is_resolved: bool) -> str | None:
    """Return the template of a request that a middleware answered, or sent to a path that ends like its own."""
    from django.conf import settings
    from django.urls import get_script_prefix

    path, found = request.path_info, None
    if not is_resolved:
        with_slash = path + "/" if settings.APPEND_SLASH and not path.endswith("/") else None
        found = templates.of_path(request, path) or (with_slash and templates.of_path(request, with_slash))
    elif response.status_code in _REDIRECTS:
        # A slash is appended, or a language put in front.
        target = rooted(urlsplit(response.get("Location", "")).path.removeprefix(get_script_prefix()))
        found = templates.of_path(request, target) if target.strip("/").endswith(path.strip("/")) else None
    return found


def _template(route: str) -> str:
    """Return a route as the others are written: from the root, without the anchors of `re_path`."""
    return rooted(_ANCHOR.sub("", route))


def _patterns(resolver: Any) -> list[tuple[str, str, Any]]:
    """Return each route as it is in the present language, its template, and its view."""
    from django.utils import translation

    now = list(_routes(resolver))
    written = now
    if any(is_translated for _, _, is_translated in now):
        with translation.override(None):
            written = list(_routes(resolver, language=_LANGUAGE))
    return [(route, _template(name), view) for (route, view, _), (name, _, _) in zip(now, written, strict=True)]


def _routes(resolver: Any, language: str | None = None) -> Iterator[tuple[str, Any, bool]]:
    """Yield each route, its view, and whether it differs by language, which has another name where one is given."""
    for one in resolver.url_patterns:
        has_prefix = hasattr(one.pattern, "language_prefix")
        route = language if has_prefix and language is not None else str(one.pattern)
        source = getattr(one.pattern, "_route", None) or getattr(one.pattern, "_regex", None) or ""
        is_translated = has_prefix or not isinstance(source, str)
        if hasattr(one, "url_patterns"):
            for rest, view, is_rest_translated in _routes(one, language):
                whole = route + rest.removeprefix("^") if route else rest
                yield whole, view, is_translated or is_rest_translated
        else:
            yield route, one.callback, is_translated


def _methods(view: Any) -> list[str]:
    """Return the methods that a view names: a class, a view set's actions, or `require_http_methods`."""
    kind = getattr(view, "view_class", None) or getattr(view, "cls", None)
    names: Any = getattr(view, "actions", None)
    if names is None and kind is not None:
        names = [name for name in kind.http_method_names if name != "options" and hasattr(kind, name)]
    while names is None and view is not None:
        code, cells = getattr(view, "__code__", None), getattr(view, "__closure__", None) or ()
        if code is not None and "request_method_list" in code.co_freevars:
            names = cells[code.co_freevars.index("request_method_list")].cell_contents
        view = getattr(view, "__wrapped__", None)
    return [name.upper() for name in names or UNTOLD_METHODS if name.lower() != "head"]
