"""The route templates of Falcon, under WSGI and ASGI."""

from __future__ import annotations

import falcon
import falcon.asgi
import falcon.inspect
import pytest

from support.routing import Site, scan


class Item:
    """A resource of WSGI."""

    def on_get(self, req, resp, **_):
        """Answer."""
        resp.text = "item"

    def on_post(self, req, resp, **_):
        """Refuse."""
        raise falcon.HTTPConflict

    def on_get_short(self, req, resp, **_):
        """Answer at a second path."""
        resp.text = "short"

    def on_delete(self, req, resp, **_):
        """Fail."""
        raise RuntimeError


class AsyncItem:
    """The same for ASGI."""

    async def on_get(self, req, resp, **_):
        """Answer."""
        resp.text = "item"

    async def on_post(self, req, resp, **_):
        """Refuse."""
        raise falcon.HTTPConflict

    async def on_get_short(self, req, resp, **_):
        """Answer at a second path."""
        resp.text = "short"

    async def on_delete(self, req, resp, **_):
        """Fail."""
        raise RuntimeError


class Refuse:
    """A middleware that answers before routing if the client requests it."""

    def process_request(self, req, resp):
        """Refuse."""
        if req.get_header("X-Refuse"):
            raise falcon.HTTPUnauthorized

    async def process_request_async(self, req, resp):
        """Refuse."""
        self.process_request(req, resp)


def sink(req, resp, **_):
    """Answer every path with a prefix."""
    resp.text = "sink"


async def sink_async(req, resp, **_):
    """Answer every path with a prefix."""
    resp.text = "sink"


def site(protocol):
    """Return an application with every kind of route of Falcon."""
    app = falcon.App(middleware=[Refuse()]) if protocol == "wsgi" else falcon.asgi.App(middleware=[Refuse()])
    item = Item() if protocol == "wsgi" else AsyncItem()
    app.add_route("/", item)
    app.add_route("/items/{item_id:int}", item)
    app.add_route("/i/{item_id}", item, suffix="short")
    app.add_route("/teams/{team}/members/{member}", item)
    app.add_route("/files/{name}.{extension}", item)
    app.add_sink(sink if protocol == "wsgi" else sink_async, "/old")
    app.add_static_route("/static", "/etc")
    return Site(app, protocol)


@pytest.mark.parametrize("protocol", ["wsgi", "asgi"])
@pytest.mark.parametrize(
    ("method", "path", "template", "status"),
    [
        ("GET", "/", "/", 200),
        ("GET", "/items/7", "/items/{item_id:int}", 200),
        ("GET", "/items/seven", "unmatched", 404),
        ("POST", "/items/7", "/items/{item_id:int}", 409),
        ("DELETE", "/items/7", "/items/{item_id:int}", 500),
        ("PUT", "/items/7", "/items/{item_id:int}", 405),
        ("OPTIONS", "/items/7", "/items/{item_id:int}", 200),
        ("GET", "/i/7", "/i/{item_id}", 200),
        ("GET", "/teams/a/members/b", "/teams/{team}/members/{member}", 200),
        ("GET", "/files/a.txt", "/files/{name}.{extension}", 200),
        ("GET", "/old/thing", "/old", 200),
        ("GET", "/static/hostname", "/static", 200),
        ("GET", "/static/nothing-here", "/static", 404),
        ("GET", "/teams/a", "unmatched", 404),
        ("GET", "/nowhere", "unmatched", 404),
    ],
)
def test_falcon_template(method, path, template, status, protocol):
    """The label is the URI template of the resource, or the prefix of static files and sinks."""
    observed = site(protocol)

    for _ in range(2):
        assert (status, template) == observed.get(method, path)


@pytest.mark.parametrize("protocol", ["wsgi", "asgi"])
def test_falcon_answer_before_routing_keeps_the_template(protocol):
    """A refusal of a middleware is counted under the template of the path."""
    headers = [("Host", "testserver"), ("X-Refuse", "1")]
    observed = site(protocol)

    assert (401, "/items/{item_id:int}") == observed.get("GET", "/items/7", headers=headers)
    assert (401, "unmatched") == observed.get("GET", "/scan/.env", headers=headers)


@pytest.mark.parametrize("protocol", ["wsgi", "asgi"])
def test_falcon_trailing_slash(protocol):
    """If Falcon strips a slash, the template is the same."""
    observed = site(protocol)
    observed.app.req_options.strip_url_path_trailing_slash = True
    headers = [("Host", "testserver"), ("X-Refuse", "1")]

    assert (200, "/items/{item_id:int}") == observed.get("GET", "/items/7/")
    assert (401, "/items/{item_id:int}") == observed.get("GET", "/items/7/", headers=headers)


@pytest.mark.parametrize("protocol", ["wsgi", "asgi"])
def test_falcon_template_is_read_once(protocol):
    """The hook's note alone determines the template."""
    observed = site(protocol)
    for number in range(5):
        observed.get("GET", f"/items/{number}")

    assert 1 == observed.lookups


@pytest.mark.parametrize("protocol", ["wsgi", "asgi"])
def test_falcon_known_is_what_is_registered(protocol):
    """Every method that a resource answers is listed; methods that Falcon itself refuses are not."""
    observed = site(protocol)
    known = observed.routes.known()

    inspected = {
        (method.method, route.path)
        for route in falcon.inspect.inspect_app(observed.app).routes
        for method in route.methods
        if not method.internal
    }
    assert inspected | {("GET", "/old"), ("GET", "/static")} == set(known)
    assert known is observed.routes.known()

    observed.app.add_route("/later", Item() if protocol == "wsgi" else AsyncItem())
    assert {"/later"} == {template for _, template in set(observed.routes.known()) - set(known)}
    assert (200, "/later") == observed.get("GET", "/later")


@pytest.mark.parametrize("protocol", ["wsgi", "asgi"])
def test_falcon_scans_add_no_template(protocol):
    """Two hundred random paths and methods are unmatched, or have a listed template."""
    observed = site(protocol)

    found = scan(observed, ["/", "/items/", "/i/", "/files/", "/old/", "/static/"])

    assert {template for _, template in observed.routes.known()} | {"unmatched"} >= found


@pytest.mark.parametrize("protocol", ["wsgi", "asgi"])
def test_falcon_router_that_finds_no_template(protocol):
    """A router without templates works as before, and the fault does not reach the application."""
    observed = site(protocol)
    item = Item() if protocol == "wsgi" else AsyncItem()
    observed.app._router_search._search = lambda path, req=None: (item, {"GET": item.on_get}, {})

    with pytest.raises(IndexError):
        observed.get("GET", "/items/7")
