"""Applications that are wrapped, hidden or of no supported framework."""

from __future__ import annotations

import functools

import pytest
from flask import Flask
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from werkzeug.middleware.proxy_fix import ProxyFix

from scaleobs._routes import routes_of
from support import django_site  # noqa: F401 - Configures Django.
from support.routing import Site


def hello(request):
    """Answer."""
    return PlainTextResponse("hello")


def starlette():
    """Return an application with one route in a mount."""
    return Starlette(routes=[Mount("/in", routes=[Route("/items/{item_id}", hello)])])


def flask():
    """Return an application with one rule."""
    app = Flask("shop")
    app.add_url_rule("/in/items/<item_id>", "item", lambda item_id: item_id)
    return app


class Wrapper:
    """A middleware with its application in an attribute."""

    def __init__(self, app):
        self._app = app

    def __call__(self, *request):
        """Call the application."""
        return self._app(*request)


def closure(app):
    """Return a function that calls an application."""

    async def call(scope, receive, send):
        await app(scope, receive, send)

    return call


async def first_of(app, scope, receive, send):
    """Call an application that is an argument."""
    await app(scope, receive, send)


HELD, DEFAULT = starlette(), flask()


def default(environ, start_response, app=DEFAULT):
    """Call an application that is the default of a parameter."""
    return app(environ, start_response)


async def named(scope, receive, send):
    """Call an application that the module names."""
    await HELD(scope, receive, send)


@pytest.mark.parametrize(
    "wrapped",
    [
        pytest.param(Wrapper(starlette()), id="an attribute"),
        pytest.param(closure(Wrapper(starlette())), id="a closure"),
        pytest.param(functools.partial(first_of, starlette()), id="a partial"),
        pytest.param(named, id="a global"),
        pytest.param(starlette().router, id="a router"),
    ],
)
def test_wrapped_asgi_application_is_found(wrapped):
    """The routes of a wrapped application are found before the first request."""
    site = Site(wrapped, "asgi")

    assert (("GET", "/in/items/{item_id}"),) == site.routes.known()
    assert (200, "/in/items/{item_id}") == site.get("GET", "/in/items/7")


@pytest.mark.parametrize(
    "wrapped",
    [
        pytest.param(flask().wsgi_app, id="a bound method"),
        pytest.param(ProxyFix(flask().wsgi_app), id="a middleware around a bound method"),
        pytest.param(default, id="a default"),
    ],
)
def test_wrapped_wsgi_application_is_found(wrapped):
    """The same for WSGI."""
    site = Site(wrapped, "wsgi")

    assert {("GET", "/in/items/<item_id>"), ("GET", "/static/<path:filename>")} == set(site.routes.known())
    assert (200, "/in/items/<item_id>") == site.get("GET", "/in/items/7")


HIDDEN = starlette()


async def with_lookup(scope, receive, send):
    """Call an application that no attribute shows."""
    await globals()["HIDDEN"](scope, receive, send)


def test_hidden_starlette_application_is_found_by_its_requests():
    """The router writes itself into the scope, so that the templates are right."""
    site = Site(with_lookup, "asgi")

    assert () == site.routes.known()
    assert [(200, "/in/items/{item_id}"), (404, "unmatched")] == [
        site.get("GET", "/in/items/7"),
        site.get("GET", "/nowhere"),
    ]


async def null(scope, receive, send):
    """Answer without any framework."""
    await PlainTextResponse("null")(scope, receive, send)


def null_wsgi(environ, start_response):
    """Answer without any framework."""
    start_response("200 OK", [])
    return [b"null"]


@pytest.mark.parametrize(("app", "protocol"), [(null, "asgi"), (null_wsgi, "wsgi")])
def test_application_of_no_framework_is_inspected_once(app, protocol):
    """Every request is unmatched, and that is cached."""
    site = Site(app, protocol)

    assert {(200, "unmatched")} == {site.get("GET", f"/{number}") for number in range(10)}
    assert 1 == site.lookups


@pytest.mark.parametrize(
    ("returned", "template"),
    [
        ("/orders/{id}", "/orders/{id}"),
        (None, "unmatched"),
        ("", "unmatched"),
        (b"/orders", "unmatched"),
        (7, "unmatched"),
        ("x" * 200, "x" * 200),
        ("x" * 201, "unmatched"),
        ("/a\nb", "unmatched"),
        ("/\udc80", "unmatched"),
    ],
)
def test_function_of_the_user_is_believed_within_bounds(returned, template):
    """The result of the function is the template, if the text can be a label."""
    routes = routes_of(null, lambda request: returned)

    assert (template, False) == routes.template({"path": "/orders/7"})
    assert () == routes.known()


def test_function_of_the_user_sees_what_the_application_left():
    """The function receives the scope or environ itself, and `template` raises its exception."""
    routes = routes_of(starlette(), lambda request: request["my.route"])

    assert ("/mine", False) == routes.template({"my.route": "/mine"})
    with pytest.raises(KeyError):
        routes.template({})


class Hostile:
    """An application whose attributes raise."""

    def __getattr__(self, name):
        raise RuntimeError(name)

    def __call__(self, environ, start_response):
        return null_wsgi(environ, start_response)


def test_application_that_cannot_be_inspected():
    """An object whose attributes raise is served, and its requests are unmatched."""
    site = Site(Hostile(), "wsgi")

    assert (200, "unmatched") == site.get("GET", "/items/7")
    assert () == site.routes.known()
