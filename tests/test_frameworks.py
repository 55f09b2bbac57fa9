"""`instrument` for each kind of application."""

from __future__ import annotations

import functools
import gc
import inspect
import sys
import time
import weakref

import pytest
from fastapi import FastAPI
from flask import Flask
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from werkzeug.middleware.proxy_fix import ProxyFix

import scaleobs
from support.exchanges import asgi, counted, wsgi


def hello(request):
    """Answer by Starlette."""
    return PlainTextResponse("hello")


def boom(request):
    """Fail."""
    msg = "boom"
    raise RuntimeError(msg)


def starlette_app(**more):
    """Return an application with two routes."""
    return Starlette(routes=[Route("/hello/{name}", hello), Route("/boom", boom)], **more)


def flask_app():
    """Return the same by Flask."""
    app = Flask("shop")
    app.add_url_rule("/hello/<name>", "hello", lambda name: f"hello {name}")
    app.add_url_rule("/boom", "boom", lambda: boom(None))
    return app


async def raw_asgi(scope, receive, send):
    """Answer by hand."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


def raw_wsgi(environ, start_response):
    """Answer by hand."""
    start_response("200 OK", [])
    return [b"hello"]


def serve(app, path="/hello/you"):
    """Serve one request in the application's protocol."""
    is_wsgi = isinstance(app, Flask | scaleobs.WSGIMiddleware)
    return wsgi(app, path=path) if is_wsgi else asgi(app, path=path)


@pytest.mark.parametrize("make", [starlette_app, FastAPI, flask_app])
def test_framework_application_is_instrumented_in_place(make, registry):
    """The application itself is returned, and a second call changes nothing."""
    app = make()

    assert app is scaleobs.instrument(app, registry=registry)
    assert app is scaleobs.instrument(app)
    assert app is scaleobs.instrument(app, registry=registry)
    assert 200 == serve(app, "/health").status
    serve(app)
    assert 1 == sum(counted(registry).values())


@pytest.mark.parametrize("function", [raw_asgi, raw_wsgi])
def test_callable_is_wrapped_once(function, registry):
    """A callable gets a wrapper; a second call, and a call with the wrapper, return the same one."""
    app = functools.partial(function)
    wrapped = scaleobs.instrument(app, registry=registry)

    assert wrapped is not app
    assert wrapped is scaleobs.instrument(app)
    assert wrapped is scaleobs.instrument(wrapped)
    assert scaleobs.observer_of(app) is scaleobs.observer_of(wrapped)
    serve(wrapped)
    assert {("GET", "unmatched", "200"): 1} == counted(registry)


@pytest.mark.parametrize("make", [starlette_app, flask_app])
def test_error_page_of_the_framework_is_counted(make, registry):
    """The middleware is outside the framework's error handling, so a 500 is counted with its route."""
    app = scaleobs.instrument(make(), registry=registry)

    assert 500 == serve(app, "/boom").status
    assert {("GET", "/boom", "500"): 1} == counted(registry)


class Refusing:
    """A middleware that answers without the application."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        await PlainTextResponse("who are you?", 401)(scope, receive, send)


@pytest.mark.parametrize("is_built", [False, True])
def test_middleware_added_later_is_inside(is_built, registry):
    """Our middleware stays outermost if others are added later, and if the application has served already."""
    app = starlette_app(middleware=[Middleware(Refusing)] if is_built else [])
    if is_built:
        asgi(app, path="/hello/you")
    scaleobs.instrument(app, registry=registry)
    if not is_built:
        app.add_middleware(Refusing)

    assert 200 == asgi(app, path="/health").status
    assert 401 == asgi(app, path="/hello/you").status
    assert {("GET", "/hello/{name}", "401"): 1} == counted(registry)


def test_flask_behind_other_wsgi_middleware_keeps_its_routes(registry):
    """`app.wsgi_app` may be wrapped before, for example for a proxy's headers."""
    app = flask_app()
    app.wsgi_app = ProxyFix(app.wsgi_app)
    scaleobs.instrument(app, registry=registry)

    assert 200 == wsgi(app, path="/hello/you").status
    assert {("GET", "/hello/<name>", "200"): 1} == counted(registry)


def test_explicit_forms(registry):
    """The middleware classes can be used directly, and count the same."""
    by_hand = starlette_app()
    by_hand.add_middleware(scaleobs.ASGIMiddleware, service="shop", registry=registry)
    flask = flask_app()
    flask.wsgi_app = scaleobs.WSGIMiddleware(flask.wsgi_app, service="shop", registry=registry)
    outside = scaleobs.ASGIMiddleware(starlette_app(), registry=registry)

    for app in (by_hand, flask, outside):
        assert 200 == serve(app).status
        assert 200 == serve(app, "/ready").status
    assert {("GET", "/hello/{name}", "200"): 2, ("GET", "/hello/<name>", "200"): 1} == counted(registry)
    assert outside.observer is scaleobs.observer_of(outside)
    assert outside is scaleobs.instrument(outside)


