"""The route templates of Pyramid."""

from __future__ import annotations

import warnings

import pytest

with warnings.catch_warnings(action="ignore"):  # WebOb imports `cgi`, which Python 3.11 announces to be going.
    from pyramid.config import Configurator
    from pyramid.httpexceptions import HTTPUnauthorized
    from pyramid.response import Response

from support.routing import Site, scan


def hello(request):
    """Answer."""
    return Response("hello")


def boom(request):
    """Fail with an error that Pyramid answers."""
    raise HTTPUnauthorized


def refusing(handler, registry):
    """Return a tween that answers before routing if the client requests it."""
    return lambda request: Response(status=401) if request.headers.get("X-Refuse") else handler(request)


def nested(config):
    """Add a route of another package."""
    config.add_route("order", "/orders/{order_id}")


def site():
    """Return an application with every kind of route of Pyramid, except for traversal."""
    with Configurator(settings={}) as config:
        config.add_tween("test_routes_pyramid.refusing")
        config.add_route("root", "/")
        config.add_route("item", r"/items/{item_id:\d+}")
        config.add_route("bare", "bare/{x}")
        config.add_route("slash", "/slash/{a}/")
        config.add_route("only", "/only", request_method="POST")
        config.add_route("viewed", "/viewed")
        config.add_route("rest", "/rest/*rest")
        config.add_route("refused", "/refused")
        config.include(nested, route_prefix="/api")
        config.add_static_view("static", "/etc")
        for name in ("root", "item", "bare", "slash", "only", "rest", "order"):
            config.add_view(hello, route_name=name)
        config.add_view(hello, route_name="viewed", request_method=("GET", "PUT"))
        config.add_view(boom, route_name="refused")
        config.add_notfound_view(lambda request: Response("nothing", status=404), append_slash=True)
        return Site(config.make_wsgi_app(), "wsgi")


@pytest.mark.parametrize(
    ("method", "path", "template", "status"),
    [
        ("GET", "/", "/", 200),
        ("GET", "/items/7", r"/items/{item_id:\d+}", 200),
        ("GET", "/items/seven", "unmatched", 404),
        ("GET", "/bare/1", "/bare/{x}", 200),
        ("GET", "/slash/1", "/slash/{a}/", 307),
        ("GET", "/slash/1/", "/slash/{a}/", 200),
        ("POST", "/only", "/only", 200),
        ("GET", "/only", "unmatched", 404),
        ("PUT", "/viewed", "/viewed", 200),
        ("DELETE", "/viewed", "/viewed", 404),
        ("GET", "/rest/a/b/c", "/rest/*rest", 200),
        ("GET", "/refused", "/refused", 401),
        ("GET", "/api/orders/7", "/api/orders/{order_id}", 200),
        ("GET", "/static/hostname", "/static/*subpath", 200),
        ("GET", "/static/nothing-here/", "/static/*subpath", 404),
        ("GET", "/nowhere", "unmatched", 404),
    ],
)
def test_pyramid_template(method, path, template, status):
    """The label is the pattern of the route that matched."""
    observed = site()

    for _ in range(2):
        assert (status, template) == observed.get(method, path)


def test_pyramid_answer_of_a_tween_keeps_the_pattern():
    """A tween that answers before routing is counted under the pattern that the path has."""
    observed = site()

    assert (401, r"/items/{item_id:\d+}") == observed.get("GET", "/items/7", headers=[("X-Refuse", "1")])
    assert (401, "unmatched") == observed.get("GET", "/scan/.env", headers=[("X-Refuse", "1")])


def test_pyramid_pattern_is_read_once():
    """The hook's note alone determines the template."""
    observed = site()
    for number in range(5):
        observed.get("GET", f"/items/{number}")

    assert 1 == observed.lookups


def test_pyramid_known_is_what_is_registered():
    """Every route is listed with the methods that it or its views name."""
    observed = site()
    known = observed.routes.known()

    patterns = {"/" + route.pattern.lstrip("/") for route in observed.app.routes_mapper.get_routes()}
    assert patterns == {template for _, template in known}
    assert {("GET", "/viewed"), ("PUT", "/viewed")} == {pair for pair in known if pair[1] == "/viewed"}
    assert {("POST", "/only")} == {pair for pair in known if pair[1] == "/only"}
    assert known is observed.routes.known()


def test_pyramid_scans_add_no_template():
    """Two hundred random paths and methods are unmatched, or have a listed pattern."""
    observed = site()

    found = scan(observed, ["/", "/items/", "/bare/", "/rest/", "/api/orders/"])

    assert {template for _, template in observed.routes.known()} | {"unmatched"} >= found


def test_pyramid_without_routes():
    """An application with traversal only has no templates."""
    with Configurator(settings={}) as config:
        config.add_view(hello)
        observed = Site(config.make_wsgi_app(), "wsgi")

    assert (200, "unmatched") == observed.get("GET", "/")
    assert () == observed.routes.known()


def test_pyramid_is_hooked_once():
    """A second call of `routes_of` adds no second hook to an application."""
    observed = site()
    hooked = observed.app.routes_mapper
    Site(observed.app, "wsgi")

    assert hooked is observed.app.routes_mapper


def test_pyramid_pattern_that_raises():
    """If the pattern can't be read, the request is answered, and `template` raises the fault."""
    observed = site()
    for route in observed.app.routes_mapper.get_routes():
        route.pattern = None

    with pytest.raises(AttributeError):
        observed.get("GET", "/items/7")
