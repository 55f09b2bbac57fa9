"""What every framework is asked, and how what it can answer is listed."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, MutableMapping
from typing import Any, Protocol

from scaleobs import catalog

Request = MutableMapping[str, Any]
"""An ASGI scope or a WSGI environ."""

Pairs = tuple[tuple[str, str], ...]
"""Methods with the templates that they can be sent to."""

ROUTE = "route"
"""Where FastAPI and Starlette (1.7 on) leave the object of the route, which has no hash: it is compared by identity."""

UNTOLD_METHODS = ("GET", "POST")
"""What a view that doesn't name its methods is taken to answer."""

_MOST_KNOWN = 1000
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

        What the value tells stays true as long as `known` returns the same object. May raise whatever the application's
        own objects raise when they are looked at.
        """

    def known(self) -> Pairs:
        """
        Return every method and template that the application can answer now, a thousand pairs at most.

        The same object is returned as long as nothing has changed. May raise as `template` does.
        """


def declared(methods: Iterable[str]) -> list[str]:
    """Return the methods that a developer wrote, without those that a framework adds to them."""
    names = set(methods)
    return sorted(names - _ADDED_BY_FRAMEWORKS or names)


def listed(pairs: Iterable[tuple[str, str]]) -> Pairs:
    """Return each pair once, without methods that have no series of their own."""
    own = (pair for pair in pairs if pair[0] in catalog.METHODS)
    return tuple(itertools.islice(dict.fromkeys(own), _MOST_KNOWN))


def settled(last: Pairs, pairs: Iterable[tuple[str, str]]) -> Pairs:
    """Return the pairs, as the object that they were last time where they are the same."""
    now = listed(pairs)
    return last if now == last else now


def toggled(path: str) -> str:
    """Return a path that ends with a slash without it, and any other with one."""
    return path.rstrip("/") if path.endswith("/") else path + "/"


def rooted(template: str) -> str:
    """Return a template with one slash at its beginning."""
    return "/" + template.lstrip("/")


def path_below(path: str, root: str) -> str:
    """Return the path below a root, as Starlette reads it."""
    below = path[len(root) :]
    return below if root and path.startswith(root) and below[:1] in ("", "/") else path


def environ_path(environ: Request) -> str:
    """Return the path of an environ as text (PEP 3333 hands it over as bytes in disguise)."""
    path: str = environ.get("PATH_INFO", "")
    return path.encode("latin-1", "replace").decode("utf-8", "replace")
