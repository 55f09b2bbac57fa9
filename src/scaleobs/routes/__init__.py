"""
The route template of a request, which is what its series are labelled with; never the path, which a client
makes up.

Each framework is asked in its own way, by looking at the objects that the application brings: none is
imported here before the application has imported it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from scaleobs.catalog import UNMATCHED_ROUTE
from scaleobs.routes import django, flask, starlette
from scaleobs.routes.notes import NOTE, Notes, noted

__all__ = ["finder", "of_environ", "routing_app", "watch_framework"]


def of_environ(environ: Notes) -> str:
    """Return the template that the framework's hook noted."""
    return noted(environ) if NOTE in environ else UNMATCHED_ROUTE


def finder(scope: Notes, app: Any) -> Callable[[], str]:
    """
    Return what finds the template once the application has handled a request.

    Args:
        scope: as the application is about to get it.
        app: what `routing_app` found; the scope's own one, where it names one, goes before.
    """
    # Asked now, since a mounted application puts itself and its mount's path there.
    app = scope.get("app", app)
    root = scope.get("root_path") if "app_root_path" in scope else None

    def find() -> str:
        if NOTE in scope:
            return noted(scope)
        outermost = scope.get("app") if app is None else app
        return UNMATCHED_ROUTE if outermost is None else starlette.template(outermost, scope, root)

    return find


def routing_app(app: Any) -> Any:
    """Return the application with routes that middleware is wrapped around, where its attributes tell, or `None`."""
    for _ in range(20):
        if app is None or starlette.has_routes(app):
            return app
        app = getattr(app, "app", None)
    return None


def watch_framework(app: Any) -> None:
    """Have a Flask application or a Django handler note its templates, once; does nothing for any other."""
    app = getattr(app, "__self__", app)  # Flask's `app.wsgi_app` is a bound method.
    if hasattr(app, "before_request_funcs") and hasattr(app, "url_map"):
        flask.watch(app)
    elif hasattr(app, "resolve_request") and hasattr(app, "load_middleware"):
        django.watch(app)
