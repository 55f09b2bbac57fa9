"""The route templates of Bottle."""

from __future__ import annotations

import bottle
import pytest

from support.routing import Site, scan


def hello(**_):
    """Answer."""
    return "hello"


def boom():
    """Fail."""
    raise RuntimeError


def raw(environ, start_response):
    """Be mounted without any rules."""
    start_response("200 OK", [])
    return [b"raw"]


def serve_file(name):
    """Answer a file."""
    return bottle.static_file(name, root="/etc")


def site():
    """Return an application with every kind of route of Bottle."""
    app, merged, inner = bottle.Bottle(), bottle.Bottle(), bottle.Bottle()
    merged.route("/deep/<x:int>", "GET", hello)
    inner.route("/inside/<y>", "GET", hello)
    app.route("/", "GET", hello)
    app.route("/items/<item_id:int>", "GET", hello)
    app.route("/items/<item_id:int>", "PUT", hello)
    app.route("/only", "POST", hello)
    app.route("/any/<x>", "ANY", hello)
    app.route("/boom", "GET", boom)
    app.route("/static/<name:path>", "GET", serve_file)
    app.mount("/merged/", merged)
    app.mount("/raw/", raw)
    app.mount("/wrapped/", inner.wsgi)

    @app.hook("before_request")
    def refuse():
        if bottle.request.headers.get("X-Refuse"):
            raise bottle.HTTPResponse(status=401)

    return Site(app, "wsgi")


@pytest.mark.parametrize(
    ("method", "path", "template", "status"),
    [
        ("GET", "/", "/", 200),
        ("GET", "/items/7", "/items/<item_id:int>", 200),
        ("HEAD", "/items/7", "/items/<item_id:int>", 200),
        ("PUT", "/items/7", "/items/<item_id:int>", 200),
        ("DELETE", "/items/7", "/items/<item_id:int>", 405),
        ("GET", "/items/seven", "unmatched", 404),
        ("GET", "/only", "/only", 405),
        ("PATCH", "/any/1", "/any/<x>", 200),
        ("GET", "/boom", "/boom", 500),
        ("GET", "/static/hostname", "/static/<name:path>", 200),
        ("GET", "/static/nothing-here", "/static/<name:path>", 404),
        ("GET", "/merged/deep/7", "/merged/deep/<x:int>", 200),
        ("GET", "/raw/anything/at/all", "/raw", 200),
        ("GET", "/wrapped/inside/7", "/wrapped", 200),
        ("GET", "/nowhere", "unmatched", 404),
    ],
)
def test_bottle_template(method, path, template, status):
    """The label is the rule that matched, or the prefix of a mounted application."""
    observed = site()

    for _ in range(2):
        assert (status, template) == observed.get(method, path)


def test_bottle_answer_of_a_hook_keeps_the_rule():
    """An answer of a hook before routing is counted under the rule of the path."""
    observed = site()

    assert (401, "/items/<item_id:int>") == observed.get("GET", "/items/7", headers=[("X-Refuse", "1")])
    assert (401, "unmatched") == observed.get("GET", "/scan/.env", headers=[("X-Refuse", "1")])


def test_bottle_rule_is_read_once():
    """The route in the environ alone determines the rule."""
    observed = site()
    for number in range(5):
        observed.get("GET", f"/items/{number}")

    assert 1 == observed.lookups


def test_bottle_known_is_what_is_registered():
    """Every method and rule is listed, a route for any method with the most common one, and the list is stable."""
    observed = site()
    known = observed.routes.known()

    named = {(route.method, route.rule) for route in observed.app.routes if route.method not in ("ANY", "PROXY")}
    assert named | {("GET", "/any/<x>"), ("GET", "/raw"), ("GET", "/wrapped")} == set(known)
    assert known is observed.routes.known()

    observed.app.route("/later", "GET", hello)
    assert {("GET", "/later")} == set(observed.routes.known()) - set(known)
    assert (200, "/later") == observed.get("GET", "/later")


def test_bottle_scans_add_no_template():
    """Two hundred random paths and methods are unmatched, or have a listed rule."""
    observed = site()

    found = scan(observed, ["/", "/items/", "/any/", "/merged/deep/", "/raw/", "/wrapped/"])

    assert {template for _, template in observed.routes.known()} | {"unmatched"} >= found


def test_bottle_rule_that_raises():
    """If the rule can't be read, the request is answered, and `template` raises the fault."""
    observed = site()
    for route in observed.app.routes:
        route.config = None

    with pytest.raises(AttributeError):
        observed.get("GET", "/items/7")
