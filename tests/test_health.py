"""A probe answers in time with all its checks, for any result of a check."""

from __future__ import annotations

import asyncio
import threading

import pytest

import scaleobs
from scaleobs import CheckFailed
from scaleobs._health import Check, Checks
from support.exchanges import asgi, log_lines

BUDGET = 0.2


def service(registry):
    """Return an application that is observed and serves nothing but its endpoints."""

    async def never(scope, receive, send):
        """Fail: no request reaches the application."""

    return scaleobs.instrument(never, registry=registry)


class UnspeakableError(Exception):
    """An exception without a text."""

    def __str__(self):
        raise RuntimeError

    __repr__ = __str__


def raising(error):
    """Return a check that raises."""

    def check():
        raise error

    return check


def returning(value):
    """Return a check that returns."""
    return lambda: value


def as_async(check):
    """Return the same check as a coroutine function."""

    async def checked():
        await asyncio.sleep(0)
        return check()

    return checked


OUTCOMES = [
    (returning(None), True, ""),
    (returning(True), True, ""),
    (returning({"lag": 3}), True, ""),
    (returning({}), True, ""),
    (returning(False), False, "the check returned False"),
    (returning(0), False, "the check returned 0, not True, False, None or a mapping to show"),
    (returning("no"), False, "the check returned 'no', not"),
    (returning(UnspeakableError()), False, ""),
    (raising(CheckFailed("replica lags")), False, "replica lags"),
    (raising(CheckFailed()), False, "the check failed"),
    (raising(ConnectionError("refused")), False, "ConnectionError: refused"),
    (raising(asyncio.CancelledError()), False, "CancelledError"),
    (raising(SystemExit(3)), False, "SystemExit: 3"),
    (raising(KeyboardInterrupt()), False, "KeyboardInterrupt"),
    (raising(UnspeakableError()), False, "UnspeakableError"),
    (raising(ValueError("x" * 100_000)), False, "ValueError: xxx"),
]


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize("protocol", ["sync", "async"])
@pytest.mark.parametrize(("outcome", "is_up", "reason"), OUTCOMES)
def test_every_outcome_becomes_a_result(outcome, is_up, reason, protocol, kind):
    """An exception, an odd value and a cancellation each become a result beside those of the other checks."""
    checks = Checks(lambda *_: None)
    checks.add(Check("odd", as_async(outcome) if kind == "async" else outcome, timeout=5))
    checks.add(Check("even", returning(True), timeout=5))

    report = checks.report("ready") if protocol == "sync" else asyncio.run(checks.report_async("ready"))
    (first, odd), (second, even) = report.checks

    assert ("odd", "even", True) == (first, second, even.is_up)
    assert (is_up, is_up) == (report.is_up, odd.is_up)
    assert odd.reason.startswith(reason)
    assert len(odd.reason) < 1100


def hanging(kind, gate):
    """Return a check that hangs until the gate opens."""
    if kind == "sync":
        return lambda: gate.wait(30) and None

    async def check():
        while not gate.is_set():  # noqa: ASYNC110 - A threading.Event, which also WSGI's threads wait for.
            await asyncio.sleep(0.005)

    return check


@pytest.mark.parametrize("protocol", ["sync", "async"])
def test_checks_run_side_by_side(protocol):
    """Ten checks take about as long as one, under each protocol."""
    checks = Checks(lambda *_: None)
    barrier = threading.Barrier(10, timeout=10)
    for number in range(10):
        checks.add(Check(f"c{number}", lambda: barrier.wait() >= 0, timeout=10))

    report = checks.report("ready") if protocol == "sync" else asyncio.run(checks.report_async("ready"))

    assert report.is_up
    assert [f"c{number}" for number in range(10)] == [name for name, _ in report.checks]


def test_async_checks_run_on_the_loop_of_the_application():
    """An async check runs on the loop of the application's connection pools."""
    checks, seen = Checks(lambda *_: None), []

    async def check():
        seen.append(asyncio.get_running_loop())

    async def probe():
        await checks.report_async("ready")
        return asyncio.get_running_loop()

    checks.add(Check("loop", check, timeout=5))

    assert [asyncio.run(probe())] == seen


def test_check_survives_its_loop():
    """A check whose loop is closed during a run, as in tests, does not hang for ever."""
    checks = Checks(lambda *_: None)
    gate = threading.Event()
    checks.add(Check("slow", hanging("async", gate), timeout=BUDGET, cache=0))
    loop = asyncio.new_event_loop()
    loop.run_until_complete(asyncio.wait([loop.create_task(checks.report_async("ready"))], timeout=0.05))
    pending = asyncio.all_tasks(loop)
    loop.close()
    for task in pending:
        task._log_destroy_pending = False
    gate.set()

    assert asyncio.run(checks.report_async("ready")).is_up


def test_thread_that_cannot_be_started_is_a_failed_check(monkeypatch):
    """In a process without threads left, a check fails with a reason, and runs again later."""
    checks = Checks(lambda *_: None)
    checks.add(Check("any", returning(True), timeout=BUDGET, cache=0))
    with monkeypatch.context() as patched:

        def start(self):
            msg = "can't start new thread"
            raise RuntimeError(msg)

        patched.setattr(threading.Thread, "start", start)
        report = checks.report("ready")

    assert "RuntimeError: can't start new thread" == report.checks[0][1].reason
    assert checks.report("ready").is_up


def test_change_is_logged_once(registry, capsys):
    """A failure and a recovery are logged once each, for any number of probes; only the log has the reason."""
    state = {"error": None}

    def check():
        if state["error"]:
            raise state["error"]

    app = service(registry)
    scaleobs.observer_of(app).check("postgres", cache=0)(check)
    bodies = []
    for error in (None, None, CheckFailed("at 10.1.2.3"), CheckFailed("at 10.1.2.3"), None, None):
        state["error"] = error
        bodies.append(asgi(app, path="/ready").body)
    lines_of_checks = [line for line in log_lines(capsys) if line["event"].startswith("check.")]

    assert [("check.failed", "warning", "at 10.1.2.3"), ("check.recovered", "info", None)] == [
        (line["event"], line["level"], line.get("reason")) for line in lines_of_checks
    ]
    assert b"10.1.2.3" not in b"".join(bodies)


def test_ready_gauge_follows_the_last_results_without_a_run(registry):
    """`service_ready` has the result of the last probe; a scrape runs no check."""
    runs = []
    app = service(registry)
    scaleobs.observer_of(app).check("bad")(lambda: runs.append(1) or False)

    asgi(app, path="/ready")
    for _ in range(3):
        assert 0 == registry.get_sample_value("service_ready")
    assert 1 == len(runs)


def test_an_application_that_is_not_served_does_not_count(registry):
    """`service_ready` depends on served applications only, not on one that is only imported."""
    served = scaleobs.Observer(registry=registry)
    only_imported = scaleobs.Observer(registry=registry)

    assert 0 == registry.get_sample_value("service_ready")

    served.started()

    assert 1 == registry.get_sample_value("service_ready")

    only_imported._service.on_lifespan("opened")

    assert 0 == registry.get_sample_value("service_ready")