def test_other_settings_on_a_second_call_are_refused():
    """A setting that differs from that of the first call is an error with both values; the same value is accepted."""
    app = scaleobs.instrument(functools.partial(raw_asgi), service="orders")

    assert app is scaleobs.instrument(app, service="orders")
    with pytest.raises(scaleobs.SettingsError, match=r"service is 'shop', but .* with 'orders'"):
        scaleobs.instrument(app, service="shop")


class AsyncCallable:
    """An ASGI application that is an object."""

    async def __call__(self, scope, receive, send):
        await raw_asgi(scope, receive, send)


class SyncCallable:
    """A WSGI application that is an object."""

    def __call__(self, environ, start_response):
        return raw_wsgi(environ, start_response)

    def method(self, environ, start_response, more=None):
        """Be an application as a method."""
        return raw_wsgi(environ, start_response)


async def configured(config, scope, receive, send):
    """Take one more argument."""
    await raw_asgi(scope, receive, send)


def decorated(app):
    """Return a WSGI application inside a decorator without functools.wraps."""
    return lambda *args, **kwargs: app(*args, **kwargs)  # noqa: PLW0108 - It is about this form.


async def decorated_asgi(*args):
    """Take any arguments."""
    await raw_asgi(*args)


@pytest.mark.parametrize(
    ("app", "kind"),
    [
        (AsyncCallable(), "asgi"),
        (functools.partial(configured, {}), "asgi"),
        (functools.partial(AsyncCallable()), "asgi"),
        (lambda scope, receive, send: raw_asgi(scope, receive, send), "asgi"),  # noqa: PLW0108
        (decorated_asgi, "asgi"),
        (AsyncCallable().__call__, "asgi"),
        (SyncCallable(), "wsgi"),
        (SyncCallable().method, "wsgi"),
        (functools.partial(lambda config, environ, start: raw_wsgi(environ, start), {}), "wsgi"),
        (decorated(raw_wsgi), "wsgi"),
    ],
)
def test_kind_of_a_callable_is_recognised(app, kind, registry):
    """Functions, methods, partials and objects of both protocols are distinguished and served."""
    wrapped = scaleobs.instrument(app, registry=registry)

    assert kind == ("asgi" if inspect.iscoroutinefunction(wrapped) else "wsgi")
    assert b"hello" == serve(wrapped).body


class Double:
    """An application of ASGI 2: one call for the scope, another for the rest."""

    def __init__(self, scope):
        self.scope = scope

    async def __call__(self, receive, send):
        """Never be called."""


@pytest.mark.parametrize(
    "thing",
    [None, 3, "main:app", sys, {}, AsyncCallable, Double, Double({}), lambda: None, lambda request: request],
)
def test_what_is_no_application_is_refused(thing):
    """Anything else is a TypeError with the object and the fix."""
    with pytest.raises(TypeError, match="is neither an ASGI nor a WSGI application") as refused:
        scaleobs.instrument(thing)

    assert repr(thing) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_observer_of_an_application_that_is_not_instrumented():
    """A request for a missing observer is an error with the fix."""
    with pytest.raises(LookupError, match=r"call scaleobs.instrument\(app\) first"):
        scaleobs.observer_of(raw_asgi)


def test_fifty_applications_in_one_process():
    """Fifty applications on the default registry work side by side, and each has its own checks."""
    apps = [scaleobs.instrument(starlette_app(), service=f"s{number}") for number in range(50)]
    scaleobs.observer_of(apps[7]).check("bad")(lambda: False)

    assert {7} == {number for number, app in enumerate(apps) if serve(app, "/ready").status != 200}


@pytest.mark.parametrize("is_shared", [True, False])
def test_application_within_an_application_counts_once(is_shared, registry):
    """An instrumented application that is mounted in another one counts once per registry, under the whole template."""
    inner_registry = registry if is_shared else CollectorRegistry()
    inner = scaleobs.instrument(starlette_app(), registry=inner_registry)
    outer = scaleobs.instrument(Starlette(routes=[Mount("/in", inner)]), registry=registry)

    serve(outer, "/in/hello/you")

    assert {("GET", "/in/hello/{name}", "200"): 1} == counted(registry)
    if not is_shared:
        assert {("GET", "/hello/{name}", "200"): 1} == counted(inner_registry)


@pytest.mark.parametrize("make", [starlette_app, FastAPI, flask_app, AsyncCallable, SyncCallable])
def test_application_can_be_collected(make):
    """Instrumenting keeps nothing alive once the application and its wrapper are dropped."""
    app = make()
    served = scaleobs.instrument(app)
    serve(served)
    gone = weakref.ref(app)
    del app, served
    # The thread that ran a sync endpoint holds it until it has ended.
    until = time.monotonic() + 10
    while gone() is not None and time.monotonic() < until:
        gc.collect()
        time.sleep(0.01)

    assert gone() is None
