"""An instrumented application inside another one, with an adapter between the protocols: one request, one count."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import warnings

import a2wsgi
import pytest
from asgiref.wsgi import WsgiToAsgi
from fastapi import FastAPI
from flask import Flask

import scaleobs
from support.exchanges import active, asgi, counted, http_scope, log_lines, serve_asgi, wsgi

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from starlette.middleware.wsgi import WSGIMiddleware as StarletteAdapter

ADAPTERS = {"a2wsgi": a2wsgi.WSGIMiddleware, "asgiref": WsgiToAsgi, "starlette": StarletteAdapter}
HEADERS = [("host", "shop"), ("user-agent", "a client")]


def flask_site():
    """Return a Flask application that logs a line, answers and fails."""
    site = Flask("inner")
    site.add_url_rule("/items/<item>", view_func=lambda item: logging.getLogger("inner").info("seen") or item)
    site.add_url_rule("/boom", "boom", lambda: 1 / 0)
    return site


@pytest.fixture(params=["json", "off"])
def instrument(request, registry):
    """Return a function that instruments applications on one registry."""
    return lambda app: scaleobs.instrument(app, registry=registry, log_format=request.param)


@pytest.mark.parametrize("is_mounted", [True, False])
@pytest.mark.parametrize("adapter", ADAPTERS.values(), ids=ADAPTERS)
def test_flask_inside_fastapi_is_counted_once(adapter, is_mounted, instrument, registry, capsys):
    """A request to both is one count, one line and one id."""
    site = instrument(flask_site())
    app, root = adapter(site), ""
    if is_mounted:
        outer, root = FastAPI(), "/inner"
        outer.mount(root, app)
        app = outer
    app = instrument(app)
    capsys.readouterr()
    for path, times in (("/items/1", 3), ("/missing", 2)):
        for _ in range(times):
            asgi(app, path=root + path, headers=HEADERS)
    lines = log_lines(capsys)

    found = counted(registry)
    assert {("GET", f"{root}/items/<item>", "200"): 3, ("GET", "unmatched", "404"): 2} == found
    assert 0 == active(registry)
    if lines:
        assert 5 == sum(line["event"] == "request.finished" for line in lines)
        ids = {line["request_id"] for line in lines if line["event"] == "request.finished"}
        assert 5 == len(ids)
        assert {line["request_id"] for line in lines if line["event"] == "seen"} <= ids
        assert 3 == sum(line["event"] == "seen" for line in lines)


def test_fastapi_inside_flask_is_counted_once(instrument, registry, capsys):
    """The same with the protocols exchanged."""
    inner = FastAPI()
    inner.add_api_route("/items/{item}", lambda item: item)
    outer = instrument(a2wsgi.ASGIMiddleware(instrument(inner)))
    capsys.readouterr()
    for _ in range(3):
        assert 200 == wsgi(outer, path="/items/1", headers=HEADERS).status

    assert 3 == sum(counted(registry).values())
    assert 0 == active(registry)
    assert sum(line["event"] == "request.finished" for line in log_lines(capsys)) in (0, 3)


def test_application_under_two_adapters_is_counted_once(instrument, registry):
    """The same if FastAPI has a Flask application that has another FastAPI."""
    inner = FastAPI()
    inner.add_api_route("/items/{item}", lambda item: item)
    middle = instrument(a2wsgi.ASGIMiddleware(instrument(inner)))
    outer = instrument(a2wsgi.WSGIMiddleware(middle))
    for _ in range(3):
        assert 200 == asgi(outer, path="/items/1", headers=HEADERS).status

    assert 3 == sum(counted(registry).values())
    assert 0 == active(registry)


def test_request_to_another_application_inside_a_request_is_counted_by_itself(instrument, registry):
    """A handler that calls another instrumented application in this process makes another request."""
    site = instrument(flask_site())

    async def app(scope, receive, send):
        found = [wsgi(site, path="/items/1", headers=[("host", "other")]).status]
        found += [wsgi(site, path="/items/2", headers=HEADERS).status]
        found += [(await serve_asgi(other, http_scope(path="/items/1"))).status]
        await send({"type": "http.response.start", "status": 200 if found == [200, 200, 204] else 500})
        await send({"type": "http.response.body", "body": b""})

    async def empty(scope, receive, send):
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body", "body": b""})

    other = instrument(empty)
    asgi(instrument(app), path="/items/1", headers=HEADERS)

    found = counted(registry)
    assert (3, 1) == tuple(sum(n for (*_, code), n in found.items() if code == status) for status in ("200", "204"))


def test_request_in_a_context_that_outlives_its_request_is_counted(instrument, registry):
    """A thread that a request has started, with its context, serves other requests."""
    site = instrument(flask_site())
    threads = []

    async def app(scope, receive, send):
        context = contextvars.copy_context()
        threads.append(threading.Thread(target=context.run, args=(later,)))
        await send({"type": "http.response.start", "status": 202})
        await send({"type": "http.response.body", "body": b""})

    def later():
        wsgi(site, path="/items/1", headers=HEADERS)

    asgi(instrument(app), path="/items/1", headers=HEADERS)
    threads[0].start()
    threads[0].join()

    assert 2 == sum(counted(registry).values())


def test_two_requests_at_once_through_an_adapter(instrument, registry):
    """Requests that are open at once are not taken for each other."""
    app = instrument(WsgiToAsgi(instrument(flask_site())))

    async def serve():
        scopes = [http_scope(path="/items/1", headers=HEADERS) for _ in range(4)]
        return await asyncio.gather(*(serve_asgi(app, scope) for scope in scopes))

    assert [200] * 4 == [one.status for one in asyncio.run(serve())]
    assert 4 == sum(counted(registry).values())
