"""The interface of a framework's routes, and what several frameworks share."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, MutableMapping
from typing import Any, Protocol

from scaleobs import catalog
from scaleobs.catalog import UNMATCHED_ROUTE

Request = MutableMapping[str, Any]
"""An ASGI scope or a WSGI environ."""

Pairs = tuple[tuple[str, str], ...]
"""Pairs of a method and a template."""

ROUTE = "route"
"""The key of FastAPI's and Starlette's (from 1.7) route object in the scope. It has no hash, so its id is compared."""

DEFAULT_METHODS = ("GET", "POST")
"""The methods of a view that names none."""

_MAX_PAIRS = 1000
_ADDED_BY_FRAMEWORKS = frozenset({"HEAD", "OPTIONS"})


class Routes(Protocol):
    """
    The routes of one application.

    Attributes:
        route_key: the key of the scope or environ whose value mostly determines the template; a call of `template` may
            change it.
    """

    route_key: str

    def template(self, request: Request) -> tuple[str, bool]:
        """
        Return the template of a handled request, and whether the value of `route_key` alone determines it.

        A template by the value stays valid as long as `known` returns the same object. May raise what the application's
        objects raise when they are read.
        """

    def known(self) -> Pairs:
        """
        Return every method and template that the application can answer now, at most a thousand pairs.

        Returns the same object as long as nothing has changed. May raise as `template` does.
        """


class VisitedRoutes(Routes, Protocol):
    """The routes of an application that may lie inside another one."""

    def announce(self) -> None:
        """Make the application record its visits; calls after the first change nothing."""


def explicit_methods(methods: Iterable[str]) -> list[str]:
    """Return the methods that a developer wrote, without those that the framework has added."""
    names = set(methods)
    return sorted(names - _ADDED_BY_FRAMEWORKS or names)


def listed(pairs: Iterable[tuple[str, str]]) -> Pairs:
    """Return each pair once, without methods that have no series of their own."""
    own = (pair for pair in pairs if pair[0] in catalog.METHODS)
    return tuple(itertools.islice(dict.fromkeys(own), _MAX_PAIRS))


def settled(last: Pairs, pairs: Iterable[tuple[str, str]]) -> Pairs:
    """Return the pairs; if they are equal to the last ones, the same object."""
    now = listed(pairs)
    return last if now == last else now


def toggle_slash(path: str) -> str:
    """Return the path without the slash at its end, or with one if it has none."""
    return path.rstrip("/") if path.endswith("/") else path + "/"


def with_root(template: str) -> str:
    """Return the template with one slash at its beginning."""
    return "/" + template.lstrip("/")


def path_below(path: str, root: str) -> str:
    """Return the path below a root, as Starlette reads it."""
    below = path[len(root) :]
    return below if root and path.startswith(root) and below[:1] in ("", "/") else path


def host_of(scope: Request) -> str:
    """Return the host of a scope, without its port."""
    found = next((value for name, value in scope.get("headers", ()) if name == b"host"), b"")
    return str(found.decode("latin-1").partition(":")[0]).lower()


def environ_path(environ: Request) -> str:
    """Return the path of an environ as text (in PEP 3333 its characters are bytes)."""
    path: str = environ.get("PATH_INFO", "")
    return path.encode("latin-1", "replace").decode("utf-8", "replace")


NOTE = "scaleobs.route"
"""The key of the template that a hook has written into the scope or environ."""


def remember(request: Request, find: Callable[[], str | None]) -> None:
    """Write the result of `find` into the request, or its exception: `recall` raises it outside the application."""
    try:
        template = find()
    except Exception as error:
        request[NOTE] = error
    else:
        if template is not None:
            request[NOTE] = template


def recall(request: Request) -> tuple[str, bool]:
    """Return the template that `remember` has written, and whether there is one; raise the exception that it caught."""
    template: Any = request.get(NOTE)
    if isinstance(template, Exception):
        raise template
    return (UNMATCHED_ROUTE, False) if template is None else (str(template), True)


_MAX_LENGTH = 200


class PlainRoutes:
    """
    The templates that the user's function returns.

    Args:
        find: receives the scope or environ of each handled request, and returns the template or `None`. A result that
            is not a text of at most 200 printable characters counts as `None`.
    """

    route_key = NOTE

    def __init__(self, find: Callable[[Request], str | None]) -> None:
        self._find = find

    def template(self, request: Request) -> tuple[str, bool]:
        """Return the function's result; raises what it raises."""
        template = self._find(request)
        is_usable = isinstance(template, str) and 0 < len(template) <= _MAX_LENGTH and template.isprintable()
        return (str(template) if is_usable else UNMATCHED_ROUTE), False

    def known(self) -> Pairs:
        """Return nothing: the function's results are not known before."""
        return ()


class NoRoutes:
    """An application without known routes: all requests are unmatched, except for those with a hook's template."""

    route_key = NOTE

    def template(self, request: Request) -> tuple[str, bool]:
        """Return the template that a hook has written."""
        return recall(request)[0], True

    def known(self) -> Pairs:
        """Return nothing."""
        return ()
