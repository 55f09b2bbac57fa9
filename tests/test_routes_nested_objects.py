"""The search for applications inside an object runs no code of it, is bounded, and adds no text of a client."""

from __future__ import annotations

import functools
from unittest.mock import MagicMock

import pytest
from django.utils.functional import SimpleLazyObject
from fastapi import FastAPI
from flask import Flask
from starlette.responses import PlainTextResponse
from werkzeug.local import LocalProxy

import scaleobs
from support.exchanges import active, asgi, counted, wsgi

executed = []


def fastapi():
    """Return an application with one route."""
    app = FastAPI(openapi_url=None)
    app.add_api_route("/things/{thing}", lambda thing: thing)
    return app


async def raw(scope, receive, send):
    """Answer without a framework."""
    await PlainTextResponse("raw")(scope, receive, send)


def recorded(name, result=None):
    """Return a property that records that it was read."""

    def read(_):
        executed.append(name)
        return result

    return property(read)


class Properties:
    """An object with properties of the names that the search reads."""

    app = recorded("app")
    application = recorded("application")
    callback = recorded("callback")
    default = recorded("default")
    redirect_slashes = recorded("redirect_slashes")
    router = recorded("router")
    routes = recorded("routes", [])
    wsgi_app = recorded("wsgi_app")

    def __call__(self, scope, receive, send):
        """Do nothing."""


class AnyName:
    """A client that makes an object of any name, as pymongo's does."""

    def __getattr__(self, name):
        executed.append(name)
        return AnyName()

    def __call__(self, scope, receive, send):
        """Do nothing."""


class OwnDict(dict):
    """A mapping that loads its values when it is read."""

    def items(self):
        executed.append("items")
        return super().items()

    def __iter__(self):
        executed.append("iter")
        return super().__iter__()

    def __len__(self):
        executed.append("len")
        return 1


class OwnText(str):
    """A text with methods of its own."""

    __slots__ = ()

    def rstrip(self, *_):
        executed.append("rstrip")
        return self


class OwnClass:
    """A proxy that loads what it stands for when its class is read."""

    @property
    def __class__(self):
        executed.append("class")
        return dict

    def __call__(self, scope, receive, send):
        """Do nothing."""


def connect():
    """Record that a lazy object was loaded."""
    executed.append("connect")
    return 7


THINGS = {
    "properties": Properties,
    "any name": AnyName,
    "own dict": lambda: OwnDict({"/a": raw}),
    "own text": lambda: OwnText("/a/"),
    "own class": OwnClass,
    "flask's proxy": lambda: LocalProxy(connect),
    "django's proxy": lambda: SimpleLazyObject(connect),
    "mock": MagicMock,
}


class Around:
    """An application around another one, with any other attribute."""

    def __init__(self, inner, **others):
        self.inner = inner
        self.__dict__.update(others)

    async def __call__(self, scope, receive, send):
        await self.inner(scope, receive, send)


def closure(inner, thing):
    """Return the same as a function."""

    async def call(scope, receive, send):
        _ = thing
        await inner(scope, receive, send)

    return call


PLACES = {
    "an attribute": lambda inner, thing: Around(inner, engine=thing),
    "the wrapped one": lambda inner, thing: Around(inner, app=thing),
    "a mapping": lambda inner, thing: Around(inner, engines={"/b": thing}),
    "a list": lambda inner, thing: Around(inner, engines=[thing, ("/b", thing)]),
    "a closure": closure,
}


@pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
@pytest.mark.parametrize("make", THINGS.values(), ids=THINGS)
def test_no_code_of_an_object_is_run(make, place, registry):
    """No property, no `__getattr__` and no lazy object: it may open a connection."""
    app = place(fastapi(), make())
    executed.clear()
    served = scaleobs.instrument(app, registry=registry, log_format="off")
    for path in ("/things/1", "/things/2", "/nowhere"):
        asgi(served, path=path)
    scaleobs.observer_of(app)._service._refresh_routes()

    assert [] == executed
    assert {("GET", "/things/{thing}", "200"): 2, ("GET", "unmatched", "404"): 1} == counted(registry)
    assert 0 == active(registry)
    assert 0 == scaleobs.observer_of(app)._service.storage.read().faults


