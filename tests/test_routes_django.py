"""The route templates of Django, under WSGI and ASGI."""

from __future__ import annotations

import pytest
from django.core.asgi import get_asgi_application
from django.core.handlers.wsgi import WSGIHandler
from django.core.wsgi import get_wsgi_application

import django_site
import scaleobs
from callers import asgi, counted, wsgi


def serve(protocol, registry, method, path, headers=()):
    """Serve one request by a site that is observed."""
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
        ("/nowhere/", "unmatched", 404),
        ("/nowhere", "unmatched", 404),
    ],
)
def test_django_template(path, template, status, protocol, registry):
    """The label is the pattern that was matched, written from the root."""
    assert status == serve(protocol, registry, "GET", path).status
    assert {("GET", template, str(status)): 1} == counted(registry)
    assert 0 == registry.get_sample_value("scaleobs_internal_faults_total")


@pytest.mark.parametrize("protocol", ["wsgi", "asgi"])
def test_answer_of_a_middleware_keeps_the_template(protocol, registry):
    """A middleware that answers before routing is counted under the pattern that the path has."""
    for path in ("/items/7/", "/items/7", "/scan/.env"):
        assert 401 == serve(protocol, registry, "GET", path, headers=[("X-Refuse", "1")]).status

    assert {("GET", "/items/<int:item_id>/", "401"): 2, ("GET", "unmatched", "401"): 1} == counted(registry)


@pytest.mark.parametrize("protocol", ["wsgi", "asgi"])
def test_series_do_not_grow_with_paths(protocol, registry):
    """Two hundred unknown paths are one series."""
    for number in range(200):
        serve(protocol, registry, "GET", f"/scan/{number}")

    assert {("GET", "unmatched", "404"): 200} == counted(registry)


def test_fault_of_the_hook_reaches_scaleobs_alone(registry, monkeypatch):
    """Where a pattern can't be read, the request is answered, and the fault is counted."""

    class Match:
        func, args, kwargs, route = staticmethod(django_site.hello), (), {}, None

        def __getitem__(self, at):
            return (self.func, self.args, self.kwargs)[at]

    monkeypatch.setattr(WSGIHandler, "resolve_request", lambda self, request: Match(), raising=False)
    app = scaleobs.instrument(get_wsgi_application(), registry=registry)

    assert 200 == wsgi(app, path="/items/7/").status
    assert {("GET", "unmatched", "200"): 1} == counted(registry)
    assert 1 == registry.get_sample_value("scaleobs_internal_faults_total")
