"""`instrument`, which observes an application of any kind, and `observer_of`."""

from __future__ import annotations

import functools
import inspect
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import fields
from typing import Any, Protocol, TypeVar, Unpack, overload

from scaleobs._http.asgi import ASGIMiddleware
from scaleobs._http.asgi_exchange import ASGIApp
from scaleobs._http.wsgi import WSGIApp, WSGIMiddleware
from scaleobs._routes.handlers import note_in_handlers
from scaleobs.observer import Observer
from scaleobs.settings import Arguments, Settings, SettingsError


class _StarletteApp(Protocol):
    """Starlette, FastAPI, and the classes that inherit from them."""

    @property
    def router(self) -> Any: ...

    def build_middleware_stack(self) -> Any: ...

    def __call__(self, scope: Any, receive: Any, send: Any) -> Awaitable[None]: ...


class _FlaskApp(Protocol):
    """Flask, and the classes that inherit from it."""

    @property
    def url_map(self) -> Any: ...

    def wsgi_app(self, environ: Any, start_response: Any) -> Any: ...

    def __call__(self, environ: Any, start_response: Any) -> Any: ...


class _DjangoHandler(Protocol):
    """Django's WSGI handler. It has no annotations, and by its inferred type the response is not iterable."""

    def get_response(self, request: Any) -> Any: ...

    def __call__(self, environ: Any, start_response: Any) -> Any: ...


_InPlace = TypeVar("_InPlace", bound=_StarletteApp | _FlaskApp | ASGIMiddleware | WSGIMiddleware)

# The observers by the id of the application and of what `instrument` returned. The observer refers to both, so their
# ids are not used again while the entry exists.
_observers: weakref.WeakValueDictionary[int, Observer] = weakref.WeakValueDictionary()
_instrumenting = threading.Lock()


@overload
def instrument(app: _InPlace, **settings: Unpack[Arguments]) -> _InPlace: ...
@overload
def instrument(app: Callable[[Any, Any, Any], Awaitable[Any]], **settings: Unpack[Arguments]) -> ASGIApp: ...
@overload
def instrument(app: Callable[[Any, Any], Iterable[Any]] | _DjangoHandler, **settings: Unpack[Arguments]) -> WSGIApp: ...
def instrument(app: Any, **settings: Unpack[Arguments]) -> Any:
    """
    Make a web application observable, and return it.

    FastAPI, Starlette and Flask applications are instrumented in place, outside all their middleware, and returned. For
    any other ASGI or WSGI callable, such as Django's handlers, a wrapper is returned; serve the wrapper. A second call
    with the same application, or with its wrapper, returns the same object and counts nothing twice. Any thread may
    call it.

    Args:
        app: the application.
        settings: see `scaleobs.settings.Settings`.

    Raises:
        TypeError: `app` is neither an ASGI nor a WSGI application.
        SettingsError: a setting is unknown, has a value that can't be used, or differs from that of an earlier call.
        ValueError: the registry holds another library's metric of the same name.
    """
    with _instrumenting:
        observer = _observers.get(id(app))
        if observer is not None:
            _refuse_other_settings(observer, settings)
            return observer._service.served
        if isinstance(app, ASGIMiddleware | WSGIMiddleware):
            _refuse_other_settings(app.observer, settings)
            return app
        kind = _kind(app)
        observer = Observer(**settings)
        observer._service.app = app
        if kind == "starlette":
            served: Any = _into_starlette(app, observer)
        elif kind == "flask":
            app.wsgi_app = WSGIMiddleware(app.wsgi_app, observer=observer)
            served = app
        elif kind == "asgi":
            served = ASGIMiddleware(app, observer=observer).serve
        else:
            served = WSGIMiddleware(app, observer=observer)
        observer._service.served = served
        _observers[id(app)] = _observers[id(served)] = observer
        return served


