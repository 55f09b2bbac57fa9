"""The route templates of Flask."""

from __future__ import annotations

import pytest
from flask import Blueprint, Flask, abort, request
from flask.ctx import RequestContext
from flask.views import MethodView
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.routing import BaseConverter, ValidationError

import scaleobs
from support.exchanges import counted, environ, wsgi
from support.routing import Site, scan


class Colour(BaseConverter):
    """A converter that refuses values, and fails for one."""

    def to_python(self, value):
        """Take two colours."""
        if value not in ("red", "green"):
            raise ValidationError
        return value


class Thing(MethodView):
    """A class as a view."""

    def post(self):
        """Answer."""
        return "posted"


def site():
    """Return an application with every kind of route of Flask."""
    app = Flask("shop", static_folder="/etc")
    app.url_map.converters["colour"] = Colour
    inner, outer = Blueprint("inner", __name__, url_prefix="/inner"), Blueprint("outer", __name__)
    inner.add_url_rule("/<int:x>", "deep", lambda x: f"{x}")
    outer.register_blueprint(inner)
    app.register_blueprint(outer, url_prefix="/outer")
    app.register_blueprint(outer, url_prefix="/again", name="again")
    app.add_url_rule("/", "root", lambda: "hello")
    app.add_url_rule("/items/<int:item_id>", "item", lambda item_id: f"{item_id}")
    app.add_url_rule("/paint/<colour:c>", "paint", lambda c: c)
    app.add_url_rule("/files/<path:p>", "files", lambda p: p)
    app.add_url_rule("/slash/<a>/", "slash", lambda a: a)
    app.add_url_rule("/thing/<a>", view_func=lambda a: a, endpoint="thing", methods=["POST"])
    app.add_url_rule("/view", view_func=Thing.as_view("view"))
    app.add_url_rule("/teapot", "teapot", lambda: abort(418))
    app.add_url_rule("/boom", "boom", lambda: 1 / 0)
    return app


@pytest.mark.parametrize(
    ("method", "path", "template", "status"),
    [
        ("GET", "/", "/", 200),
        ("HEAD", "/items/7", "/items/<int:item_id>", 200),
        ("OPTIONS", "/items/7", "/items/<int:item_id>", 200),
        ("GET", "/items/seven", "unmatched", 404),
        ("GET", "/paint/red", "/paint/<colour:c>", 200),
        ("GET", "/paint/mud", "unmatched", 404),
        ("GET", "/files/a/b", "/files/<path:p>", 200),
        ("GET", "/slash/a", "/slash/<a>/", 308),
        ("GET", "/slash/a/", "/slash/<a>/", 200),
        ("GET", "/thing/7", "/thing/<a>", 405),
        ("DELETE", "/view", "/view", 405),
        ("GET", "/outer/inner/3", "/outer/inner/<int:x>", 200),
        ("GET", "/again/inner/3", "/again/inner/<int:x>", 200),
        ("GET", "/etc/hostname", "/etc/<path:filename>", 200),
        ("GET", "/etc/nothing-here", "/etc/<path:filename>", 404),
        ("GET", "/teapot", "/teapot", 418),
        ("GET", "/boom", "/boom", 500),
        ("GET", "/nowhere", "unmatched", 404),
    ],
)
def test_flask_template(method, path, template, status, registry):
    """The label is the rule that matched."""
    app = scaleobs.instrument(site(), registry=registry)

    assert status == wsgi(app, method, path).status
    assert {(method, template, str(status)): 1} == counted(registry)
    assert 0 == registry.get_sample_value("scaleobs_internal_faults_total")


def test_hook_that_answers_before_the_view_keeps_the_template(registry):
    """A refusal of a `before_request` function is counted under the rule."""
    app = site()
    app.before_request(lambda: ("who are you?", 401))
    scaleobs.instrument(app, registry=registry)

    for number in range(3):
        assert 401 == wsgi(app, path=f"/items/{number}").status
    assert {("GET", "/items/<int:item_id>", "401"): 3} == counted(registry)


def test_application_below_another_one(registry):
    """If a dispatcher mounts the application, the rule is the application's own."""
    app = scaleobs.instrument(site(), registry=registry)

    assert 200 == wsgi(DispatcherMiddleware(None, {"/shop": app}), path="/shop/items/7").status
    assert {("GET", "/items/<int:item_id>", "200"): 1} == counted(registry)


def test_fault_of_the_hook_reaches_scaleobs_alone(registry):
    """If the rule of an error can't be found, Flask answers as usual, and the fault is counted."""
    app = scaleobs.instrument(site(), registry=registry)

    class BrokenError(Exception):
        pass

    def create_url_adapter(given):
        if given is not None and getattr(given, "routing_exception", None) is not None:
            raise BrokenError
        return make(given)

    make, app.create_url_adapter = app.create_url_adapter, create_url_adapter

    assert 405 == wsgi(app, path="/thing/7").status
    assert {("GET", "unmatched", "405"): 1} == counted(registry)
    assert 1 == registry.get_sample_value("scaleobs_internal_faults_total")


def test_series_do_not_grow_with_paths(registry):
    """Two hundred random paths make no more series than there are rules."""
    app = scaleobs.instrument(site(), registry=registry)
    for number in range(200):
        wsgi(app, path=f"/{['scan', 'items', 'files'][number % 3]}/{number}")

    assert {"unmatched", "/items/<int:item_id>", "/files/<path:p>"} == {route for _, route, _ in counted(registry)}


