"""Routes of the application at the paths of endpoints are named in one line at the start."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import warnings
from types import ModuleType

import bottle
import falcon
import falcon.asgi
import litestar
import litestar.types
import pytest
from a2wsgi import WSGIMiddleware
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.test import override_settings
from django.urls import clear_url_caches, include, path, re_path
from fastapi import APIRouter, FastAPI
from flask import Blueprint, Flask
from prometheus_client import make_asgi_app, make_wsgi_app
from quart import Quart
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route, Router, WebSocketRoute
from starlette.staticfiles import StaticFiles
from werkzeug.middleware.dispatcher import DispatcherMiddleware

import scaleobs
from support import django_site, servers
from support.exchanges import asgi, log_lines, wsgi

with warnings.catch_warnings():  # WebOb imports a module that Python 3.11 deprecates.
    warnings.simplefilter("ignore")
    from pyramid.config import Configurator

EVENT = "route.shadowed"


async def answer(request):
    """Answer."""
    return PlainTextResponse("own")


def text(**_):
    """Answer."""
    return "own"


async def text_async(**_):
    """Answer."""
    return "own"


class Resource:
    """A resource of Falcon."""

    def on_get(self, req, resp):
        """Answer."""


class AsyncResource:
    """The same for ASGI."""

    async def on_get(self, req, resp):
        """Answer."""


def starlette(*paths):
    return Starlette(routes=[Route(one, answer) for one in paths])


def fastapi(*paths):
    app = FastAPI()
    for one in paths:
        app.get(one)(answer)
    return app


def flask(*paths):
    app = Flask("shop", static_folder=None)
    for number, one in enumerate(paths):
        app.add_url_rule(one, str(number), text)
    return app


def quart(*paths):
    app = Quart("shop", static_folder=None)
    for number, one in enumerate(paths):
        app.add_url_rule(one, str(number), text_async)
    return app


def falcon_app(kind, resource, *paths):
    app = kind()
    for one in paths:
        app.add_route(one, resource)
    return app


def bottle_app(*paths):
    app = bottle.Bottle()
    for one in paths:
        app.route(one)(text)
    return app


def pyramid(*paths):
    with Configurator() as config:
        for one in paths:
            config.add_route(one, one)
        return config.make_wsgi_app()


def litestar_app(*paths):
    @litestar.get(list(paths))
    async def handler() -> str:
        return "own"

    return litestar.Litestar([handler], openapi_config=None)


OWN = ["/health", "/items", "/metrics"]
SUPPORTED = {
    "starlette": lambda: starlette(*OWN),
    "fastapi": lambda: fastapi(*OWN),
    "flask": lambda: flask(*OWN),
    "quart": lambda: quart(*OWN),
    "falcon": lambda: falcon_app(falcon.App, Resource(), *OWN),
    "falcon, asgi": lambda: falcon_app(falcon.asgi.App, AsyncResource(), *OWN),
    "bottle": lambda: bottle_app(*OWN),
    "pyramid": lambda: pyramid("health", "items", "/metrics"),
    "litestar": lambda: litestar_app(*OWN),
}


def is_asgi(app):
    return asyncio.iscoroutinefunction(app) or asyncio.iscoroutinefunction(type(app).__call__)


def start(app, **settings):
    """Instrument an application, and start it: by its lifespan, or by a request if it has none."""
    served = scaleobs.instrument(app, service="shop", log_format="json", **settings)
    if is_asgi(served):
        asyncio.run(open_lifespan(served))
    else:
        wsgi(served, path="/items")
    return served


async def open_lifespan(app):
    """Start an application, and stop it."""
    messages = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]
    sent = []

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message["type"])

    scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
    await app(scope, receive, send)
    assert "lifespan.startup.complete" in sent


def shadowed(capsys):
    """Return the lines of the event."""
    return [line for line in log_lines(capsys) if line["event"] == EVENT]


@pytest.mark.parametrize("name", SUPPORTED)
def test_own_routes_of_each_framework(name, capsys):
    """An application of each framework that has its own routes gets one line, with the paths and the settings."""
    start(SUPPORTED[name]())
    (line,) = shadowed(capsys)

    assert "warning" == line["level"]
    assert ["/health", "/metrics"] == line["paths"]
    assert (
        "remove these routes, or give instrument(health_path=None, metrics_path=None) so that the application answers "
        "them" == line["fix"]
    )


@pytest.mark.parametrize("load", [get_wsgi_application, get_asgi_application])
def test_own_routes_of_django(load, capsys):
    """The same for a site of Django, whose patterns may be regular expressions."""
    urls = ModuleType("support.shadowed_urls")
    urls.urlpatterns = [
        path("health", django_site.hello),
        re_path(r"^ready/?$", django_site.hello),
        path("", include([re_path(r"^metrics(/)?$", django_site.hello)])),
        path("startup/", django_site.hello),
        re_path(r"^(?P<rest>.*)$", django_site.hello),
    ]
    sys.modules[urls.__name__] = urls
    try:
        with override_settings(ROOT_URLCONF=urls.__name__):
            clear_url_caches()
            served = scaleobs.instrument(load(), service="shop", log_format="json")
            (asgi if is_asgi(served) else wsgi)(served, path="/health")
    finally:
        del sys.modules[urls.__name__]
        clear_url_caches()

    assert [["/health", "/ready", "/metrics"]] == [line["paths"] for line in shadowed(capsys)]


def included():
    app, router = FastAPI(), APIRouter(prefix="/health")
    router.get("")(answer)
    app.include_router(router)
    return app


def mounted(app, at, inner):
    app.mount(at, inner)
    return app


def with_blueprint():
    app, blueprint = Flask("shop"), Blueprint("health", "shop", url_prefix="/health")
    blueprint.add_url_rule("", "probe", text, methods=["POST"])
    app.register_blueprint(blueprint)
    return app


def behind_dispatcher():
    app = Flask("shop")
    app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/metrics": make_wsgi_app()})
    return app


def dispatched_by_hypercorn():
    from hypercorn.middleware import DispatcherMiddleware as Dispatcher

    return Dispatcher({"/metrics": make_asgi_app(), "/": fastapi("/items")})


@litestar.asgi("/metrics", is_mount=True, copy_scope=True)
async def litestar_mount(
    scope: litestar.types.Scope, receive: litestar.types.Receive, send: litestar.types.Send
) -> None:
    await make_asgi_app()(scope, receive, send)


NESTED = {
    "an included router": (included, "/health"),
    "a mounted application": (lambda: mounted(FastAPI(), "/", fastapi("/health")), "/health"),
    "a mounted router": (lambda: Starlette(routes=[Mount("", Router(routes=[Route("/health", answer)]))]), "/health"),
    "a host": (lambda: Starlette(routes=[Host("shop.example", starlette("/ready"))]), "/ready"),
    "prometheus_client's application in FastAPI": (lambda: mounted(FastAPI(), "/metrics", make_asgi_app()), "/metrics"),
    "prometheus_client's application in Litestar": (lambda: litestar.Litestar([litestar_mount]), "/metrics"),
    "prometheus_client's application beside Flask": (behind_dispatcher, "/metrics"),
    "prometheus_client's application beside FastAPI": (dispatched_by_hypercorn, "/metrics"),
    "Flask in FastAPI": (lambda: mounted(FastAPI(), "/", WSGIMiddleware(flask("/health"))), "/health"),
    "a blueprint for POST": (with_blueprint, "/health"),
    "Flask behind a dispatcher": (lambda: DispatcherMiddleware(flask("/health"), {"/shop": flask("/")}), "/health"),
}


@pytest.mark.parametrize("name", NESTED)
def test_own_routes_of_nested_applications(name, capsys):
    """Routes in routers, mounts, other applications and dispatchers are named as well."""
    build, own = NESTED[name]
    app = build()
    if is_asgi(app) and "hypercorn" in type(app).__module__:
        served = scaleobs.instrument(app, service="shop", log_format="json")
        asgi(served, path="/items")
    else:
        start(app)

    assert [[own]] == [line["paths"] for line in shadowed(capsys)]


def static_flask():
    return Flask("shop", static_url_path="", static_folder="/tmp")


def static_falcon():
    app = falcon.App()
    app.add_static_route("/", "/tmp")
    app.add_sink(lambda *_, **__: None, "/")
    return app


def mounted_bottle():
    app = bottle.Bottle()
    app.mount("/shop", bottle_app("/health"))
    return app


def static_pyramid():
    with Configurator() as config:
        config.add_static_view("/", "/tmp")
        config.add_route("rest", "/*rest")
        return config.make_wsgi_app()


@litestar.get("/{path:path}")
async def litestar_rest() -> str:
    return "own"


def outside_dispatcher():
    app = Flask("shop")
    scaleobs.instrument(app, service="shop", log_format="json")
    app.wsgi_app = DispatcherMiddleware(app.wsgi_app, {"/metrics": make_wsgi_app()})
    return app


OTHERS = {
    "no routes": Starlette,
    "one route for all paths": lambda: fastapi("/{path:path}", "/{name}"),
    "static files at the root": lambda: mounted(FastAPI(), "/", StaticFiles(directory="/tmp")),
    "any application at the root": lambda: mounted(FastAPI(), "/", make_asgi_app()),
    "an application below": lambda: mounted(FastAPI(), "/api", fastapi("/health", "/metrics")),
    "Flask below": lambda: mounted(FastAPI(), "/api", WSGIMiddleware(flask("/health", "/metrics"))),
    "longer paths": lambda: fastapi("/health/live", "/healthz", "/livez", "/readyz", "/metrics.json", "/api/metrics"),
    "a slash": lambda: starlette("/health/", "/metrics/"),
    "a WebSocket": lambda: Starlette(routes=[WebSocketRoute("/health", answer)]),
    "Flask with one route for all paths": lambda: flask("/<path:path>", "/<name>", "/health/<name>"),
    "static files of Flask": static_flask,
    "static files of Falcon": static_falcon,
    "static files of Pyramid": static_pyramid,
    "a mounted Bottle": mounted_bottle,
    "Bottle with one route for all paths": lambda: bottle_app("/<path:path>"),
    "Litestar with one route for all paths": lambda: litestar.Litestar([litestar_rest]),
    "Quart with one route for all paths": lambda: quart("/<path:path>"),
    "a dispatcher that is outside": outside_dispatcher,
    "a dispatcher's path below": lambda: DispatcherMiddleware(flask("/items"), {"/api": flask("/metrics")}),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", OTHERS)
def test_other_routes(name, capsys):
    """Routes that receive their requests are not named, and neither is one for all paths."""
    app = OTHERS[name]()
    if name == "a dispatcher that is outside":
        wsgi(app, path="/items")
    else:
        start(app)

    assert [] == shadowed(capsys)


@pytest.mark.parametrize(
    ("settings", "paths", "arguments"),
    [
        ({}, ["/health", "/metrics"], "health_path=None, metrics_path=None"),
        ({"health_path": None, "metrics_path": None}, [], ""),
        ({"health_path": "/up", "metrics_path": "/items"}, ["/items"], "metrics_path=None"),
        ({"health_path": "/up", "metrics_path": None, "probe_aliases": True}, ["/healthz"], "probe_aliases=False"),
        (
            {"probe_aliases": True},
            ["/healthz", "/health", "/metrics"],
            "probe_aliases=False, health_path=None, metrics_path=None",
        ),
    ],
)
def test_settings(settings, paths, arguments, capsys):
    """The line has the settings that leave the paths to the application; with them, it is not logged."""
    start(starlette("/health", "/items", "/metrics", "/healthz"), **settings)
    lines = shadowed(capsys)

    assert [paths][: len(paths)] == [line["paths"] for line in lines]
    for line in lines:
        assert f"give instrument({arguments}) so that" in line["fix"]


def test_metrics_on_the_management_port(capsys):
    """With a management port, the application answers its own `/metrics`; the probes are ours on both ports."""
    start(starlette("/health", "/metrics"), management_port=servers.free_port())

    assert [["/health"]] == [line["paths"] for line in shadowed(capsys)]


def test_routes_of_the_start(capsys):
    """Routes that the application adds in its lifespan are named; a second start logs no second line."""

    async def lifespan(app):
        app.add_route("/metrics", answer)
        yield

    app = start(Starlette(lifespan=contextlib.asynccontextmanager(lifespan)))
    asyncio.run(open_lifespan(app))

    assert [["/metrics"]] == [line["paths"] for line in shadowed(capsys)]


def test_application_answers_after_the_fix():
    """After the settings of the line, the application answers at its own path."""
    app = start(starlette("/health"), health_path=None)

    assert b"own" == asgi(app, path="/health").body


APP = """
import scaleobs
from fastapi import FastAPI
from flask import Flask

