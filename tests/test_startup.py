"""Start-up tasks, which delay readiness."""

from __future__ import annotations

import asyncio
import threading

import pytest
from flask import Flask

import scaleobs
from scaleobs._lifecycle.state import Lifecycle, StartupTasks
from support import servers
from support.exchanges import asgi, wsgi


def states(answer):
    """Return the status of a probe and the state of each task."""
    (shown,) = [one for one in answer.json["checks"] if one["name"] == "lifecycle"] or [{"data": {}}]
    return answer.status, shown["data"].get("startup_tasks")


def test_wsgi_service_starts_once_its_tasks_are_done(registry):
    """The first probe begins the tasks; until all are done `/startup` and `/ready` are 503 and list them."""
    app = scaleobs.instrument(Flask("shop"), registry=registry, log_format="off", drain_seconds=0)
    goes_on, runs = threading.Event(), []

    @scaleobs.observer_of(app).startup_task
    def load():
        runs.append("load")
        goes_on.wait(servers.LIMIT)

    @scaleobs.observer_of(app).startup_task
    async def warm_up():
        runs.append("warm_up")

    def shown():
        return registry.get_sample_value("health_check_up", {"probe": "startup", "check": "lifecycle"})

    first = wsgi(app, path="/startup")
    servers.until(lambda: states(wsgi(app, path="/ready")) == (503, {"load": "running", "warm_up": "done"}))
    alive, served = wsgi(app, path="/health").status, wsgi(app, path="/").status
    before = shown()
    goes_on.set()
    servers.until(lambda: states(wsgi(app, path="/startup")) == (200, None))

    assert (0, 1) == (before, shown())
    assert 503 == first.status
    assert (200, 404) == (alive, served)
    assert 200 == wsgi(app, path="/ready").status
    assert ["load", "warm_up"] == sorted(runs)


def test_asgi_tasks_run_on_the_loop_after_the_lifespan(registry):
    """An async task runs on the application's event loop, once its lifespan has completed."""
    seen = []

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            seen.append("lifespan")
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})

    app = scaleobs.instrument(app, registry=registry, log_format="off", drain_seconds=0)
    obs = scaleobs.observer_of(app)

    @obs.startup_task
    async def warm_up():
        await asyncio.sleep(0)
        seen.append(asyncio.get_running_loop())

    async def serve():
        incoming, states = asyncio.Queue(), []

        async def send(message):
            states.append((message["type"], obs._service.lifecycle.is_started))

        incoming.put_nowait({"type": "lifespan.startup"})
        lifespan = asyncio.create_task(app({"type": "lifespan"}, incoming.get, send))
        while not obs._service.lifecycle.is_started:  # noqa: ASYNC110 - There is no event.
            await asyncio.sleep(0.001)
        incoming.put_nowait({"type": "lifespan.shutdown"})
        await lifespan
        return asyncio.get_running_loop(), states

    loop, states = asyncio.run(serve())

    assert ["lifespan", loop] == seen
    assert ("lifespan.startup.complete", False) == states[0]


def test_task_that_fails_is_never_done(registry):
    """A task that raises keeps the service from being ready, and is reported with its exception."""
    failures = []
    lifecycle = Lifecycle(manual_start=False)
    startup = StartupTasks(lifecycle, lambda name, error: failures.append((name, error)))

    def load():
        raise OSError("gone")

    startup.add(load)
    lifecycle.started()
    startup.begin()
    servers.until(lambda: failures)
    ((name, error),) = failures

    assert ("load", "gone") == (name, str(error))
    assert {"state": "failed", "startup_tasks": {"load": "failed"}} == lifecycle.probe_data()
    assert not lifecycle.is_ready


def test_late_task_is_begun_at_once():
    """A task that is registered while the service serves ends readiness until it is done."""
    lifecycle = Lifecycle(manual_start=False)
    startup = StartupTasks(lifecycle, lambda *_: None)
    lifecycle.started()
    startup.begin()
    startup.begin()
    goes_on = threading.Event()
    startup.add(goes_on.wait)
    was_ready = lifecycle.is_ready
    goes_on.set()
    servers.until(lambda: lifecycle.is_ready)

    assert not was_ready


def test_two_tasks_of_one_name_are_refused():
    """Two tasks can't have the same name, since a probe lists them by name."""
    startup = StartupTasks(Lifecycle(manual_start=False), lambda *_: None)
    startup.add(test_late_task_is_begun_at_once)
    with pytest.raises(ValueError, match="'test_late_task_is_begun_at_once'"):
        startup.add(test_late_task_is_begun_at_once)


def test_manual_start_and_tasks_are_both_required(registry):
    """With `manual_start` a service is ready after `started()` and its tasks, whichever comes last."""

    async def app(scope, receive, send):
        raise AssertionError

    app = scaleobs.instrument(app, registry=registry, log_format="off", drain_seconds=0, manual_start=True)
    obs = scaleobs.observer_of(app)
    obs.startup_task(lambda: None)

    assert 503 == asgi(app, path="/startup").status
    obs.started()
    servers.until(lambda: asgi(app, path="/startup").status == 200)
