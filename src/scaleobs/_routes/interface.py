"""The interface of a framework's routes, and what several frameworks share."""

from __future__ import annotations

import functools
import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from typing import Any, Protocol

from scaleobs import catalog
from scaleobs.catalog import UNMATCHED_ROUTE

Request = MutableMapping[str, Any]
"""An ASGI scope or a WSGI environ."""

Pairs = tuple[tuple[str, str], ...]
"""Methods with the templates that they can be sent to."""

ROUTE = "route"
"""Where FastAPI and Starlette (1.7 on) leave the object of the route, which has no hash: it is compared by identity."""

DEFAULT_METHODS = ("GET", "POST")
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


def explicit_methods(methods: Iterable[str]) -> list[str]:
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


def toggle_slash(path: str) -> str:
    """Return a path that ends with a slash without it, and any other with one."""
    return path.rstrip("/") if path.endswith("/") else path + "/"


def with_root(template: str) -> str:
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


NOTE = "scaleobs.route"


def remember(request: Request, find: Callable[[], str | None]) -> None:
    """Note what is found, and a fault of ours to be raised by `noted`, not in the application."""
    try:
        template = find()
    except Exception as error:
        request[NOTE] = error
    else:
        if template is not None:
            request[NOTE] = template


def recall(request: Request) -> tuple[str, bool]:
    """Return the template and that the note tells it, or raise what finding it raised, where faults are counted."""
    template: Any = request.get(NOTE)
    if isinstance(template, Exception):
        raise template
    return (UNMATCHED_ROUTE, False) if template is None else (str(template), True)


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
        return recall(request)[0], True

    def known(self) -> Pairs:
        """Return nothing."""
        return ()


_MOST = 100
_NAMES = ("app", "_app", "application", "_application", "wrapped", "__wrapped__", "wsgi_app", "asgi_app", "inner")


def unwrapped(app: Any) -> Iterator[Any]:
    """Yield an application, then all that its wrappers show of what they call, the nearest first."""
    waiting, seen = [app], set[int]()
    kept = []  # So that no id comes to mean another object.
    while waiting and len(seen) < _MOST:
        one = waiting.pop(0)
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        kept.append(one)
        yield one
        try:
            waiting.extend(_within(one))
        except Exception:  # noqa: S112 - An object that can't be looked at shows nothing.
            continue


def is_async(app: Any) -> bool:
    """Return whether calling an application makes a coroutine."""
    while isinstance(app, functools.partial):
        app = app.func
    call = app if inspect.isroutine(app) else type(app).__call__
    return inspect.iscoroutinefunction(call)


def _within(one: Any) -> list[Any]:
    if isinstance(one, functools.partial):
        return [one.func, *one.args, *one.keywords.values()]
    if inspect.ismethod(one):
        return [one.__self__]
    if inspect.isfunction(one):
        held = [
            one.__dict__.get("__wrapped__"),
            *(cell.cell_contents for cell in one.__closure__ or () if _is_filled(cell)),
        ]
        named = [one.__globals__[name] for name in one.__code__.co_names if name in one.__globals__]
        return [thing for thing in (*held, *(one.__defaults__ or ()), *named) if _may_be_app(thing)]
    return [thing for thing in (getattr(one, name, None) for name in _NAMES) if _may_be_app(thing)]


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def _may_be_app(thing: Any) -> bool:
    return callable(thing) and not inspect.isclass(thing) and not inspect.isbuiltin(thing)
