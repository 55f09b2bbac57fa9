"""Checks with `every` run in the background from the first request on, in each process."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import threading
import weakref

import pytest

import scaleobs
from scaleobs._health import Check, Checks
from scaleobs._health.state import background
from support.exchanges import asgi, http_scope, serve_asgi, wsgi
from support.servers import until


def test_nothing_runs_before_the_service_is_served(registry, monkeypatch):
    """An import, an instrumented application and a scrape of the registry start no thread and no run."""
    runs, begun, start = [], [], threading.Thread.start

    def noted(thread):
        # The checks of earlier tests may still run.
        begun.append(threading.get_ident())
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", noted)
    scaleobs.Observer(registry=registry, checks=[Check("db", lambda: runs.append(1), every=0.001)])
    list(registry.collect())

    assert [] == runs
    assert threading.get_ident() not in begun


@pytest.mark.parametrize("path", ["/", "/ready", "/health", "/metrics"])
def test_background_begins_with_the_first_request(path, registry):
    """Any request starts the background; from then on the check runs without requests."""
    runs = []

    def app(environ, start):
        start("200 OK", [])
        return []

    app = scaleobs.instrument(
        app, registry=registry, log_format="off", checks=[Check("db", lambda: runs.append(1), every=0.005)]
    )
    wsgi(app, path=path)

    until(lambda: len(runs) > 5)


def test_probes_answer_from_the_last_run():
    """The first probe waits for the first run; no later one begins a run."""
    runs, state = [], {"is_up": True}
    checks = Checks(lambda *_: None)

    def check():
        runs.append(1)
        return state["is_up"]

    checks.add(Check("db", check, every=1000))
    assert checks.report("ready").is_up

    state["is_up"] = False
    assert [True] * 100 == [checks.report("ready").is_up for _ in range(100)]
    assert [1] == runs


def test_changes_are_logged_without_a_probe():
    """A check in the background that fails and recovers is logged, although no probe comes."""
    events, state = [], {"is_up": True}
    checks = Checks(lambda event, *_: events.append(event))
    checks.add(Check("db", lambda: state["is_up"], every=0.005))
    checks.serve()
    until(lambda: list(checks.last_runs()))

    state["is_up"] = False
    until(lambda: events == ["failed"])
    state["is_up"] = True
    until(lambda: events == ["failed", "recovered"])


def test_a_hanging_one_is_found_and_delays_no_other():
    """A check that hangs times out without a probe, keeps one thread, and delays no other check."""
    gate, events, runs, hung = threading.Event(), [], [], []
    checks = Checks(lambda event, check, result: events.append((event, check.name, result.reason)))
    checks.add(Check("stuck", lambda: hung.append(1) or gate.wait(60), every=0.005, timeout=0.05))
    checks.add(Check("quick", lambda: runs.append(1), every=0.005))
    checks.serve()
    until(lambda: events)
    before = len(runs)
    until(lambda: len(runs) > before + 10)
    stuck = len(hung)
    gate.set()
    until(lambda: ("recovered", "stuck", "") in events)

    assert ("failed", "stuck", "no answer within 0.05 s") == events[0]
    assert 1 == stuck


def test_async_ones_run_on_the_loop_of_the_application():
    """Async checks run on the loop of their pools, pause when it is closed, and continue on the next one."""
    seen = []

    async def check():
        seen.append(asyncio.get_running_loop())

    checks = Checks(lambda *_: None)
    checks.add(Check("db", check, every=0.005))

    async def serve():
        await checks.report_async("ready")
        before = len(seen)
        while len(seen) < before + 5:  # noqa: ASYNC110 - Runs on its own.
            await asyncio.sleep(0.002)
        return asyncio.get_running_loop()

    for _ in range(2):
        seen.clear()
        assert {asyncio.run(asyncio.wait_for(serve(), 20))} == set(seen)


def test_an_application_that_is_dropped_is_checked_no_more():
    """The background does not keep the checks of a dropped application."""

    def served():
        checks = Checks(lambda *_: None)
        checks.add(Check("db", lambda: None, every=0.005))
        checks.serve()
        until(lambda: list(checks.last_runs()))
        return weakref.ref(checks), weakref.ref(checks._states["ready", "db"])

    def are_gone():
        gc.collect()
        return [None, None] == [one() for one in gone]

    gone = served()
    until(are_gone)


def test_a_check_that_is_added_later_runs_too():
    """A service that is served already runs a new check at once."""
    runs = []
    checks = Checks(lambda *_: None)
    checks.serve()
    checks.add(Check("db", lambda: runs.append(1), every=0.005))

    until(lambda: len(runs) > 3)


def test_one_thread_begins_the_runs_of_all_services():
    """A process has one thread for the checks of all its applications."""
    every = [Checks(lambda *_: None) for _ in range(20)]
    for checks in every:
        checks.add(Check("db", lambda: None, every=0.01))
        checks.serve()
    until(lambda: all(list(checks.last_runs()) for checks in every))

    assert 1 == sum(thread.name == "scaleobs-checks" for thread in threading.enumerate())


def test_a_process_without_a_thread_left_tries_again(monkeypatch):
    """The probe answers from the last results, and a later one starts the background."""
    checks = Checks(lambda *_: None)
    checks.add(Check("db", lambda: None, every=0.01, cache=0))
    with monkeypatch.context() as patched:

        def start(self):
            msg = "can't start new thread"
            raise RuntimeError(msg)

        until(lambda: background._thread is None or background._states)
        patched.setattr(threading.Thread, "start", start)
        patched.setattr(background, "_thread", None)
        assert not checks.report("ready").is_up

    assert not checks.is_serving
    checks.report("ready")
    until(lambda: checks.report("ready").is_up)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_forked_process_checks_for_itself(kind, registry):
    """A forked process has none of its parent's results, runs and threads, and begins its own."""
    gate = threading.Event()
    parent = os.getpid()

    def check():
        if os.getpid() == parent:
            gate.wait(60)
        return True

    async def check_async():
        check()

    obs = scaleobs.Observer(registry=registry, log_format="off")
    options = {"timeout": 5, "every": 0.01}
    obs.check("db", **options)(check if kind == "sync" else check_async)
    obs.check("once", timeout=5)(check if kind == "sync" else check_async)
    obs._service.checks.serve()
    obs._service.checks.report_at_once("ready")
    until(lambda: all(one._run is not None for one in obs._service.checks._states.values()))
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        events = {}
        try:
            events["threads"] = threading.active_count()
            events["before"] = [list(run) for run in obs._service.checks.last_runs()]
            events["is_up"] = obs._service.checks.report("ready").is_up
            at = obs._service.checks._states["ready", "db"]._last.at
            until(lambda: obs._service.checks._states["ready", "db"]._last.at > at)
            events["again"] = True
        finally:
            os.write(writing, json.dumps(events).encode())
            os._exit(0)
    os.close(writing)
    timer = threading.Timer(20, os.kill, (pid, signal.SIGKILL))
    timer.start()
    with os.fdopen(reading) as pipe:
        output = pipe.read()
    os.waitpid(pid, 0)
    timer.cancel()
    gate.set()

    assert {"threads": 1, "before": [], "is_up": True, "again": True} == json.loads(output)


def test_gevent_and_test_clients_may_serve_one_application_on_many_loops(registry):
    """Each probe is answered, on any loop."""

    async def app(scope, receive, send):
        """Never be called."""

    async def check():
        await asyncio.sleep(0)

    app = scaleobs.instrument(app, registry=registry, log_format="off")
    scaleobs.observer_of(app).check("db", cache=0)(check)
    scaleobs.observer_of(app).check("background", every=0.005)(check)

    async def many():
        return [(await serve_asgi(app, http_scope(path="/ready"))).status for _ in range(3)]

    assert [200] * 9 == [status for _ in range(3) for status in asyncio.run(many())]
    assert 200 == asgi(app, path="/ready").status
