"""The route templates of FastAPI."""

from __future__ import annotations

import pytest
from fastapi import APIRouter, FastAPI

import scaleobs
from support.exchanges import asgi, counted


def labels(registry):
    """Return the (route, status) pairs that were counted."""
    return {(route, status) for _, route, status in counted(registry)}


def api():
    """Return a FastAPI application with routers in routers."""
    items, nested = APIRouter(prefix="/items"), APIRouter(prefix="/nested")

    @items.get("/{item_id}")
    def read(item_id: int):
        return item_id

    nested.include_router(items)
    app = FastAPI()
    app.include_router(nested)
    app.include_router(items, prefix="/v1")
    app.include_router(items, prefix="/v2")
    sub = FastAPI()
    sub.include_router(items, prefix="/inner")
    app.mount("/sub", sub)

    @app.get("/plain/{x}")
    async def plain(x: str):
        return x

    return app


@pytest.mark.parametrize(
    ("path", "template", "status"),
    [
        ("/nested/items/1", "/nested/items/{item_id}", 200),
        ("/v1/items/1", "/v1/items/{item_id}", 200),
        ("/v2/items/1", "/v2/items/{item_id}", 200),
        ("/v1/items/one", "/v1/items/{item_id}", 422),
        ("/sub/inner/items/1", "/sub/inner/items/{item_id}", 200),
        ("/plain/1", "/plain/{x}", 200),
        ("/docs", "/docs", 200),
        ("/nested", "unmatched", 404),
    ],
)
def test_fastapi_template(path, template, status, registry):
    """Included routers, also included twice, and sub-applications have complete templates."""
    app = scaleobs.instrument(api(), registry=registry)

    assert status == asgi(app, path=path).status
    assert {(template, str(status))} == labels(registry)


def test_fastapi_root_path(registry):
    """The label of a FastAPI application with a root path does not contain that path."""
    app = api()
    app.root_path = "/proxy"
    scaleobs.instrument(app, registry=registry)

    assert 200 == asgi(app, path="/proxy/v2/items/1").status
    assert 200 == asgi(app, path="/v2/items/1").status
    assert {("GET", "/v2/items/{item_id}", "200"): 2} == counted(registry)