def observer_of(app: object) -> Observer:
    """
    Return the observer of an instrumented application.

    Args:
        app: what was given to `instrument`, or what it returned.

    Raises:
        LookupError: the application is not instrumented.
    """
    observer = _observers.get(id(app))
    if observer is None and isinstance(app, ASGIMiddleware | WSGIMiddleware):
        observer = app.observer
    if observer is None:
        msg = f"{app!r} is not instrumented: call scaleobs.instrument(app) first, and pass what it returned."
        raise LookupError(msg)
    return observer


def _kind(app: Any) -> str:
    if isinstance(app, type) or not callable(app):
        raise TypeError(_not_an_application(app))
    # By the class: a wrapper may pass on the attributes of the application that it wraps.
    if hasattr(type(app), "build_middleware_stack") and hasattr(app, "router"):
        return "starlette"
    if hasattr(type(app), "wsgi_app") and hasattr(app, "url_map"):
        return "flask"
    try:
        parameters = list(inspect.signature(app).parameters.values())
    except (TypeError, ValueError):  # Written in C.
        return "asgi" if _is_async(app) else "wsgi"
    positional = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    required = sum(one.default is one.empty for one in positional)
    # A decorator's `*args` takes any number, as that of wsgiref.validate does.
    most = 3 if any(one.kind is one.VAR_POSITIONAL for one in parameters) else len(positional)
    # A plain callable with three parameters returns the awaitable: ASGI has three and WSGI two.
    count = 3 if _is_async(app) or required == 3 else 2  # noqa: PLR2004
    needs_keyword = any(one.kind is one.KEYWORD_ONLY and one.default is one.empty for one in parameters)
    if needs_keyword or not required <= count <= most:
        raise TypeError(_not_an_application(app))
    return "asgi" if count == 3 else "wsgi"  # noqa: PLR2004


def _is_async(app: Any) -> bool:
    while isinstance(app, functools.partial):
        app = app.func
    return inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(type(app).__call__)


def _into_starlette(app: Any, observer: Observer) -> Any:
    """Put the middleware around the stack that the application builds at its first call, or has built."""
    build = app.build_middleware_stack
    app.build_middleware_stack = lambda: ASGIMiddleware(note_in_handlers(build()), observer=observer).serve
    if app.middleware_stack is not None:
        app.middleware_stack = ASGIMiddleware(note_in_handlers(app.middleware_stack), observer=observer).serve
    _exclude_endpoints_from_telemetry(app, observer)
    return app


def _exclude_endpoints_from_telemetry(app: Any, observer: Observer) -> None:
    """Exclude probes and scrapes from the spans of FastAPI's own OpenTelemetry, which is outside our middleware."""
    telemetry = getattr(app, "_telemetry", None)
    if not isinstance(telemetry, dict) or "exclude" not in telemetry:
        return
    excluded, endpoints = telemetry["exclude"], observer._service.answers.endpoints

    def exclude(scope: Any) -> bool:
        path = scope["path"].removeprefix(scope.get("root_path") or "")
        return path in endpoints or bool(excluded is not None and excluded(scope))

    telemetry["exclude"] = exclude


def _refuse_other_settings(observer: Observer, settings: Arguments) -> None:
    given = Settings.read(settings)
    secrets = {field.name for field in fields(Settings) if not field.repr}
    for name in settings:
        new, old = getattr(given, name), getattr(observer.settings, name)
        if new != old:
            shown = ("not shown", "another one") if name in secrets else (repr(new), repr(old))
            msg = f"{name} is {shown[0]}, but this application was instrumented with {shown[1]}: give it in one place."
            raise SettingsError(msg)


def _not_an_application(app: Any) -> str:
    hint = " It is a class: give an instance." if isinstance(app, type) else ""
    return (
        f"{app!r} is neither an ASGI nor a WSGI application.{hint} Give the FastAPI, Starlette, Flask or Django "
        "application, or a callable with the parameters (scope, receive, send) or (environ, start_response)."
    )
