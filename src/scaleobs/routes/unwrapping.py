"""What an application is wrapped in."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from typing import Any

_MOST = 100
_NAMES = ("app", "_app", "application", "_application", "wrapped", "__wrapped__", "wsgi_app", "asgi_app", "inner")


def inside(app: Any) -> Iterator[Any]:
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
