"""For any nest of mounts, adapters and dispatchers, each request is counted once, with its template or `unmatched`."""

from __future__ import annotations

import functools
import itertools

import a2wsgi
import pytest
from asgiref.wsgi import WsgiToAsgi
from fastapi import FastAPI
from flask import Flask
from hypercorn.middleware import DispatcherMiddleware as HypercornDispatcher
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from werkzeug.middleware.dispatcher import DispatcherMiddleware

import scaleobs
from support.exchanges import active, asgi, counted, wsgi

pytestmark = pytest.mark.filterwarnings("ignore:async_to_sync")

_numbers = itertools.count()


def flask(prefix):
    """Return an application whose answers are their templates."""
    app = Flask(f"shop{next(_numbers)}", static_folder=None)
    app.add_url_rule("/", "index", lambda: f"{prefix}/")
    app.add_url_rule("/items/<int:x>", "item", lambda x: f"{prefix}/items/<int:x>")
    return app


def routes_of(prefix, kind):
    """Return routes whose answers are their templates."""

    def answer(request):
        return PlainTextResponse(f"{prefix}/things/{{x}}")

    return kind("/things/{x}", answer)


def fastapi(prefix, children=()):
    """Return an application whose answers are their templates, with others mounted in it."""
    app = FastAPI(openapi_url=None)
    app.router.routes.append(routes_of(prefix, Route))
    for at, child in children:
        app.mount(at, child)
    return app


def starlette(prefix, children=()):
    """Return the same without FastAPI."""
    return Starlette(routes=[routes_of(prefix, Route), *(Mount(at, child) for at, child in children)])


def chooser(one, other):
    """Return a function that calls one application or another, by the path."""

    async def choose(scope, receive, send):
        is_one = scope["type"] != "http" or "items" in scope["path"]
        await (one if is_one else other)(scope, receive, send)

    return choose


def around(app):
    """Return a function around an application."""

    def call(*request):
        return app(*request)

    return functools.wraps(call)(call)


@st.composite
def wsgi_apps(draw, prefix="", depth=0):
    """Return an application of WSGI."""
    kinds = ["flask"] if depth > 2 else ["flask", "flask", "dispatcher", "adapter"]
    kind = draw(st.sampled_from(kinds))
    if kind == "dispatcher":
        keys = draw(st.sets(st.sampled_from(["/a", "/b", "/a/c"]), max_size=2))
        apps = {key: draw(wsgi_apps(prefix + key, depth + 1)) for key in sorted(keys)}
        return DispatcherMiddleware(draw(wsgi_apps(prefix, depth + 1)), apps)
    if kind == "adapter":
        return a2wsgi.ASGIMiddleware(draw(asgi_apps(prefix, depth + 2)))
    return flask(prefix)


@st.composite
def asgi_apps(draw, prefix="", depth=0):
    """Return an application of ASGI."""
    kinds = ["fastapi", "starlette", *(["hypercorn", "adapter", "choose", "adapter"] if depth <= 2 else [])]
    kind = draw(st.sampled_from(kinds))
    if kind == "hypercorn":
        return HypercornDispatcher(
            {
                "/a": draw(asgi_apps(f"{prefix}/a", depth + 1)),
                "/b": draw(asgi_apps(f"{prefix}/b", depth + 1)),
                "/": draw(asgi_apps(prefix, depth + 1)),
            }
        )
    if kind == "adapter":
        adapter = draw(st.sampled_from([a2wsgi.WSGIMiddleware, WsgiToAsgi]))
        return adapter(draw(wsgi_apps(prefix, depth + 1)))
    if kind == "choose":
        return chooser(draw(asgi_apps(prefix, depth + 1)), draw(asgi_apps(prefix, depth + 1)))
    mounts = [] if depth > 2 else draw(st.sets(st.sampled_from(["/a", "/t/{x}", ""]), max_size=2))
    children = [(at, draw(asgi_apps(prefix + at, depth + 1))) for at in sorted(mounts, reverse=True)]
    return (fastapi if kind == "fastapi" else starlette)(prefix, children)


PARTS = ["", "/a", "/b", "/a/c", "/t/7", "/a/a", "/a/t/7", "/b/a"]
PATHS = [f"{part}{rest}" or "/" for part in PARTS for rest in ("", "/", "/items/1", "/things/1", "/nowhere")]


@settings(max_examples=40, deadline=None)
@given(
    protocol=st.sampled_from(["asgi", "asgi", "wsgi"]),
    data=st.data(),
    paths=st.lists(st.sampled_from(PATHS), min_size=1, max_size=12),
)
def test_any_nest_counts_each_request_once(protocol, data, paths):
    """No count is lost, none is doubled, and the template is the answer's or `unmatched`."""
    registry = CollectorRegistry()
    call = asgi if protocol == "asgi" else wsgi
    app = data.draw(asgi_apps() if protocol == "asgi" else wsgi_apps())
    served = scaleobs.instrument(app, registry=registry, log_format="off")
    for path in paths:
        before = counted(registry)
        answer = call(served, path=path)
        (route,) = [labels[1] for labels, number in counted(registry).items() if number != before.get(labels, 0)]
        body = answer.body

        if answer.status == 200:
            assert route in {body.decode(), "unmatched"}, path
        else:
            assert route == "unmatched" or answer.status in {307, 308}, path
    assert len(paths) == sum(counted(registry).values())
    assert 0 == active(registry)
    assert 0 == scaleobs.observer_of(app)._service.storage.read().faults
