"""The route templates of Django, under WSGI and ASGI."""

from __future__ import annotations

import pytest
from django.core.asgi import get_asgi_application
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.core.wsgi import get_wsgi_application
from django.utils import translation

import scaleobs
from support import django_site
from support.exchanges import asgi, counted, wsgi
from support.routing import Site, scan


def serve(protocol, registry, method, path, headers=()):
    """Serve one request by an observed site."""
    if protocol == "asgi":
        app = scaleobs.instrument(get_asgi_application(), registry=registry)
        return asgi(app, method, path, headers=[("Host", "testserver"), *headers])
    return wsgi(scaleobs.instrument(get_wsgi_application(), registry=registry), method, path, headers=headers)


@pytest.mark.parametrize("protocol", ["wsgi", "asgi"])
@pytest.mark.parametrize(
    ("path", "template", "status"),
    [
        ("/", "/", 200),
        ("/items/7/", "/items/<int:item_id>/", 200),
        ("/items/seven/", "unmatched", 404),
        ("/items/7", "/items/<int:item_id>/", 301),
        ("/async/7/", "/async/<x>/", 200),
        ("/api/v1/name/", "/api/v1/<slug:name>/", 200),
        ("/api/old/1999/", "/api/old/(?P<year>[0-9]{4})/", 200),
        ("/slug/a-b/", "/slug/(?P<slug>[^/]+)/", 200),
        ("/end", "/end", 200),
        ("/only/", "/only/", 405),
        ("/boom/", "/boom/", 500),
        ("/thing/", "/thing/", 405),
        ("/here/1/", "/here/<int:n>/", 200),
        ("/there/1/", "/there/<int:n>/", 200),
        ("/en-us/news/1/", "/<language>/news/<int:n>/", 200),
        ("/de/news/1/", "/<language>/news/<int:n>/", 200),
        ("/de/news/1", "/<language>/news/<int:n>/", 301),
        ("/news/1/", "/<language>/news/<int:n>/", 302),
        ("/fr/Mardi", "unmatched", 404),
        ("/fr/mardi", "/<language>/Tuesday", 200),
        ("/de/Dienstag", "/<language>/Tuesday", 200),
        ("/nl/news/1/", "unmatched", 404),
        ("/day/Monday", "/day/Monday", 200),
        ("/day/Montag", "unmatched", 404),
        ("/nowhere/", "unmatched", 404),
        ("/nowhere", "unmatched", 404),
    ],
)
def test_django_template(path, template, status, protocol, registry):
    """The label is the pattern that matched, from the root on."""
    assert status == serve(protocol, registry, "GET", path).status
    assert {("GET", template, str(status)): 1} == counted(registry)
    assert 0 == registry.get_sample_value("scaleobs_internal_faults_total")


@pytest.mark.parametrize("protocol", ["wsgi", "asgi"])
def test_answer_of_a_middleware_keeps_the_template(protocol, registry):
    """An answer of a middleware before routing is counted under the pattern of the path."""
    for path in ("/items/7/", "/items/7", "/scan/.env"):
        assert 401 == serve(protocol, registry, "GET", path, headers=[("X-Refuse", "1")]).status

    assert {("GET", "/items/<int:item_id>/", "401"): 2, ("GET", "unmatched", "401"): 1} == counted(registry)


@pytest.mark.parametrize("protocol", ["wsgi", "asgi"])
def test_translated_path_is_one_template(protocol, registry):
    """All languages of a pattern are one series."""
    for language, day in (("en-us", "Monday"), ("de", "Montag"), ("fr", "lundi")):
        seen = serve(protocol, registry, "GET", f"/day/{day}", headers=[("Accept-Language", language)])
        assert 200 == seen.status

    assert {("GET", "/day/Monday", "200"): 3} == counted(registry)


def test_language_of_the_request_is_left_alone():
    """The patterns are read without a language; the view keeps its language."""
    site = Site(get_wsgi_application(), "wsgi")
    site.get("GET", "/day/Montag", headers=[("Accept-Language", "de")])

    assert "de" == translation.get_language()
    translation.deactivate()


