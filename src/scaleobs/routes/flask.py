"""The rules of Flask."""

from __future__ import annotations

from typing import Any

from scaleobs.routes.notes import note
from scaleobs.routes.starlette import toggled


class _NoteRoute:
    """A `before_request` function that notes the rule of the request."""

    def __init__(self, app: Any) -> None:
        self._app = app

    def __call__(self) -> None:
        from flask import request

        note(request.environ, lambda: _template(self._app, request))


def watch(app: Any) -> None:
    """Note the rule of every request, first of all, so that a hook that answers by itself finds the note made."""
    hooks = app.before_request_funcs.setdefault(None, [])
    if not any(isinstance(hook, _NoteRoute) for hook in hooks):
        hooks.insert(0, _NoteRoute(app))


def _template(app: Any, request: Any) -> str | None:
    rule = request.url_rule
    if rule is None and request.routing_exception is not None:
        rule = _rule_of_error(app, request)
    return None if rule is None else str(rule.rule)


def _rule_of_error(app: Any, request: Any) -> Any:
    """Return the rule that a slash redirect leads to, or whose methods don't include the request's, or `None`."""
    from werkzeug.exceptions import HTTPException, MethodNotAllowed
    from werkzeug.routing import RequestRedirect

    error = request.routing_exception
    try:
        adapter = app.create_url_adapter(request)
        if isinstance(error, MethodNotAllowed) and error.valid_methods:
            return adapter.match(method=next(iter(error.valid_methods)), return_rule=True)[0]
        if isinstance(error, RequestRedirect):
            return adapter.match(path_info=toggled(request.path), return_rule=True)[0]
    except HTTPException:
        return None
    return None
