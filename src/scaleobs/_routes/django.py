"""The URL patterns of Django."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from scaleobs._routes.exceptions import note_error
from scaleobs._routes.interface import DEFAULT_METHODS, NOTE, Pairs, Request, listed, recall, remember, with_root
from scaleobs._routes.visits import visiting
from scaleobs.catalog import UNMATCHED_ROUTE

_ANCHOR = re.compile(r"(?<![\[\\])\^|(?<!\\)\$$|\\[AZ]")
_REDIRECTS = frozenset({301, 302, 307, 308})
_LANGUAGE = "<language>/"
_HOOKED = "is_scaleobs_hook"
_ASYNC_HANDLERS = ("ASGIHandler", "AsyncClientHandler")
"""Handlers whose requests have a scope. The requests of the others have the environ in `META`."""


class DjangoRoutes:
    """The patterns of a site, by what a hook in its handler writes into the request."""

    route_key = NOTE

    def __init__(self, handler: Any) -> None:
        self._handler = handler
        self._resolver: Any = None
        self._known: Pairs = ()
        # After a use of the handler's `vars`, each access of its attributes is slower (Python 3.11).
        if not hasattr(handler.resolve_request, _HOOKED):
            _hook(handler, _Templates())

    def template(self, request: Request) -> tuple[str, bool]:
        """Return the pattern that the hook has written."""
        return recall(request)

    def known(self) -> Pairs:
        """Return every pattern of the root URLconf, with the methods that its view names."""
        from django.urls import get_resolver

        resolver = get_resolver()
        if resolver is not self._resolver:
            pairs = ((method, template) for _, template, view in _patterns(resolver) for method in _methods(view))
            self._known = listed(pairs)
            self._resolver = resolver
        return self._known

    def announce(self) -> None:
        """Record a visit of each request."""
        handler = self._handler
        key = "scope" if _is_asgi(handler) else "META"
        for name in ("get_response", "get_response_async"):
            setattr(handler, name, visiting(handler, getattr(handler, name), lambda request: getattr(request, key)))


class _Templates:
    """
    The templates of routes. A pattern has one template in all languages, since the client chooses the language.

    Attributes:
        known: the templates of the routes that have been resolved.
    """

    def __init__(self) -> None:
        self.known: dict[str, str] = {}

    def of(self, request: Any, route: str) -> str:
        """Return the template of a resolved route, which is in the language of the request."""
        if route not in self.known:
            from django.urls import get_resolver

            resolver = get_resolver(getattr(request, "urlconf", None))
            self.known |= {now: template for now, template, _ in _patterns(resolver)}
            self.known.setdefault(route, template_of(route))
        return self.known[route]

    def of_path(self, request: Any, path: str) -> str | None:
        """Return the template that a path resolves to."""
        from django.urls import Resolver404, resolve

        try:
            return self.of(request, resolve(path, getattr(request, "urlconf", None)).route)
        except Resolver404:
            return None


def _hook(handler: Any, templates: _Templates) -> None:
    """Write the pattern into every request that a handler resolves, and into those that its middleware answers."""
    from django.core.signals import got_request_exception
    from django.urls import Resolver404

    resolve, respond, respond_async = handler.resolve_request, handler.get_response, handler.get_response_async
    is_asgi = _is_asgi(handler)
    known = templates.known

    def resolve_and_remember(request: Any) -> Any:
        try:
            match = resolve(request)
        except Resolver404:
            remember(request.scope if is_asgi else request.META, lambda: UNMATCHED_ROUTE)
            raise
        notes = request.scope if is_asgi else request.META
        try:
            notes[NOTE] = known[match.route]
        except Exception:  # The first request of this route, or one that can't be read.
            remember(notes, lambda: templates.of(request, match.route))
        return match

    def respond_and_remember(request: Any) -> Any:
        response = respond(request)
        notes = request.scope if is_asgi else request.META
        if notes.get(NOTE, UNMATCHED_ROUTE) == UNMATCHED_ROUTE:
            _remember_unresolved(notes, request, response, templates)
        return response

    async def respond_and_remember_async(request: Any) -> Any:
        response = await respond_async(request)
        notes = request.scope if is_asgi else request.META
        if notes.get(NOTE, UNMATCHED_ROUTE) == UNMATCHED_ROUTE:
            _remember_unresolved(notes, request, response, templates)
        return response

    process = handler.process_exception_by_middleware

    def note_and_process(exception: Exception, request: Any) -> Any:
        note_error(exception, lambda: _notes_of(request))
        return process(exception, request)

    handler.process_exception_by_middleware = note_and_process
    got_request_exception.connect(_note_unhandled, dispatch_uid=__name__)
    setattr(resolve_and_remember, _HOOKED, True)
    handler.resolve_request = resolve_and_remember
    handler.get_response, handler.get_response_async = respond_and_remember, respond_and_remember_async


def _note_unhandled(request: Any = None, **_: Any) -> None:
    """Note the exception that Django answers with a 500, and logs afterwards."""
    error = sys.exc_info()[1]
    if error is not None:
        note_error(error, lambda: _notes_of(request), is_logged=True)


def _notes_of(request: Any) -> Any:
    return request.scope if hasattr(request, "scope") else request.META


def _is_asgi(handler: Any) -> bool:
    return any(base.__name__ in _ASYNC_HANDLERS for base in type(handler).__mro__)


def _remember_unresolved(notes: Request, request: Any, response: Any, templates: _Templates) -> None:
    is_resolved = NOTE in notes
    remember(notes, lambda: _unresolved(request, response, templates, is_resolved=is_resolved))


def _unresolved(request: Any, response: Any, templates: _Templates, *, is_resolved: bool) -> str | None:
    """Return the template of a request that a middleware answered, or redirected to a path that ends like its own."""
    from django.conf import settings
    from django.urls import get_script_prefix

    path, template = request.path_info, None
    if not is_resolved:
        with_slash = path + "/" if settings.APPEND_SLASH and not path.endswith("/") else None
        template = templates.of_path(request, path) or (with_slash and templates.of_path(request, with_slash))
    elif response.status_code in _REDIRECTS:
        # The redirect appends a slash or prepends a language.
        target = with_root(urlsplit(response.get("Location", "")).path.removeprefix(get_script_prefix()))
        template = templates.of_path(request, target) if target.strip("/").endswith(path.strip("/")) else None
    return template


def template_of(route: str) -> str:
    """Return the route from the root on, without the anchors of `re_path`."""
    return with_root(_ANCHOR.sub("", route))


def _patterns(resolver: Any) -> list[tuple[str, str, Any]]:
    """Return each route in the current language, its template, and its view."""
    from django.utils import translation

    now = list(_routes(resolver))
    written = now
    if any(is_translated for _, _, is_translated in now):
        with translation.override(None):
            written = list(_routes(resolver, language=_LANGUAGE))
    return [(route, template_of(name), view) for (route, view, _), (name, _, _) in zip(now, written, strict=True)]


def _routes(resolver: Any, language: str | None = None) -> Iterator[tuple[str, Any, bool]]:
    """Yield each route, its view, and whether it differs by language; `language` replaces the prefix of a language."""
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
    """Return the methods that a view names by its class, a view set's actions, or `require_http_methods`."""
    kind = getattr(view, "view_class", None) or getattr(view, "cls", None)
    names: Any = getattr(view, "actions", None)
    if names is None and kind is not None:
        names = [name for name in kind.http_method_names if name != "options" and hasattr(kind, name)]
    while names is None and view is not None:
        code, cells = getattr(view, "__code__", None), getattr(view, "__closure__", None) or ()
        if code is not None and "request_method_list" in code.co_freevars:
            names = cells[code.co_freevars.index("request_method_list")].cell_contents
        view = getattr(view, "__wrapped__", None)
    return [name.upper() for name in names or DEFAULT_METHODS if name.lower() != "head"]