def test_request_is_seen_by_the_application_as_ever(registry):
    """The hook does not change the request."""
    app = site()
    app.add_url_rule("/echo/<x>", "echo", lambda x: f"{request.path} {request.url_rule.rule} {x}")
    scaleobs.instrument(app, registry=registry)

    assert b"/echo/7 /echo/<x> 7" == wsgi(app, path="/echo/7").body


def test_flask_known_is_what_is_registered():
    """Every rule is listed with its methods, without those that Flask adds, and the list is stable."""
    observed = Site(site(), "wsgi")
    known = observed.routes.known()

    assert {rule.rule for rule in observed.app.url_map.iter_rules()} == {template for _, template in known}
    assert {("POST", "/thing/<a>"), ("POST", "/view"), ("GET", "/again/inner/<int:x>")} <= set(known)
    assert {"GET", "POST"} == {method for method, _ in known}
    assert known is observed.routes.known()

    observed.app.add_url_rule("/later", "later", lambda: "later")
    assert {("GET", "/later")} == set(observed.routes.known()) - set(known)


def test_flask_scans_add_no_template():
    """Two hundred random paths and methods are unmatched, or have a listed rule."""
    observed = Site(site(), "wsgi")

    found = scan(observed, ["/", "/items/", "/paint/", "/files/", "/slash/", "/thing/", "/etc/"])

    assert {template for _, template in observed.routes.known()} | {"unmatched"} >= found


def test_flask_leaves_its_rule_in_the_environ():
    """The hook writes the rule before the response, so that a cached child can be used."""
    observed = Site(site(), "wsgi")
    found = []
    for path in ("/items/7", "/slash/a", "/thing/7", "/scan/.env"):
        given = environ("GET", path, **{"wsgi.url_scheme": "http"})
        list(observed.app(given, lambda *_: None))
        found.append(given[observed.routes.route_key])

    assert ["/items/<int:item_id>", "/slash/<a>/", "/thing/<a>", "unmatched"] == found


def test_answer_before_flask_keeps_the_rule():
    """An answer of a middleware around the application is counted under the rule of the path."""
    observed = Site(site(), "wsgi")

    found = [observed.routes.template(environ(*sent))[0] for sent in (("GET", "/items/7"), ("GET", "/thing/7"))]
    assert ["/items/<int:item_id>", "/thing/<a>"] == found
    assert "unmatched" == observed.routes.template(environ("GET", "/scan/.env"))[0]


def second():
    """Return another application, with a rule like one of the first, and one of its own."""
    app = Flask("second")
    app.add_url_rule("/items/<y>", "item", lambda y: y)
    app.add_url_rule("/only", "only", lambda: "only")
    return app


@pytest.mark.parametrize("root", ["", "/shop"])
def test_application_that_a_dispatcher_calls_instead(root, registry):
    """An answer of another application below a path is counted under its rule there, and none of the first one."""
    app = scaleobs.instrument(DispatcherMiddleware(site(), {"/api": second()}), registry=registry, log_format="off")
    app = DispatcherMiddleware(None, {root: app}) if root else app

    for path in ("/api/items/7", "/items/7", "/api/items/7", "/api/only", "/slash/7"):
        wsgi(app, path=root + path)
    expected = {("GET", "/items/<int:item_id>", "200"): 1, ("GET", "/slash/<a>/", "308"): 1}
    expected |= {("GET", "/api/items/<y>", "200"): 2, ("GET", "/api/only", "200"): 1}
    assert expected == counted(registry)


def test_answer_before_flask_below_a_root_keeps_the_rule():
    """Below a root of the application, an answer of a middleware has the rule of its path."""
    observed = Site(site(), "wsgi")
    sent = environ("GET", "/items/7", SCRIPT_NAME="/shop")
    assert "unmatched" == observed.routes.template(dict(sent))[0]

    assert 200 == observed.get("GET", "/items/7", SCRIPT_NAME="/shop")[0]
    assert ("/items/<int:item_id>", False) == observed.routes.template(dict(sent))


def test_flask_is_hooked_once():
    """A second call of `routes_of` adds no second hook to an application."""
    app = site()
    Site(app, "wsgi")
    hooked = app.full_dispatch_request
    Site(app, "wsgi")

    assert hooked is app.full_dispatch_request


@pytest.mark.parametrize("log_format", ["json", "off"])
def test_rule_that_cannot_be_read_is_a_fault_of_ours(log_format, registry):
    """A rule that raises when it is read fails no request; each is unmatched, and each fault is counted."""
    app = site()
    scaleobs.instrument(app, registry=registry, log_format=log_format)
    assert 200 == wsgi(app, path="/items/7").status

    class Broken:
        @property
        def rule(self):
            raise LookupError

        def __getattr__(self, name):
            return getattr(rule, name)

    rule = next(rule for rule in app.url_map.iter_rules() if rule.endpoint == "item")
    match = RequestContext.match_request

    def match_request(self):
        match(self)
        self.request.url_rule = Broken()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RequestContext, "match_request", match_request)
        assert [200, 200] == [wsgi(app, path="/items/7").status for _ in range(2)]

    assert {("GET", "/items/<int:item_id>", "200"): 1, ("GET", "unmatched", "200"): 2} == counted(registry)
    assert 2 == registry.get_sample_value("scaleobs_internal_faults_total")
