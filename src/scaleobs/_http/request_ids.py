"""Libraries that make an id of a request of their own, unless it has a header with one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from scaleobs._routes.objects import attribute, unwrapped

_LIBRARIES = ("asgi_correlation_id", "starlette_context", "django_structlog", "log_request_id", "flask_log_request_id")


def reads_request_ids(app: Any) -> bool:
    """Return whether one of these libraries is a middleware of an application; runs none of its code."""
    return any(module.partition(".")[0] in _LIBRARIES for module in _modules(app))


def _modules(app: Any) -> Iterator[str]:
    for one in unwrapped(app):
        yield type(one).__module__
        listed = attribute(one, "user_middleware")
        for middleware in listed if type(listed) is list else ():
            yield str(getattr(attribute(middleware, "cls"), "__module__", ""))
    settings = getattr(sys.modules.get("django.conf"), "settings", None)
    if settings is not None and settings.configured:
        yield from map(str, settings.MIDDLEWARE)