@pytest.mark.parametrize(
    "make",
    [
        lambda one: {str(number): one for number in range(100_000)},
        lambda one: [one] * 100_000,
        lambda one: [[("/a", one)] * 1000] * 1000,
        lambda one: {str(number): {"/a": one} for number in range(1000)},
        lambda _: "/" + "a" * 10_000_000,
    ],
    ids=["a mapping", "a list", "lists of lists", "mappings in a mapping", "a long text"],
)
def test_search_of_a_big_object_reads_a_bounded_part(make, registry, monkeypatch):
    """An application may hold a cache of a hundred thousand entries."""
    from scaleobs._routes import search

    examined = []
    may_be_app = search.may_be_app
    monkeypatch.setattr(search, "may_be_app", lambda one: examined.append(one) or may_be_app(one))
    served = scaleobs.instrument(Around(fastapi(), cache=make(raw)), registry=registry, log_format="off")
    asgi(served, path="/things/1")

    assert len(examined) <= 75_000  # Three searches: to instrument, at the start, and for the first request.
    assert {("GET", "/things/{thing}", "200"): 1} == counted(registry)


class Tenants:
    """An application that builds another one for each first segment, which the client chooses."""

    def __init__(self):
        self.apps = {}
        self.last = ""

    def __call__(self, environ, start_response):
        first, _, rest = environ["PATH_INFO"][1:].partition("/")
        self.last = f"/{first}"
        if self.last not in self.apps:
            self.apps[self.last] = Flask(first, static_folder=None)
            self.apps[self.last].add_url_rule("/items/<item>", "item", lambda item: item)
        environ = {**environ, "SCRIPT_NAME": self.last, "PATH_INFO": f"/{rest}"}
        return self.apps[self.last](environ, start_response)


def test_path_that_an_object_keeps_of_a_request_is_no_route(registry):
    """What objects hold after the first request may be a client's invention: it is in no template."""
    app = Tenants()
    served = scaleobs.instrument(app, registry=registry, log_format="off")
    for _ in range(3):
        for number in range(5):
            wsgi(served, path=f"/invented-{number}/items/1")
            counted(registry)

    assert {("GET", "unmatched", "200"): 15} == counted(registry)
    routes = {route for _, route in scaleobs.observer_of(app)._service._refresh_routes()}
    assert not [route for route in routes if "invented" in route]


class Lazy:
    """An application that is built at the first request."""

    def __init__(self, build):
        self.build = build
        self.app = None

    def __call__(self, environ, start_response):
        if self.app is None:
            self.app = self.build()
        return self.app(environ, start_response)


def test_application_that_is_built_at_the_first_request_has_its_rules(registry):
    """The first request is unmatched, since nothing showed the application before."""
    flask = Flask("lazy", static_folder=None)
    flask.add_url_rule("/items/<item>", "item", lambda item: item)
    flasks = [flask]
    app = Lazy(functools.partial(flasks.pop))
    served = scaleobs.instrument(app, registry=registry, log_format="off")
    for number in range(4):
        wsgi(served, path=f"/items/{number}")
    wsgi(served, path="/nowhere")

    assert {
        ("GET", "unmatched", "200"): 1,
        ("GET", "/items/<item>", "200"): 3,
        ("GET", "unmatched", "404"): 1,
    } == counted(registry)


class Delegating:
    """A wrapper that has the attributes of what it wraps, as some libraries' proxies do."""

    def __init__(self, app):
        self.app = app

    def __getattr__(self, name):
        return getattr(self.app, name)


class DelegatingASGI(Delegating):
    """The same for ASGI."""

    async def __call__(self, scope, receive, send):
        await self.app(scope, receive, send)


class DelegatingWSGI(Delegating):
    """The same for WSGI."""

    def __call__(self, environ, start_response):
        return self.app(environ, start_response)


def test_wrapper_that_passes_on_attributes_is_counted(registry):
    """It is no FastAPI or Flask application, whose stack could be changed in place."""
    flask = Flask("inner", static_folder=None)
    flask.add_url_rule("/items/<item>", "item", lambda item: item)
    for call, app, path in ((asgi, DelegatingASGI(fastapi()), "/things/1"), (wsgi, DelegatingWSGI(flask), "/items/1")):
        served = scaleobs.instrument(app, registry=registry, log_format="off")
        assert 200 == call(served, path=path).status
        assert 404 == call(served, path="/nowhere").status

    assert {
        ("GET", "/things/{thing}", "200"): 1,
        ("GET", "/items/<item>", "200"): 1,
        ("GET", "unmatched", "404"): 2,
    } == counted(registry)