def test_django_known_is_what_is_in_the_urlconf():
    """Every pattern is listed once in all languages, with the methods that its view names."""
    routes = Site(get_wsgi_application(), "wsgi").routes
    known = routes.known()
    with translation.override("de"):
        assert known == Site(get_wsgi_application(), "wsgi").routes.known()

    expected = {"/", "/items/<int:item_id>/", "/api/old/(?P<year>[0-9]{4})/", "/there/<int:n>/", "/<language>/Tuesday"}
    assert expected <= {template for _, template in known}
    assert {("PUT", "/thing/"), ("POST", "/only/")} == {pair for pair in known if pair[1] in ("/thing/", "/only/")}
    assert {("GET", "/end"), ("POST", "/end")} == {pair for pair in known if pair[1] == "/end"}
    assert known is routes.known()


@pytest.mark.parametrize("protocol", ["wsgi", "asgi"])
@pytest.mark.filterwarnings("ignore:StreamingHttpResponse")
def test_django_scans_add_no_template(protocol):
    """Two hundred random paths and methods are unmatched, or have a listed pattern."""
    site = Site(get_wsgi_application() if protocol == "wsgi" else get_asgi_application(), protocol)

    found = scan(site, ["/", "/items/", "/slug/", "/de/", "/api/v1/"])

    assert {template for _, template in site.routes.known()} | {"unmatched"} >= found


@pytest.mark.parametrize("protocol", ["wsgi", "asgi"])
def test_series_do_not_grow_with_paths(protocol, registry):
    """Two hundred unknown paths are one series."""
    for number in range(200):
        serve(protocol, registry, "GET", f"/scan/{number}")

    assert {("GET", "unmatched", "404"): 200} == counted(registry)


def test_fault_of_the_hook_reaches_scaleobs_alone(registry, monkeypatch):
    """If a pattern can't be read, the request is answered, and the fault is counted."""

    class Match:
        func, args, kwargs, route = staticmethod(django_site.hello), (), {}, None

        def __getitem__(self, at):
            return (self.func, self.args, self.kwargs)[at]

    monkeypatch.setattr(WSGIHandler, "resolve_request", lambda self, request: Match(), raising=False)
    app = scaleobs.instrument(get_wsgi_application(), registry=registry)

    assert 200 == wsgi(app, path="/items/7/").status
    assert {("GET", "unmatched", "200"): 1} == counted(registry)
    assert 1 == registry.get_sample_value("scaleobs_internal_faults_total")


def test_django_handler_is_hooked_once():
    """A second call of `routes_of` adds no second hook to a handler."""
    handler = get_wsgi_application()
    Site(handler, "wsgi")
    hooked = handler.resolve_request
    Site(handler, "wsgi")

    assert hooked is handler.resolve_request


def test_hook_of_another_library_is_kept(registry):
    """An earlier replacement of a handler's method is still called, and the pattern is found."""
    handler, seen = get_wsgi_application(), []
    resolve = handler.resolve_request
    handler.resolve_request = lambda request: seen.append(request.path) or resolve(request)
    app = scaleobs.instrument(handler, registry=registry)

    assert 200 == wsgi(app, path="/items/7/").status
    assert ["/items/7/"] == seen
    assert {("GET", "/items/<int:item_id>/", "200"): 1} == counted(registry)


class Plain(ASGIHandler):
    """A handler whose call is no coroutine function."""

    def __call__(self, scope, receive, send):
        """Return what serves."""
        return super().__call__(scope, receive, send)


def test_handler_of_asgi_that_resembles_another():
    """The pattern is in the scope for any name of the subclass."""
    assert (200, "/items/<int:item_id>/") == Site(Plain(), "asgi").get(
        "GET", "/items/7/", headers=[("Host", "testserver")]
    )


def test_scope_that_a_middleware_sets_is_none_of_ours(registry):
    """An attribute `scope` of a WSGI request belongs to the application."""
    handler = get_wsgi_application()
    handler.request_class = type("Scoped", (handler.request_class,), {"scope": "read write"})

    assert 200 == wsgi(scaleobs.instrument(handler, registry=registry), path="/items/7/").status
    assert {("GET", "/items/<int:item_id>/", "200"): 1} == counted(registry)
