"""Requests of applications inside others, and the routes that they are counted under."""

from __future__ import annotations

import pytest
from quart import Quart

import scaleobs
from support.exchanges import active, asgi, counted


@pytest.fixture(name="routes")
def _routes(registry):
    """Return a function that requests paths of an application, and returns the routes and statuses that are counted."""

    def routes(app, *paths, call=asgi, log_format="off"):
        served = scaleobs.instrument(app, registry=registry, log_format=log_format)
        for path in paths:
            call(served, path=path)
        found = {(route, status): number for (_, route, status), number in counted(registry).items()}

        assert len(paths) == sum(found.values())
        assert 0 == active(registry)
        assert 0 == scaleobs.observer_of(app)._service.storage.read().faults
        return found

    return routes


def known(app):
    """Return the routes of an instrumented application that have series."""
    return {route for _, route in scaleobs.observer_of(app)._service._refresh_routes()}


def quart():
    """Return an application of Quart."""
    app = Quart("quart", static_folder=None)

    async def answer(thing):
        return thing

    app.add_url_rule("/things/<thing>", "thing", answer)
    return app
