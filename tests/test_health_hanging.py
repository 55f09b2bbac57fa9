"""While checks hang, probes answer from the last results, and no threads accumulate."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import scaleobs
from scaleobs._health import Check, Checks
from support.exchanges import http_scope, log_lines, serve_asgi, wsgi
from support.servers import until

both = pytest.mark.parametrize("protocol", ["asgi", "wsgi"])


def hanging(kind, gate):
    """Return a check that hangs until the gate opens."""
    if kind == "sync":
        return lambda: gate.wait(60) and None

    async def check():
        while not gate.is_set():  # noqa: ASYNC110 - A threading.Event, which other threads wait for, too.
            await asyncio.sleep(0.005)

    return check


def service(protocol, registry, **settings):
    """Return an application that is observed and serves nothing but its endpoints."""

    async def by_asgi(scope, receive, send):
        """Never be called."""

    app = by_asgi if protocol == "asgi" else lambda environ, start: []
    return scaleobs.instrument(app, registry=registry, log_format="off", **settings)


class Events:
    """The events of the checks."""

    def __init__(self):
        self.events = []

    def __call__(self, event, check, result):
        self.events.append((event, check.name, result.reason))


@both
def test_a_thousand_probes_a_second_while_everything_hangs(protocol, registry):
    """Probes are answered without waiting, and each check that hangs has at most one thread."""
    gate = threading.Event()
    checks = [Check(f"{kind} {n}", hanging(kind, gate), timeout=0.1) for kind in ("sync", "async") for n in range(5)]
    app = service(protocol, registry, checks=checks)
    before = threading.active_count()
    seen, most = [], 0

    async def storm():
        nonlocal most
        assert 503 == (await serve_asgi(app, http_scope(path="/ready"))).status
        began = time.monotonic()
        for _ in range(10):
            seen.extend(await asyncio.gather(*[serve_asgi(app, http_scope(path="/ready")) for _ in range(100)]))
            most = max(most, threading.active_count())
        return time.monotonic() - began

    def one(_):
        return wsgi(app, path="/ready")

    try:
        if protocol == "asgi":
            took = asyncio.run(storm())
        else:
            assert 503 == wsgi(app, path="/ready").status
            with ThreadPoolExecutor(8) as pool:
                began = time.monotonic()
                seen.extend(pool.map(one, range(1000)))
                took = time.monotonic() - began
                most = threading.active_count() - 8
    finally:
        gate.set()

    assert 1000 == len(seen)
    assert {503} == {answer.status for answer in seen}
    assert [(check.name, "DOWN") for check in checks] == [(c["name"], c["status"]) for c in seen[-1].json["checks"]]
    assert most <= before + 10
    # A hundred waits of 0.1 s each would be 10 s in WSGI, and a tenth of that per batch in ASGI.
    assert took < 5


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_only_the_probe_that_begins_a_run_waits_for_it(kind):
    """Other probes report the last result; none waits for a check whose last run took too long."""
    gate, log = threading.Event(), Events()
    checks = Checks(log)
    state = {"function": lambda: None}

    def check():
        return state["function"]()

    checks.add(Check("db", check, timeout=0.3, cache=0))
    assert checks.report("ready").is_up
    state["function"] = hanging(kind, gate)

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(checks.report, "ready")
        until(lambda: checks._states["ready", "db"]._run is not None)
        other = checks.report("ready")
        assert not first.result().is_up
    began = time.monotonic()
    later = [checks.report("ready") for _ in range(100)]
    later_took = time.monotonic() - began
    gate.set()
    until(lambda: checks.report("ready").is_up)

    assert other.is_up  # By the end of the run it would not be.
    assert {False} == {report.is_up for report in later}
    assert later_took < 10  # A hundred times 0.3 s would be 30 s.
    assert [("failed", "db", "no answer within 0.3 s"), ("recovered", "db", "")] == log.events


@pytest.mark.parametrize("threshold", [1, 2])
def test_a_scrape_shows_that_time_is_up_and_leaves_it_to_the_probe(threshold):
    """A scrape shows a timeout, each time the same; the next probe logs it once."""
    gate, log = threading.Event(), Events()
    checks = Checks(log)
    state = {"function": lambda: None}

    def check():
        return state["function"]()

    checks.add(Check("db", check, timeout=0.05, cache=0, failure_threshold=threshold))
    assert checks.report("ready").is_up
    state["function"] = hanging("sync", gate)
    checks.report_at_once("ready")
    until(lambda: not any(run.is_up for run in checks.last_runs()))
    read = [(checks.all_up("ready"), [run.is_up for run in checks.last_runs()]) for _ in range(3)]
    before = list(log.events)
    reported = checks.report_at_once("ready").is_up
    gate.set()

    assert read == [(threshold == 2, [False])] * 3
    assert [] == before
    assert reported == (threshold == 2)
    assert log.events == [("failed", "db", "no answer within 0.05 s")] * (threshold == 1)


def test_a_late_answer_is_no_pass_but_worth_waiting_for_the_next():
    """A run that ends after its time has failed; the next probe waits for a new run, and shows the recovery."""
    gate = threading.Event()
    checks = Checks(Events())
    checks.add(Check("db", hanging("sync", gate), timeout=0.5, cache=0))
    assert not checks.report("ready").is_up

    gate.set()
    until(lambda: checks._states["ready", "db"]._run is None)

    assert not checks.all_up("ready")
    assert checks.report("ready").is_up


def test_an_async_check_that_wont_be_cancelled_has_one_run():
    """A check that suppresses its cancellation keeps that run, and no second one begins."""
    runs, is_over = [], threading.Event()

    async def stubborn():
        runs.append(1)
        while not is_over.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                continue

    async def probe():
        answers = [(await checks.report_async("ready")).is_up for _ in range(20)]
        is_over.set()
        return answers, len(runs)

    checks = Checks(Events())
    checks.add(Check("db", stubborn, timeout=0.05, cache=0))

    assert ([False] * 20, 1) == asyncio.run(probe())


def test_a_sync_check_does_not_block_the_loop():
    """While a sync check runs, the event loop runs."""
    gate, turns = threading.Event(), []

    async def probe():
        pending_report = asyncio.create_task(checks.report_async("ready"))
        for _ in range(5):
            await asyncio.sleep(0)
            turns.append(pending_report.done())
        gate.set()
        return await pending_report

    checks = Checks(Events())
    checks.add(Check("db", lambda: gate.wait(20), timeout=20))

    assert asyncio.run(probe()).is_up
    assert [False] * 5 == turns


def test_a_probe_from_another_thread_runs_async_checks_on_the_loop():
    """A probe on another thread, such as the management port's, runs async checks on the loop of their pools."""
    seen = []

    async def check():
        seen.append(asyncio.get_running_loop())

    async def serve():
        checks.serve()
        report = await asyncio.get_running_loop().run_in_executor(None, checks.report, "ready")
        return report, asyncio.get_running_loop()

    checks = Checks(Events())
    checks.add(Check("db", check, timeout=20))
    report, loop = asyncio.run(serve())

    assert report.is_up
    assert [loop] == seen


