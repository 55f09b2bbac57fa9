"""Where the one line goes in, for each kind of application."""

from __future__ import annotations

import functools
import inspect
import threading
import weakref
from typing import Any, TypeVar, Unpack, cast

from scaleobs._http.asgi import ASGIMiddleware
from scaleobs._http.wsgi import WSGIMiddleware
from scaleobs.observer import Observer
from scaleobs.settings import Arguments, Settings, SettingsError
from scaleobs.values import SECRETS

App = TypeVar("App")

# What is observed, by the id of the application and of what `instrument` returned for it. The observer's hold
# on both keeps their ids from being used again while the entry stands.
_observers: weakref.WeakValueDictionary[int, Observer] = weakref.WeakValueDictionary()
_instrumenting = threading.Lock()


def instrument(app: App, **settings: Unpack[Arguments]) -> App:
    """
    Make a web application observable, and return it.

    FastAPI, Starlette and Flask applications are instrumented in place, outside all their middleware, and
    returned. For any other ASGI or WSGI callable, Django's handlers among them, a wrapper is returned to be
    served in its place. A second call for the same application, or for the wrapper, returns the same and
    counts nothing twice.

    Args:
        app: the application.
        settings: see `scaleobs.settings.Settings`.

    Raises:
        TypeError: `app` is neither an ASGI nor a WSGI application.
        SettingsError: a setting is unknown, has a value that can't be used, or differs from that of an
            earlier call.
    """
    with _instrumenting:
        observer = _observers.get(id(app))
        if observer is not None:
            _refuse_other_settings(observer, settings)
            return cast(App, observer._service.served)
        if isinstance(app, ASGIMiddleware | WSGIMiddleware):
            _refuse_other_settings(app.observer, settings)
            return app
        kind = _kind(app)
        observer = Observer(**settings)
        observer._service.app = app
        if kind == "starlette":
            served: Any = _into_starlette(app, observer)
        elif kind == "flask":
            app.wsgi_app = WSGIMiddleware(app.wsgi_app, observer=observer)  # type: ignore[attr-defined]
            served = app
        elif kind == "asgi":
            served = ASGIMiddleware(app, observer=observer).serve  # type: ignore[arg-type]
        else:
            served = WSGIMiddleware(app, observer=observer)  # type: ignore[arg-type]
        observer._service.served = served
        _observers[id(app)] = _observers[id(served)] = observer
        return cast(App, served)


def observer_of(app: Any) -> Observer:
    """
    Return the observer of an application that was instrumented.

    Raises:
        LookupError: it was not.
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
    if hasattr(app, "build_middleware_stack") and hasattr(app, "router"):
        return "starlette"
    if hasattr(app, "wsgi_app") and hasattr(app, "url_map"):
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
    wanted = 3 if _is_async(app) or required == 3 else 2  # noqa: PLR2004
    wants_more = any(one.kind is one.KEYWORD_ONLY and one.default is one.empty for one in parameters)
    if wants_more or not required <= wanted <= most:
        raise TypeError(_not_an_application(app))
    return "asgi" if wanted == 3 else "wsgi"  # noqa: PLR2004


def _is_async(app: Any) -> bool:
    while isinstance(app, functools.partial):
        app = app.func
    return inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(type(app).__call__)


def _into_starlette(app: Any, observer: Observer) -> Any:
    """Put the middleware around the stack that the application builds at its first call, or has built."""
    build = app.build_middleware_stack
    app.build_middleware_stack = lambda: ASGIMiddleware(build(), observer=observer).serve
    if app.middleware_stack is not None:
        app.middleware_stack = ASGIMiddleware(app.middleware_stack, observer=observer).serve
    _leave_endpoints_untraced(app, observer)
    return app


def _leave_endpoints_untraced(app: Any, observer: Observer) -> None:
    """Have FastAPI's own OpenTelemetry, which stands around everything else, make no spans of probes and scrapes."""
    telemetry = getattr(app, "_telemetry", None)
    if not isinstance(telemetry, dict) or "exclude" not in telemetry:
        return
    excluded, endpoints = telemetry["exclude"], observer._service.answers.endpoints

    def exclude(scope: Any) -> bool:
        path = scope["path"].removeprefix(scope.get("root_path") or "")
        return path in endpoints or bool(excluded is not None and excluded(scope))

    telemetry["exclude"] = exclude


def _refuse_other_settings(observer: Observer, settings: Arguments) -> None:
    wanted = Settings.read(settings)
    for name in settings:
        now, then = getattr(wanted, name), getattr(observer.settings, name)
        if now != then:
            here, there = ("not shown", "another one") if name in SECRETS else (repr(now), repr(then))
            msg = f"{name} is {here}, but this application was instrumented with {there}: give it in one place."
            raise SettingsError(msg)


def _not_an_application(app: Any) -> str:
    hint = " It is a class: give an instance." if isinstance(app, type) else ""
    return (
        f"{app!r} is neither an ASGI nor a WSGI application.{hint} Give the FastAPI, Starlette, Flask or Django "
        "application, or a callable with the parameters (scope, receive, send) or (environ, start_response)."
    )
