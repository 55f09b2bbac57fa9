"""
What the objects of an application refer to.

They are read without running any of their code: a property, a `__getattr__` or a lazy proxy may open a connection.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Iterator
from types import (
    BuiltinFunctionType,
    FunctionType,
    GetSetDescriptorType,
    MappingProxyType,
    MemberDescriptorType,
    MethodType,
)
from typing import Any

WRAPPED = ("app", "_app", "application", "_application", "wrapped", "__wrapped__", "wsgi_app", "asgi_app", "inner")
"""The attributes by which a middleware usually refers to the application that it wraps."""

_MAX_WRAPPERS = 100
_IN_C = (GetSetDescriptorType, MemberDescriptorType)
_WITHOUT_CODE = (FunctionType, *_IN_C)


def is_a(thing: Any, *kinds: type) -> bool:
    """Return whether an object is of one of these classes; unlike `isinstance`, by its type only."""
    return issubclass(type(thing), kinds)


def attribute(thing: Any, name: str) -> Any:
    """Return an attribute that the object holds, or a method of its class; otherwise `None`."""
    in_class = _in_class(thing, name)
    with contextlib.suppress(Exception):
        if in_class is None or type(in_class) in _WITHOUT_CODE or not hasattr(type(in_class), "__get__"):
            return object.__getattribute__(thing, name)
        if not hasattr(type(in_class), "__set__"):  # A cached property, which the object may hold by now.
            return _dict_of(thing).get(name)
    return None


def attributes(thing: Any) -> Iterator[tuple[str, Any]]:
    """Yield the names and values of the attributes that an object holds."""
    yield from _dict_of(thing).items()
    for base in type(thing).__mro__:
        if "__slots__" not in base.__dict__:
            continue
        for name, member in base.__dict__.items():
            if type(member) is MemberDescriptorType:
                with contextlib.suppress(AttributeError):  # It is not set.
                    yield name, member.__get__(thing)


def entries(thing: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the keys and values of a mapping, or `None` and the values of a list or a tuple."""
    if is_a(thing, dict):
        yield from dict.items(thing)
    elif is_a(thing, MappingProxyType):
        yield from thing.items()
    else:
        kind = list if is_a(thing, list) else tuple
        yield from ((None, one) for one in kind.__iter__(thing))


def is_container(thing: Any) -> bool:
    """Return whether `entries` accepts an object."""
    return is_a(thing, dict, list, tuple, MappingProxyType)


def references(function: Any) -> Iterator[Any]:
    """Yield what a function refers to by its closure, its defaults and its globals."""
    for cell in function.__closure__ or ():
        with contextlib.suppress(ValueError):  # It is not filled yet.
            yield cell.cell_contents
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()
    yield from (function.__globals__[name] for name in function.__code__.co_names if name in function.__globals__)


def may_be_app(thing: Any) -> bool:
    """Return whether an object can be called as an application."""
    return callable(thing) and not is_a(thing, type) and not is_a(thing, BuiltinFunctionType)


def wrapped_by(thing: Any) -> list[Any]:
    """Return what an application calls as far as it shows it."""
    if is_a(thing, functools.partial):
        return [thing.func, *thing.args, *thing.keywords.values()]
    if is_a(thing, MethodType):
        return [thing.__self__]
    if is_a(thing, FunctionType):
        held = (thing.__dict__.get("__wrapped__"), *references(thing))
    else:
        held = tuple(attribute(thing, name) for name in WRAPPED)
    return [one for one in held if may_be_app(one)]


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


def router_of(app: Any) -> Any:
    """Return the router of an application as Starlette has them, or the object itself."""
    router = attribute(app, "router")
    return app if router is None else router


def has_routes(app: Any) -> bool:
    """Return whether an object is an application or a router as Starlette has them."""
    router = router_of(app)
    if attribute(router, "redirect_slashes") is None:
        return False
    return _in_class(router, "routes") is not None or attribute(router, "routes") is not None


def is_empty(app: Any) -> bool:
    """Return whether an application is a router without routes, which finds nothing."""
    default = attribute(app, "default")
    return has_routes(app) and default is not None and default == attribute(app, "not_found")


_WITHOUT_ROUTES = ("a2wsgi", "django", "prometheus_client", "starlette.middleware.wsgi", "starlette.staticfiles")
"""Modules whose applications are often mounted and call no Starlette endpoint."""


def is_without_routes(app: Any) -> bool:
    """Return whether an application is of a class that never has an endpoint."""
    modules = [attribute(app, "__module__"), *(base.__module__ for base in type(app).__mro__)]
    return any(f"{module}.".startswith(f"{name}.") for module in modules for name in _WITHOUT_ROUTES)


def takes_asgi(app: Any) -> bool:
    """Return whether a call of the application returns a coroutine, or takes the three parameters of ASGI."""
    while is_a(app, functools.partial):
        app = app.func
    call = app if is_a(app, BuiltinFunctionType, FunctionType, MethodType) else type(app).__call__
    with contextlib.suppress(Exception):  # It can't be read.
        return inspect.iscoroutinefunction(call) or has_routes(app) or count_parameters(app) == 3  # noqa: PLR2004
    return False


def count_parameters(app: Any) -> int:
    """Return how many positional arguments a call needs; 0 if that can't be read."""
    try:
        parameters = inspect.signature(_readable(app)).parameters.values()
    except Exception:
        return 0
    positional = (one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD))
    return sum(one.default is one.empty for one in positional)


def _readable(app: Any) -> Any:
    """Return what is called, as an object whose signature is read without running code of the application."""
    if is_a(app, functools.partial):
        return functools.partial(_readable(app.func), *app.args, **app.keywords)
    if is_a(app, FunctionType, MethodType):
        return app
    return MethodType(_in_class(app, "__call__"), app)


def _in_class(thing: Any, name: str) -> Any:
    return next((base.__dict__[name] for base in type(thing).__mro__ if name in base.__dict__), None)


def _dict_of(thing: Any) -> dict[str, Any]:
    own = _in_class(thing, "__dict__")
    return own.__get__(thing) if type(own) is GetSetDescriptorType else {}