def test_a_check_that_its_loop_ended_is_not_down():
    """A server that stops cancels a run: the check has not failed, and nothing is logged."""
    log = Events()
    checks = Checks(log)
    checks.add(Check("db", hanging("async", threading.Event()), timeout=20))

    async def leave():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(checks.report_async("ready"), 0.05)

    asyncio.run(leave())

    assert [] == log.events
    assert [] == list(checks.last_runs())


@both
def test_a_scrape_and_liveness_run_no_check(protocol, registry):
    """A scrape and a liveness probe begin no run of a readiness check."""
    runs = []
    app = service(protocol, registry, checks=[Check("db", lambda: runs.append(1))])

    async def request(path):
        return await serve_asgi(app, http_scope(path=path))

    for path in ("/metrics", "/health"):
        answer = asyncio.run(request(path)) if protocol == "asgi" else wsgi(app, path=path)
        assert 200 == answer.status
    assert [] == runs


def test_slow_runs_are_warned_of_once(registry, capsys):
    """A run that takes more than half of its timeout is logged once, until a run is fast again."""
    pause = {"seconds": 0.55}
    app = scaleobs.instrument(lambda environ, start: [], registry=registry)
    scaleobs.observer_of(app).check("db", timeout=1, cache=0)(lambda: threading.Event().wait(pause["seconds"]) or None)
    for pause["seconds"] in (0.55, 0.55, 0, 0.55):
        assert 200 == wsgi(app, path="/ready").status
    lines = [line for line in log_lines(capsys) if line["event"].startswith("check.")]

    assert [("check.slow", "warning", "db", 1)] * 2 == [
        (line["event"], line["level"], line["check"], line["timeout_seconds"]) for line in lines
    ]
    assert all(0.55 <= line["duration_seconds"] < 1 for line in lines)
