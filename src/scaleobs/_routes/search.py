"""The search for all applications of known kinds inside an object."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, TypeVar

from scaleobs._routes.interface import VisitedRoutes
from scaleobs._routes.objects import (
    WRAPPED,
    attribute,
    attributes,
    count_parameters,
    entries,
    has_routes,
    is_a,
    is_container,
    may_be_app,
    references,
    router_of,
    wrapped_by,
)

Kind = Callable[[Any], VisitedRoutes]
Item = TypeVar("Item")

_MAX_OBJECTS = 300
_MAX_VALUES = 20_000
_MAX_ITEMS = 100
_MAX_LENGTH = 200
_MAX_PREFIXES = 1000


@dataclass
class Part:
    """
    An application of a known kind.

    Attributes:
        app: the framework's object; the router of Starlette's applications.
        routes: its routes.
        prefix: the template of the mounts and the keys of the mappings around it.
        is_wrapped: whether only wrappers lie around it, which pass on each request.
        is_mounted: whether a mount of another part leads to it.
    """

    app: Any
    routes: VisitedRoutes
    prefix: str
    is_wrapped: bool
    is_mounted: bool


@dataclass
class _Step:
    """
    An object of the search, and how it was reached.

    Attributes:
        mounts: the mounted applications around it.
        is_in_router: whether the last of them is mounted by a router of Starlette.
    """

    thing: Any
    prefix: str = ""
    is_wrapped: bool = True
    mounts: tuple[Any, ...] = ()
    is_in_router: bool = False

    def to(self, thing: Any, prefix: str = "", *, is_wrapped: bool = True) -> _Step:
        whole = joined(self.prefix, prefix) if prefix else self.prefix
        return _Step(thing, whole, self.is_wrapped and is_wrapped, self.mounts, self.is_in_router)


class Search:
    """
    A search for all applications of known kinds, the nearest first. An object that can't be read shows nothing.

    Args:
        kind_of: returns the class of routes of an application, or `None`.

    Attributes:
        mounts: the mounted applications that contain a part.
        prefixes: the paths that the objects hold; a part may lie below each of them.
        may_grow: whether an object may build applications later: one of its attributes is empty, or a function without
            parameters.
        is_served: whether requests have come. From then on an object may hold a path that a client has chosen, so that
            no other paths than the constants of code are added.
    """

    def __init__(self, kind_of: Callable[[Any], Kind | None]) -> None:
        self._kind_of = kind_of
        self._routes: dict[int, tuple[Any, VisitedRoutes]] = {}
        self._values_left = 0
        self._code: set[type | CodeType] = set()
        self.prefixes: set[str] = set()
        self.mounts: list[Any] = []
        self.may_grow = False
        self.is_served = False

    def parts(self, *roots: Any) -> list[Part]:
        """Return the applications that the roots are or call; the same application has the same routes each time."""
        self._values_left = _MAX_VALUES
        pending = [_Step(root) for root in roots if root is not None]
        seen, kept, found = set[tuple[int, str]](), list[Any](), list[Part]()
        mounts = list[Any]()
        while pending and len(seen) < _MAX_OBJECTS:
            step = pending.pop(0)
            if (id(step.thing), step.prefix) in seen:
                continue
            seen.add((id(step.thing), step.prefix))
            kept.append(step.thing)  # So that no other object gets the same id.
            try:
                routes = self._routes_of(step.thing)
                if routes is None:
                    pending += self._next(step)
                    continue
                mounts += step.mounts
                pending += [step.to(one) for name in WRAPPED if (one := attribute(step.thing, name)) is not None]
                app = _identity(step.thing)
                pending += [step.to(one, is_wrapped=False) for one in _default_of(app)]
                if step.is_in_router and step.is_wrapped and has_routes(app):
                    continue  # The outer application of the same kind has its requests under the mount.
                if not any(one.app is app and one.prefix == step.prefix for one in found):
                    found.append(Part(app, routes, step.prefix, step.is_wrapped, bool(step.mounts)))
                for mounted, prefix in getattr(routes, "mounts", list)():
                    whole = joined(step.prefix, prefix)
                    pending.append(_Step(mounted, whole, mounts=(*step.mounts, mounted), is_in_router=has_routes(app)))
            except Exception:  # noqa: S112 - The others may be readable.
                continue
        self.mounts = mounts
        return found

    def holds(self, path: str) -> bool:
        """Return whether a path consists of paths that the objects hold: clients can't invent it."""
        if not path or path in self.prefixes:
            return True
        ends = [at for at, character in enumerate(path) if character == "/" and at]
        return any(path[:at] in self.prefixes and self.holds(path[at:]) for at in ends)

    def _routes_of(self, thing: Any) -> VisitedRoutes | None:
        try:
            app = _identity(thing)
            if id(app) not in self._routes:
                kind = self._kind_of(thing)
                if kind is None:
                    return None
                self._routes[id(app)] = app, kind(thing)
        except Exception:  # Its attributes may be readable.
            return None
        return self._routes[id(app)][1]

    def _next(self, step: _Step) -> Iterator[_Step]:
        """Yield what an object calls: what it wraps, then the values of its attributes that may be applications."""
        thing = step.thing
        self._add_constants(thing)
        with contextlib.suppress(Exception):
            yield from [step.to(one) for one in wrapped_by(thing)]
        for name, value in self._limited(_named_values(thing)):
            with contextlib.suppress(Exception):
                if is_a(value, str):
                    self._add_prefix(_text(value))
                elif is_container(value):
                    self.may_grow = self.may_grow or next(entries(value), None) is None
                    yield from list(self._items(step, value))
                elif not is_a(thing, FunctionType) and self._may_be_part(name, value):
                    yield step.to(value, is_wrapped=False)
                elif value is None or (may_be_app(value) and count_parameters(value) == 0):
                    self.may_grow = True

    def _items(self, step: _Step, items: Any) -> Iterator[_Step]:
        """Yield the applications in a container, below the paths that are their keys or lie beside them."""
        for key, value in self._limited(entries(items)):
            is_pair = is_a(value, list, tuple)
            beside = list(self._limited(one for _, one in entries(value))) if is_pair else [value]
            texts = [_text(text) for one in (*beside, key) for text in _parts_of(one) if is_a(text, str)]
            prefix = next((one for one in texts if one.startswith("/")), "").rstrip("/*")
            if not self._add_prefix(prefix):
                continue
            for one in beside:
                app = one if may_be_app(one) or is_pair else attribute(one, "callback")  # Of Django's patterns.
                if may_be_app(app):
                    if not prefix and is_a(key, str):  # Perhaps the first segment of a path, or a protocol.
                        self._add_prefix(f"/{_text(key)}")
                    yield step.to(app, prefix, is_wrapped=False)

    def _may_be_part(self, name: str, value: Any) -> bool:
        if value is None or is_a(value, type):
            return False
        if self._kind_of(value) is not None:
            return True
        return may_be_app(value) and ("app" in name or count_parameters(value) in {2, 3})

    def _add_constants(self, thing: Any) -> None:
        """Add the paths in the code of a function, or of the methods of an object."""
        code = thing.__code__ if is_a(thing, FunctionType) else type(thing)
        if code in self._code:
            return
        self._code.add(code)
        methods = (one for base in type(thing).__mro__ for one in base.__dict__.values() if is_a(one, FunctionType))
        for function in [thing] if is_a(thing, FunctionType) else self._limited(methods):
            for value in self._limited(function.__code__.co_consts):
                for text in _parts_of(value):
                    if is_a(text, str):
                        self._add_prefix(text, is_constant=True)

    def _add_prefix(self, text: str, *, is_constant: bool = False) -> bool:
        """Add a path; return whether an application may lie below it."""
        if len(text) > _MAX_LENGTH or not text.isprintable():
            return False
        prefix = text.rstrip("/*")
        if not prefix.startswith("/") or prefix in self.prefixes:
            return not prefix or prefix in self.prefixes
        if (self.is_served and not is_constant) or len(self.prefixes) >= _MAX_PREFIXES:
            return False
        self.prefixes.add(prefix)
        return True

    def _limited(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield the first items, and none if too many objects were read: an application may hold a cache."""
        found = list(islice(items, min(_MAX_ITEMS, self._values_left)))
        self._values_left -= len(found)
        return iter(found)


def joined(prefix: str, template: str) -> str:
    """Return a template below a prefix."""
    return prefix.rstrip("/") + template


def _identity(app: Any) -> Any:
    """Return the object that stands for an application: Starlette's have a router, which is found by itself, too."""
    return router_of(app) if has_routes(app) else app


def _default_of(app: Any) -> list[Any]:
    """Return what a router of Starlette calls if no route matches, unless it is the router's own answer."""
    default = attribute(app, "default") if has_routes(app) else None
    return [] if default is None or (is_a(default, MethodType) and default.__self__ is app) else [default]


def _named_values(thing: Any) -> Iterator[tuple[str, Any]]:
    """Yield the names and values of an object's attributes, or what a function refers to."""
    if is_a(thing, FunctionType):
        yield from (("", value) for value in references(thing))
    elif not is_a(thing, MethodType, ModuleType):
        yield from attributes(thing)


def _text(value: str) -> str:
    """Return a text of Python's own class: the methods of another one would be called."""
    return str.__str__(value)


def _parts_of(key: Any) -> Any:
    return key if is_a(key, tuple) else (key,)