app = scaleobs.instrument(FastAPI(), service="shop")
app.get("/health")(lambda: "own")
app.get("/{path:path}")(lambda path: "own")

wsgi = scaleobs.instrument(Flask("shop"), service="shop")
wsgi.add_url_rule("/metrics", "metrics", lambda: "own")
wsgi.add_url_rule("/<path:path>", "rest", lambda path: "own")
"""


@pytest.mark.servers
@pytest.mark.parametrize(
    ("command", "paths"),
    [
        (["uvicorn", "shop:app", "--port", "PORT"], ["/health"]),
        (["gunicorn", "shop:wsgi", "--bind", "127.0.0.1:PORT"], ["/metrics"]),
    ],
)
def test_line_of_a_server(command, paths, tmp_path):
    """A process logs the line once, when it starts or at its first request."""
    port = servers.free_port()
    (tmp_path / "shop.py").write_text(APP)
    words = [word.replace("PORT", str(port)) for word in command]
    with servers.running([str(servers.BIN / words[0]), *words[1:]], port, tmp_path) as end:
        for at in ("/items/7", "/health", "/metrics", "/items/8"):
            servers.get(port, at)
        out, _ = end()
    lines = [json.loads(line) for line in out.splitlines() if line.startswith("{")]

    assert [paths] == [line["paths"] for line in lines if line["event"] == EVENT]
