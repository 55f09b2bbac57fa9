"""Bugs of other libraries in labels and counts, each as a fact about this one."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from flask import Flask
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route

import scaleobs
from support.exchanges import asgi, counted, wsgi


async def user(request):
    """Send a response."""
    return PlainTextResponse(request.path_params.get("x", ""))


@pytest.mark.parametrize("method", ["FOO", "get", "PROPFIND", "G\udcffT", 'A"\n'])
def test_invented_method_is_other(method, observe, registry):
    """All invented methods have one label, and the page is valid."""
    app = observe(Starlette(routes=[Route("/u/{x}", user)]))
    asgi(app, method, "/u/1")
    page = asgi(app, path="/metrics")

    assert {("_OTHER", "/u/{x}", "405"): 1} == counted(registry)
    assert 200 == page.status
    assert b'method="_OTHER"' in page.body


def flask_users():
    """Return an application with one route."""
    app = Flask("shop")
    app.add_url_rule("/u/<x>", "user", lambda x: x)
    return app


@pytest.mark.parametrize(
    ("make", "serve", "template"),
    [(flask_users, wsgi, "/u/<x>"), (lambda: Starlette(routes=[Route("/u/{x}", user)]), asgi, "/u/{x}")],
    ids=["flask", "starlette"],
)
def test_paths_are_no_labels(make, serve, template, observe, registry):
    """Paths of two users are one route, and two unmatched paths are one label, which is counted."""
    app = observe(make())
    for path in ("/u/1", "/u/2", "/nope1", "/nope2"):
        serve(app, path=path)

    assert {("GET", template, "200"): 2, ("GET", "unmatched", "404"): 2} == counted(registry)


def test_mounted_route_has_its_whole_template(observe, registry):
    """A route within a mount is labelled with both templates, once each."""
    app = observe(Starlette(routes=[Mount("/m", routes=[Mount("/n", routes=[Route("/v/{x}", user)])])]))

    assert 200 == asgi(app, path="/m/n/v/1").status
    assert {("GET", "/m/n/v/{x}", "200"): 1} == counted(registry)


def test_routes_of_a_host_are_templates(observe, registry):
    """Routing by host results in the template of the route, without the host."""
    app = observe(Starlette(routes=[Host("{tenant}.example", Starlette(routes=[Route("/v/{x}", user)]))]))
    for tenant in ("a", "b"):
        asgi(app, path="/v/1", headers=[("host", f"{tenant}.example")])

    assert {("GET", "/v/{x}", "200"): 2} == counted(registry)


def test_slash_redirect_has_no_path(observe, registry):
    """Redirects from `/users/1` to `/users/1/` are one series under the route."""
    app = observe(Starlette(routes=[Route("/users/{x}/", user)]))
    for number in range(20):
        assert 307 == asgi(app, path=f"/users/{number}").status

    assert {("GET", "/users/{x}/", "307"): 20} == counted(registry)


def test_route_that_cannot_be_inspected_harms_no_request(observe, registry):
    """A route object without a path works as before, under one label."""

    class Pathless(Route):
        def __getattribute__(self, name):
            if name == "path" and getattr(self, "is_built", False):
                raise AttributeError(name)
            return super().__getattribute__(name)

    route = Pathless("/v/{x}", user)
    route.is_built = True
    app = observe(Starlette(routes=[route]))
    for number in range(20):
        assert 200 == asgi(app, path=f"/v/{number}").status

    assert 1 == len(counted(registry))


def test_two_applications_have_registries_of_their_own(observe):
    """A second application in the process counts its requests in its own registry."""
    registries = [CollectorRegistry(), CollectorRegistry()]
    for registry in registries:
        wsgi(observe(flask_users(), registry=registry), path="/u/1")

    assert [{("GET", "/u/<x>", "200"): 1}] * 2 == [counted(registry) for registry in registries]


@pytest.mark.parametrize("times", [2, 3])
def test_instrumented_again_counts_once(times, observe, registry):
    """If `instrument` is called again, or the middleware is added by hand, too, no request counts twice."""
    app = Starlette(routes=[Route("/u/{x}", user)])
    app.add_middleware(scaleobs.ASGIMiddleware, registry=registry, log_format="off")
    for _ in range(times):
        app = observe(app)
    for _ in range(3):
        asgi(app, path="/u/1")

    assert {("GET", "/u/{x}", "200"): 3} == counted(registry)


def test_application_within_another_counts_once(observe, registry):
    """A FastAPI application mounted in another one, both instrumented, counts once under the whole template."""
    inner = FastAPI()
    inner.get("/v/{x}")(lambda x: x)
    outer = FastAPI()
    outer.mount("/in", observe(inner))
    outer = observe(outer)
    for _ in range(3):
        asgi(outer, path="/in/v/1")

    assert {("GET", "/in/v/{x}", "200"): 3} == counted(registry)


@pytest.mark.parametrize("protocol", [asgi, wsgi])
def test_head_has_its_own_series(protocol, observe, registry):
    """HEAD is a method of its own, with the route and the status of GET."""
    app = observe(Starlette(routes=[Route("/u/{x}", user)]) if protocol is asgi else flask_users())
    protocol(app, "HEAD", "/u/1")
    template = "/u/{x}" if protocol is asgi else "/u/<x>"

    assert {("HEAD", template, "200"): 1} == counted(registry)


def test_wrong_method_stays_wrong(observe, registry):
    """A 405 of nested routes reaches the client, under its route."""
    app = observe(Starlette(routes=[Mount("/m", routes=[Route("/v/{x}", user, methods=["GET"])])]))

    assert 405 == asgi(app, "DELETE", "/m/v/1").status
    assert {("DELETE", "/m/v/{x}", "405"): 1} == counted(registry)
