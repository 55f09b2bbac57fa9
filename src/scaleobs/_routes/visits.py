"""Which applications a request reaches, through adapters, mounts and dispatchers."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from scaleobs._routes.interface import Request, environ_path, path_below

VISITS = "scaleobs.visits"
"""The key of the visits of a request in the scope or environ."""

_MAX_VISITS = 20
_MAX_ADAPTERS = 5
_OUTER_REQUESTS = ("asgi.scope", "wsgi_environ")
"""The keys by which a2wsgi's adapters refer to the request of the outer protocol."""

IS_RECORDING = "is_scaleobs_announcement"
"""The attribute that marks a function which records visits."""


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
    """Return the visits of a request, which adapters may have translated from the other protocol."""
    form: Any = request
    for _ in range(_MAX_ADAPTERS):
        found = form.get(VISITS)
        if isinstance(found, Visits):
            return found
        form = next((form[key] for key in _OUTER_REQUESTS if form.get(key)), None)
        if form is None:
            break
    return current_visits.get()


def own_path(request: Request) -> str:
    """Return the path that is left for the application that receives a request."""
    if "PATH_INFO" in request:
        return environ_path(request)
    return path_below(request.get("path", ""), request.get("root_path", ""))


def record_visit(app: Any, find_request: Callable[[], Request]) -> None:
    """Record that a request has reached an application; raises nothing."""
    try:
        request = find_request()
        visits = visits_of(request)
        while visits is not None:
            if visits.reached is not None and len(visits.reached) < _MAX_VISITS:
                visits.reached.append((app, request, own_path(request)))
            visits = visits.outer
    except Exception:  # noqa: S110 - A request that can't be read has no template.
        pass


def visiting(app: Any, call: Callable[..., Any], request_of: Callable[..., Request]) -> Callable[..., Any]:
    """
    Return a function that records a visit of an application, then calls; it raises nothing of its own.

    Args:
        app: the visited application.
        call: a function of the application; if it records visits already, it is returned as it is.
        request_of: returns the scope or environ, by the arguments of `call`.
    """
    if hasattr(call, IS_RECORDING):
        return call

    def record_and_call(*args: Any, **kwargs: Any) -> Any:
        record_visit(app, lambda: request_of(*args, **kwargs))
        return call(*args, **kwargs)

    setattr(record_and_call, IS_RECORDING, True)
    return record_and_call
