"""One function behind several routes of a Starlette application: the endpoint does not determine the template."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.middleware.gzip import GZipMiddleware
from starlette.responses import PlainTextResponse
from starlette.routing import Host, Mount, Route, Router
from starlette.staticfiles import StaticFiles

import scaleobs
from support.exchanges import asgi, counted
from support.routing import Site

HIDDEN = Starlette(routes=[])


def hello(request):
    """Answer."""
    return PlainTextResponse("hello")


def other(request):
    """Answer the same by another function."""
    return PlainTextResponse("other")


async def with_lookup(scope, receive, send):
    """Call an application that no attribute shows."""
    await globals()["HIDDEN"](scope, receive, send)


def at(host):
    """Return the headers of a request to a host."""
    return [("Host", host)]


def routes_counted(registry):
    """Return how many requests each route was counted with."""
    found = {}
    for (_, route, _), number in counted(registry).items():
        found[route] = found.get(route, 0) + number
    return found


@pytest.mark.parametrize("order", [("/a", "/sub/b"), ("/sub/b", "/a")])
@pytest.mark.parametrize("hide", [GZipMiddleware, lambda app: with_lookup], ids=["a wrapper", "out of sight"])
def test_function_in_a_mount_that_hides_its_routes(hide, order, registry, monkeypatch):
    """A function that a hidden application serves, too, is counted as the mount there, in any order of calls."""
    sub = Starlette(routes=[Route("/b", hello)])
    monkeypatch.setitem(globals(), "HIDDEN", sub)
    app = Starlette(routes=[Route("/a", hello), Route("/c", other), Mount("/sub", app=hide(sub))])
    scaleobs.instrument(app, registry=registry, log_format="off")

    for _ in range(2):
        for path in (*order, "/c"):
            assert 200 == asgi(app, path=path).status
    assert {"/a": 2, "/sub": 2, "/c": 2} == routes_counted(registry)


def test_function_that_takes_any_path_beside_a_mount_that_hides_its_routes(registry):
    """Of a function's route and a mount, the first one counts, as for Starlette."""
    sub = GZipMiddleware(Starlette(routes=[Route("/b", hello)]))
    app = Starlette(routes=[Mount("/sub", app=sub), Route("/{path:path}", hello)])
    scaleobs.instrument(app, registry=registry, log_format="off")

    for path in ("/sub/b", "/a/b", "/sub/b"):
        assert 200 == asgi(app, path=path).status
    assert {"/sub": 2, "/{path}": 1} == routes_counted(registry)


@pytest.mark.parametrize(
    ("mounted", "lookups"), [(StaticFiles(directory="/etc"), 1), (GZipMiddleware(HIDDEN), 1), (with_lookup, 5)]
)
def test_mount_that_can_hide_nothing_of_a_function(mounted, lookups):
    """Mounted files and visible applications keep an endpoint unambiguous; hidden applications do not."""
    site = Site(Starlette(routes=[Route("/a/{x}", hello), Mount("/sub", app=mounted)]), "asgi")

    assert {(200, "/a/{x}")} == {site.get("GET", f"/a/{number}") for number in range(5)}
    assert lookups == site.lookups


def test_redirect_beside_the_same_path_of_another_host(registry):
    """A path that also belongs to an earlier route of another host is found."""
    api = Host("api.example.org", Router([Route("/items/", other)]))
    app = Starlette(routes=[api, Route("/items/", hello)])
    scaleobs.instrument(app, registry=registry, log_format="off")

    for path in ("/items", "/items/"):
        asgi(app, path=path, headers=at("www.example.org"))
        asgi(app, path=path, headers=at("API.example.org:80"))
    assert {("GET", "/items/", "307"): 2, ("GET", "/items/", "200"): 2} == counted(registry)


def test_function_by_method(registry):
    """A function with a route for each of two methods is counted under that of the request's method."""
    routes = [Route("/x/{a}", hello, methods=["GET"]), Route("/x/{b}", hello, methods=["POST"])]
    app = scaleobs.instrument(Starlette(routes=routes), registry=registry, log_format="off")

    for method in ("POST", "GET", "HEAD", "POST", "PUT"):
        asgi(app, method, "/x/1")
    expected = {("GET", "/x/{a}", "200"): 1, ("HEAD", "/x/{a}", "200"): 1, ("POST", "/x/{b}", "200"): 2}
    assert expected | {("PUT", "/x/{a}", "405"): 1} == counted(registry)


def test_function_by_host(registry):
    """A function with a route at each of two hosts is counted under that of the request's host, and not cached."""
    hosts = [Host(host, Router([Route(path, hello)])) for host, path in (("a.org", "/{x}"), ("b.org", "/{y}"))]
    app = scaleobs.instrument(Starlette(routes=hosts), registry=registry, log_format="off")

    for host in ("b.org", "a.org", "b.org"):
        asgi(app, path="/1", headers=at(host))
    assert {"/{x}": 1, "/{y}": 2} == routes_counted(registry)


def test_function_of_one_template_by_two_methods():
    """Two routes with one template keep the endpoint unambiguous."""
    routes = [Route("/x/{a}", hello, methods=[method]) for method in ("GET", "POST")]
    site = Site(Starlette(routes=routes), "asgi")

    assert {(200, "/x/{a}")} == {site.get("POST", f"/x/{number}") for number in range(5)}
    assert 1 == site.lookups


@pytest.mark.parametrize("root_path", ["", "/root"])
def test_function_in_a_mount_of_an_application_that_is_mounted(root_path, registry):
    """The template has inner mounts and no outer ones; also for redirects."""
    inner = [Route("/x/{id}", hello), Route("/y/{id}/", other)]
    app = Starlette(routes=[Mount("/v1", routes=inner), *inner])
    scaleobs.instrument(app, registry=registry, log_format="off")
    outer = Starlette(routes=[Mount("/o", app)])

    for path in ("/o/v1/x/5", "/o/x/5", "/o/v1/y/5", "/o/y/5"):
        asgi(outer, path=root_path + path, root_path=root_path, headers=at("testserver"))
    assert {"/v1/x/{id}": 1, "/x/{id}": 1, "/v1/y/{id}/": 1, "/y/{id}/": 1} == routes_counted(registry)


def test_redirect_of_a_mounted_application_that_takes_any_path(registry):
    """A request without a route in the application is matched below its own mount, and nowhere else."""
    app = Starlette(routes=[Route("/y/{id}/", hello, methods=["POST"]), Route("/{a}/{b}/{c}/", other)])
    scaleobs.instrument(app, registry=registry, log_format="off")

    assert 307 == asgi(Starlette(routes=[Mount("/o", app)]), "POST", "/o/y/5", headers=at("testserver")).status
    assert {"/y/{id}/": 1} == routes_counted(registry)


@pytest.mark.parametrize("log_format", ["json", "off"])
def test_function_in_two_applications(log_format, registry):
    """One function under two paths of two applications on one registry is counted under each."""
    first = scaleobs.instrument(Starlette(routes=[Route("/a/{x}", hello)]), registry=registry, log_format=log_format)
    second = scaleobs.instrument(Starlette(routes=[Route("/b/{x}", hello)]), registry=registry, log_format=log_format)

    for number in range(3):
        asgi(first, path=f"/a/{number}")
        asgi(second, path=f"/b/{number}")

    assert {("GET", "/a/{x}", "200"): 3, ("GET", "/b/{x}", "200"): 3} == counted(registry)
