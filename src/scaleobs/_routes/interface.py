"""The interface of a framework's routes, and what several frameworks share."""

from __future__ import annotations

import contextlib
import functools
import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextvars import ContextVar
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


VISITS = "scaleobs.visits"
"""The key of the visits of a request in the scope or environ."""

_MAX_VISITS = 20
_OUTER_REQUESTS = ("asgi.scope", "wsgi_environ")
"""The keys by which a2wsgi's adapters refer to the request of the outer protocol."""

_ANNOUNCES = "is_scaleobs_announcement"


class Visits:
    """
    The applications that one request has reached, in order, through adapters, mounts and dispatchers.

    Args:
        owner: the routes that read the visits.
        path: the path of the request, as the outermost application receives it.
        outer: the visits that an outer middleware records for the same request.

    Attributes:
        reached: each application, its request and the path that was left for it; `None` after the request has ended.
        template: the template of the request, once it is determined.
    """

    __slots__ = ("outer", "owner", "path", "reached", "template")

    def __init__(self, owner: object, path: str, outer: Visits | None) -> None:
        self.owner = owner
        self.path = path
        self.outer = outer
        self.reached: list[tuple[Any, Request, str]] | None = []
        self.template: str | None = None


current_visits: ContextVar[Visits | None] = ContextVar("scaleobs_visits", default=None)
"""The visits of the current request, for adapters that pass on no object of the request."""


def visits_of(request: Request) -> Visits | None:
    """Return the visits of a request, which an adapter may have translated from the other protocol."""
    for one in (request, *(request.get(key) for key in _OUTER_REQUESTS)):
        found = one.get(VISITS) if one else None
        if isinstance(found, Visits):
            return found
    return current_visits.get()


def own_path(request: Request) -> str:
    """Return the path that is left for the application that receives a request."""
    if "PATH_INFO" in request:
        return environ_path(request)
    return path_below(request.get("path", ""), request.get("root_path", ""))


def visiting(app: Any, call: Callable[..., Any], request_of: Callable[..., Request]) -> Callable[..., Any]:
    """
    Return a function that records a visit of an application, then calls; it raises nothing of its own.

    Args:
        app: the visited application.
        call: a function of the application; if it records visits already, it is returned as it is.
        request_of: returns the scope or environ, by the arguments of `call`.
    """
    if hasattr(call, _ANNOUNCES):
        return call

    def record_and_call(*args: Any, **kwargs: Any) -> Any:
        try:
            request = request_of(*args, **kwargs)
            visits = visits_of(request)
            while visits is not None:
                if visits.reached is not None and len(visits.reached) < _MAX_VISITS:
                    visits.reached.append((app, request, own_path(request)))
                visits = visits.outer
        except Exception:  # noqa: S110 - A request that can't be read has no template.
            pass
        return call(*args, **kwargs)

    setattr(record_and_call, _ANNOUNCES, True)
    return record_and_call


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


_MAX_WRAPPERS = 100
WRAPPED = ("app", "_app", "application", "_application", "wrapped", "__wrapped__", "wsgi_app", "asgi_app", "inner")


def unwrapped(app: Any) -> Iterator[Any]:
    """Yield an application, then what its wrappers call as far as they show it, the nearest first."""
    pending, seen = [app], set[int]()
    kept = []  # So that no other object gets the same id.
    while pending and len(seen) < _MAX_WRAPPERS:
        one = pending.pop(0)
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        kept.append(one)
        yield one
        try:
            pending.extend(wrapped_by(one))
        except Exception:  # noqa: S112 - An object that can't be read shows nothing.
            continue


def has_routes(app: Any) -> bool:
    """Return whether an object is an application or a router as Starlette has them."""
    router = getattr(app, "router", app)
    return hasattr(router, "routes") and hasattr(router, "redirect_slashes")


_WITHOUT_ROUTES = ("a2wsgi", "django", "prometheus_client", "starlette.middleware.wsgi", "starlette.staticfiles")
"""Modules whose applications are often mounted and call no Starlette endpoint."""


def is_empty(app: Any) -> bool:
    """Return whether an application is a router without routes, which finds nothing."""
    return has_routes(app) and getattr(app, "default", None) == getattr(app, "not_found", app)


def is_without_routes(app: Any) -> bool:
    """Return whether an application is of a class that never has an endpoint."""
    modules = [getattr(app, "__module__", None), *(base.__module__ for base in type(app).__mro__)]
    return any(f"{module}.".startswith(f"{name}.") for module in modules for name in _WITHOUT_ROUTES)


def takes_asgi(app: Any) -> bool:
    """Return whether a call of the application returns a coroutine, or takes the three parameters of ASGI."""
    while isinstance(app, functools.partial):
        app = app.func
    call = app if inspect.isroutine(app) else type(app).__call__
    with contextlib.suppress(Exception):  # It can't be read.
        return inspect.iscoroutinefunction(call) or has_routes(app) or count_parameters(app) == 3  # noqa: PLR2004
    return False


def count_parameters(app: Any) -> int:
    """Return how many positional arguments a call needs; 0 if that can't be read."""
    try:
        parameters = inspect.signature(app).parameters.values()
    except Exception:
        return 0
    return sum(one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD for one in parameters)


def wrapped_by(one: Any) -> list[Any]:
    """Return what an application calls as far as it shows it."""
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
        return [thing for thing in (*held, *(one.__defaults__ or ()), *named) if may_be_app(thing)]
    return [thing for thing in (getattr(one, name, None) for name in WRAPPED) if may_be_app(thing)]


def _is_filled(cell: Any) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


def may_be_app(thing: Any) -> bool:
    """Return whether an object can be called as an application."""
    return callable(thing) and not inspect.isclass(thing) and not inspect.isbuiltin(thing)
