"""Results are cached, damped and degraded by the options, and the metrics show the last runs."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import scaleobs
from scaleobs._health import Check, CheckFailed, Checks
from support.exchanges import http_scope, serve_asgi, wsgi
from support.servers import until

both = pytest.mark.parametrize("protocol", ["asgi", "wsgi"])


def scripted(*results):
    """Return a check that passes or fails by turns, and goes on as it ended."""
    turns = itertools.chain(results, itertools.repeat(results[-1]))

    def check():
        if not next(turns):
            raise CheckFailed("as scripted")

    return check


def run_times(check, times):
    """Return whether each probe was up, and the events."""
    events = []
    checks = Checks(lambda event, check, result: events.append((event, result.reason)))
    checks.add(check)
    return [checks.report("ready") for _ in range(times)], events, checks


@both
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_thousands_of_probes_run_each_check_once_per_cache_period(protocol, kind, registry):
    """For any number of probes, two runs of a check begin at least the cache period apart."""
    begun = {"a": [], "b": []}

    def make(name):
        def check():
            begun[name].append(time.monotonic())

        async def check_async():
            check()

        return Check(name, check_async if kind == "async" else check, timeout=20, cache=0.2)

    async def by_asgi(scope, receive, send):
        """Never be called."""

    app = by_asgi if protocol == "asgi" else lambda environ, start: []
    app = scaleobs.instrument(app, registry=registry, log_format="off", checks=[make("a"), make("b")])

    async def storm():
        rounds = [[serve_asgi(app, http_scope(path="/ready")) for _ in range(100)] for _ in range(30)]
        return [seen.status for probes in rounds for seen in await asyncio.gather(*probes)]

    began = time.monotonic()
    if protocol == "asgi":
        statuses = asyncio.run(storm())
    else:
        with ThreadPoolExecutor(8) as pool:
            statuses = [seen.status for seen in pool.map(lambda _: wsgi(app, path="/ready"), range(3000))]
    periods = (time.monotonic() - began) / 0.2

    assert [200] * 3000 == statuses
    for times in begun.values():
        assert 1 <= len(times) <= periods + 1
        assert all(later - earlier >= 0.2 for earlier, later in itertools.pairwise(times))


def test_results_are_cached_for_a_second_by_default():
    """A second probe within a second has the same result, and runs no check."""
    runs = []
    run_times(Check("db", lambda: runs.append(1)), times=100)

    assert [1] == runs


def test_a_check_that_is_not_critical_degrades():
    """Its failure leaves the probe at 200; failure and recovery are shown and logged."""
    reports, events, _ = run_times(Check("search", scripted(1, 0, 0, 1), cache=0, critical=False), 4)

    assert [(True, True, degraded) for degraded in (False, True, True, False)] == [
        (report.is_up, report.checks[0][1].is_up, report.checks[0][1].is_degraded) for report in reports
    ]
    assert [("degraded", "as scripted"), ("recovered", "")] == events


def test_an_all_clear_needs_every_critical_check():
    """A probe fails with one critical check, for any results of the others; the report has all."""
    checks = Checks(lambda *_: None)
    checks.add(Check("a", scripted(0), critical=False))
    checks.add(Check("b", scripted(0)))
    checks.add(Check("c", scripted(1)))

    report = checks.report("ready")

    assert not report.is_up
    assert [("a", True), ("b", False), ("c", True)] == [(name, result.is_up) for name, result in report.checks]


def test_failures_below_the_threshold_are_damped():
    """A check that was UP fails with the third failure in a row; a success restarts the count, and recovers at once."""
    turns = (1, 0, 0, 1, 0, 0, 0, 0, 1)
    reports, events, _ = run_times(Check("db", scripted(*turns), cache=0, failure_threshold=3), len(turns))

    assert [1, 1, 1, 1, 1, 1, 0, 0, 1] == [report.is_up for report in reports]
    assert [("failed", "as scripted"), ("recovered", "")] == events


def test_what_was_never_up_is_not_damped():
    """A dependency that is missing from the start fails at once."""
    reports, events, _ = run_times(Check("db", scripted(0), cache=0, failure_threshold=3), 2)

    assert [False, False] == [report.is_up for report in reports]
    assert [("failed", "as scripted")] == events


def test_a_run_that_hangs_counts_once_per_period():
    """A check that hangs reaches its threshold, although it has one run."""
    gate = threading.Event()
    functions = iter([lambda: None, lambda: gate.wait(60) and None])

    def check():
        return next(functions)()

    checks = Checks(lambda *_: None)
    checks.add(Check("db", check, timeout=0.02, cache=0.02, failure_threshold=3))
    assert checks.report("ready").is_up

    end, seen = time.monotonic() + 20, []
    while checks.report("ready").is_up and time.monotonic() < end:
        seen.append(checks._states["ready", "db"]._failures)
    gate.set()

    assert {1, 2} <= set(seen)
    assert not checks.all_up("ready")


@both
def test_the_metrics_show_the_last_run(protocol, registry):
    """The metrics show start-up, and the last run of each check, also if it is damped or not critical."""

    async def by_asgi(scope, receive, send):
        """Never be called."""

    app = by_asgi if protocol == "asgi" else lambda environ, start: []
    checks = [
        Check("db", lambda: threading.Event().wait(0.02) or None, timeout=20),
        Check("search", lambda: False, critical=False),
        # Readiness would run a critical one.
        Check("warm", lambda: None, probe="startup", critical=False),
    ]
    app = scaleobs.instrument(app, registry=registry, checks=checks, log_format="off")

    def shown(name):
        samples = [sample for family in registry.collect() for sample in family.samples if sample.name == name]
        return {(sample.labels["probe"], sample.labels["check"]): sample.value for sample in samples}

    # A WSGI application has started once it is imported.
    assert ({} if protocol == "asgi" else {("startup", "lifecycle"): 1}) == shown("health_check_up")
    if protocol == "asgi":
        asyncio.run(serve_asgi(app, http_scope(path="/ready")))
    else:
        wsgi(app, path="/ready")
    seconds = shown("health_check_duration_seconds")

    assert {("startup", "lifecycle"): 1, ("ready", "db"): 1, ("ready", "search"): 0} == shown("health_check_up")
    assert {("startup", "lifecycle"), ("ready", "db"), ("ready", "search")} == set(seconds)
    assert 0.02 <= seconds["ready", "db"] < 20


def test_the_metrics_show_a_run_that_hangs(registry):
    """A scrape shows the timeout and the duration of a run that hangs, without a probe."""
    gate = threading.Event()
    obs = scaleobs.Observer(
        registry=registry, log_format="off", checks=[Check("db", lambda: gate.wait(60), timeout=0.02)]
    )
    labels = {"probe": "ready", "check": "db"}
    obs._service.checks.report_at_once("ready")
    until(lambda: registry.get_sample_value("health_check_up", labels) is not None)
    gate.set()

    assert 0 == registry.get_sample_value("health_check_up", labels)
    assert registry.get_sample_value("health_check_duration_seconds", labels) >= 0.0199


def test_two_applications_on_one_registry_show_the_worse_check(registry):
    """Two checks of the same name have one sample on the page."""
    observers = [scaleobs.Observer(registry=registry, log_format="off") for _ in range(2)]
    for obs, outcome in zip(observers, (True, False), strict=True):
        obs.check("db")(lambda outcome=outcome: outcome)
        obs._service.checks.report("ready")

    assert 0 == registry.get_sample_value("health_check_up", {"probe": "ready", "check": "db"})
    samples = [sample for family in registry.collect() for sample in family.samples]
    assert ["db"] == [
        one.labels["check"] for one in samples if one.name == "health_check_up" and one.labels["probe"] == "ready"
    ]


@pytest.mark.parametrize(
    ("checks", "message"),
    [
        ("db", "checks is 'db': give a list, e.g. checks="),
        (7, "checks is 7: give a list"),
        ([7], "7 is no check: give scaleobs.Check"),
        ([Check("db", print), Check("db", print)], "There is a check 'db' for the probe 'ready' already"),
    ],
)
def test_what_is_no_list_of_checks_is_refused(checks, message, registry):
    """The error has the value and the fix."""
    with pytest.raises((ValueError, TypeError), match=message):
        scaleobs.Observer(registry=registry, checks=checks)


@both
def test_liveness_answers_from_what_is_known(protocol, registry):
    """A liveness check runs beside the probe, which never waits, not even for the first run."""
    ended = threading.Event()

    async def by_asgi(scope, receive, send):
        """Never be called."""

    def stuck():
        ended.wait(20)
        return False

    app = by_asgi if protocol == "asgi" else lambda environ, start: []
    app = scaleobs.instrument(app, registry=registry, log_format="off")
    scaleobs.observer_of(app).check("threads", probe="live", restart_container=True, timeout=30)(stuck)

    def request():
        return (
            asyncio.run(serve_asgi(app, http_scope(path="/health")))
            if protocol == "asgi"
            else wsgi(app, path="/health")
        )

    first = request()
    ended.set()
    until(lambda: request().status != 200)

    assert (200, "UP") == (first.status, first.json["status"])
    assert {"status": "DOWN", "checks": [{"name": "threads", "status": "DOWN"}]} == request().json
