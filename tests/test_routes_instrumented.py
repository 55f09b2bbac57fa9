"""`instrument` for each further framework."""

from __future__ import annotations

import pytest

import scaleobs
import test_routes_bottle
import test_routes_falcon
import test_routes_litestar
import test_routes_pyramid
import test_routes_quart
from support.exchanges import asgi, counted, wsgi
from support.routing import Site

SITES = {
    "bottle": (test_routes_bottle.site, "/items/<item_id:int>"),
    "falcon": (lambda: test_routes_falcon.site("wsgi"), "/items/{item_id:int}"),
    "falcon asgi": (lambda: test_routes_falcon.site("asgi"), "/items/{item_id:int}"),
    "litestar": (test_routes_litestar.site, "/items/{item_id}"),
    "pyramid": (test_routes_pyramid.site, r"/items/{item_id:\d+}"),
    "quart": (lambda: Site(test_routes_quart.app(), "asgi"), "/items/<int:item_id>"),
}


@pytest.mark.parametrize("name", SITES)
def test_instrumented_site_counts_its_templates(name, registry):
    """Three ids are one series, two hundred unknown paths are another, and the answers do not change."""
    make, template = SITES[name]
    site = make()
    bare = [site.get("GET", path)[0] for path in ("/items/7", "/nowhere")]
    app = scaleobs.instrument(site.app, registry=registry)

    def get(path):
        if site.protocol == "asgi":
            return asgi(app, path=path, headers=[("Host", "testserver")]).status
        return wsgi(app, path=path).status

    assert [200] * 3 == [get(f"/items/{number}") for number in range(3)]
    assert {404} == {get(f"/scan/{number}.php") for number in range(200)}
    assert [200, 404] == bare
    assert {("GET", template, "200"): 3, ("GET", "unmatched", "404"): 200} == counted(registry)
    assert 0 == registry.get_sample_value("scaleobs_internal_faults_total")
    assert 0 == registry.get_sample_value(
        "http_requests_total", {"method": "GET", "route": template, "status_code": "500"}
    )
