"""What the tests of an application see: test clients, and several applications in one process."""

from __future__ import annotations

import asyncio
import contextlib
import gc

import flask
import pytest
import werkzeug.test
from starlette.applications import Starlette

import scaleobs
from support.exchanges import active, asgi, counted, http_scope, serve_asgi


@pytest.fixture
def no_collection():
    """Switch automatic garbage collection off."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def site():
    """Return a Flask application whose errors are exceptions."""
    app = flask.Flask("site")
    app.add_url_rule("/items/", view_func=lambda: "ok")
    app.add_url_rule("/refused", "refused", lambda: flask.abort(401))
    app.add_url_rule("/handled", "handled", lambda: 1 / 0)
    app.register_error_handler(ZeroDivisionError, lambda error: ("handled", 418))
    return app


DROPPED = {
    "GET /missing": "404",
    "HEAD /missing": "404",
    "POST /items/": "405",
    "GET /items": "308",
    "GET /refused": "401",
    "GET /handled": "418",
    "GET /items/": "200",
}


@pytest.mark.parametrize("log_format", ["json", "off"])
@pytest.mark.parametrize("is_read", [True, False])
@pytest.mark.parametrize("request_line", DROPPED)
def test_response_that_a_test_client_drops_is_counted(request_line, is_read, log_format, registry, no_collection):
    """A response that is neither closed nor kept is counted at once, without a garbage collection by the test."""
    app = site()
    client = app.test_client() if is_read else werkzeug.test.Client(app)
    scaleobs.instrument(app, registry=registry, log_format=log_format)
    method, path = request_line.split()
    for number in range(1, 4):
        response = client.open(path, method=method)
        if is_read:
            response.get_data()
        del response

        assert {DROPPED[request_line]: number} == {status: count for (*_, status), count in counted(registry).items()}
        assert 0 == active(registry)


def test_response_that_a_test_client_keeps_is_open(registry, no_collection):
    """A response that the test still holds isn't counted before it is closed."""
    app = site()
    scaleobs.instrument(app, registry=registry)
    response = app.test_client().get("/missing")

    assert {} == counted(registry)
    assert 1 == active(registry)
    response.close()
    assert {"404": 1} == {status: count for (*_, status), count in counted(registry).items()}


def test_scrape_leaves_garbage_that_would_take_long(registry, monkeypatch):
    """A process that has switched collections off has no pause because of a scrape."""
    collected = []
    app = site()
    scaleobs.instrument(app, registry=registry)
    response = app.test_client().get("/missing")
    monkeypatch.setattr(gc, "collect", collected.append)
    monkeypatch.setattr(gc, "get_count", lambda: (1_000_000, 0, 0))

    assert 1 == active(registry)
    assert [] == collected
    response.close()


def starlette_app(*, fails=False):
    """Return an application with a lifespan."""

    @contextlib.asynccontextmanager
    async def lifespan(app):
        if fails:
            raise RuntimeError("no database")
        yield

    return Starlette(lifespan=lifespan)


@contextlib.contextmanager
def started(app):
    """Run the lifespan of an application, as test clients do; yield a function that returns the status of a path."""

    async def begin():
        pending, answered = asyncio.Queue(), asyncio.Queue()
        scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
        task = asyncio.create_task(app(scope, pending.get, answered.put))
        await pending.put({"type": "lifespan.startup"})
        if (await answered.get())["type"] == "lifespan.startup.failed":
            await task
        return pending, task

    async def end(pending, task):
        await pending.put({"type": "lifespan.shutdown"})
        await task

    with asyncio.Runner() as runner:
        lifespan = runner.run(begin())
        yield lambda path: runner.run(serve_asgi(app, http_scope(path=path))).status
        runner.run(end(*lifespan))


def checked():
    """Return a check that fails."""

    def failing():
        raise scaleobs.CheckFailed("down")

    return scaleobs.Check("db", failing)


@pytest.mark.parametrize("fails", [False, True])
def test_application_that_was_shut_down_does_not_affect_the_next_one(fails, registry):
    """A test module holds an application whose tests are over; the next one is ready, and its checks are its own."""
    first = scaleobs.instrument(starlette_app(fails=fails), registry=registry, checks=[checked()])
    with contextlib.suppress(RuntimeError), started(first) as get:
        get("/ready")
    assert 0 == registry.get_sample_value("service_ready")
    second = scaleobs.instrument(starlette_app(), registry=registry)
    with started(second) as get:
        assert 200 == get("/ready")
        assert 1 == registry.get_sample_value("service_ready")
        assert registry.get_sample_value("health_check_up", {"probe": "ready", "check": "db"}) is None

    assert 0 == registry.get_sample_value("service_ready")
    with started(second):
        assert 1 == registry.get_sample_value("service_ready")
    assert scaleobs.observer_of(first) is not None


def test_flask_application_after_one_that_was_shut_down_is_ready(registry):
    """The same if the next application has no lifespan."""
    first = scaleobs.instrument(starlette_app(), registry=registry)
    with started(first):
        pass
    app = site()
    scaleobs.instrument(app, registry=registry)
    app.test_client().get("/ready").close()

    assert 1 == registry.get_sample_value("service_ready")
    assert 503 == asgi(first, path="/ready").status
