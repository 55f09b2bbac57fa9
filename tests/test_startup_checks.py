"""Start-up checks: readiness requires them until the service has started once."""

from __future__ import annotations

import json
import threading

import pytest

import scaleobs
from support import servers
from support.exchanges import asgi, log_lines, wsgi

both = pytest.mark.parametrize("protocol", ["asgi", "wsgi"])
HELD_UP = [("lifecycle", "DOWN"), ("migrations", "DOWN"), ("database", "UP")]


def service(protocol, registry, migrations, **options):
    """Return a function that requests a path of a service with one start-up check and one readiness check."""

    async def by_asgi(scope, receive, send):
        """Never be called."""

    app = by_asgi if protocol == "asgi" else lambda environ, start: []
    app = scaleobs.instrument(app, registry=registry, log_level="warning", drain_seconds=0)
    obs = scaleobs.observer_of(app)
    obs.check("migrations", **{"probe": "startup", "cache": 0, **options})(migrations)
    obs.check("database")(lambda: True)
    return obs, lambda path: (asgi if protocol == "asgi" else wsgi)(app, path=path)


def states(answer):
    """Return the status of a probe, and each check that it lists with its state."""
    return answer.status, [(check["name"], check["status"]) for check in answer.json["checks"]]


@both
@pytest.mark.parametrize("paths", [("/startup", "/ready"), ("/ready", "/startup")], ids=" then ".join)
def test_ready_requires_the_checks_of_the_start(paths, protocol, registry, capsys):
    """While a start-up check fails, `/startup` and `/ready` are 503 and list it, and `service_ready` is 0."""
    is_migrated = []
    _, request = service(protocol, registry, lambda: bool(is_migrated))
    before = {path: request(path) for path in paths}
    gauge_before = registry.get_sample_value("service_ready")
    is_migrated.append(True)
    after = {path: states(request(path)) for path in reversed(paths)}

    assert (503, [("migrations", "DOWN")]) == states(before["/startup"])
    assert (503, HELD_UP) == states(before["/ready"])
    assert {"state": "starting"} == before["/ready"].json["checks"][0]["data"]
    assert {"/ready": (200, [("database", "UP")]), "/startup": (200, [("migrations", "UP")])} == after
    assert [0, 1] == [gauge_before, registry.get_sample_value("service_ready")]
    assert {("startup", "starting", ("migrations",)), ("ready", "starting", ("migrations",))} == {
        (line["probe"], line["state"], tuple(line["checks_down"]))
        for line in log_lines(capsys)
        if line["event"] == "probe.failed"
    }


@both
@pytest.mark.parametrize("passed", ["/startup", "/ready"])
def test_a_service_that_has_started_stays_started(passed, protocol, registry):
    """
    After all start-up checks have passed, one that fails degrades: `/startup` and `/ready` stay 200.

    An orchestrator does not request `/startup` again, so nothing would end the failure.
    """
    is_migrated = [True]
    _, request = service(protocol, registry, lambda: bool(is_migrated))
    request(passed)
    is_migrated.clear()
    startup = request("/startup")

    assert (200, [("migrations", "UP")]) == states(startup)
    assert "DEGRADED" == startup.json["checks"][0]["data"]["state"]
    assert (200, [("database", "UP")]) == states(request("/ready"))
    assert 1 == registry.get_sample_value("service_ready")
    assert 0 == registry.get_sample_value("health_check_up", {"probe": "startup", "check": "migrations"})


@both
def test_a_check_passes_the_start_only_with_the_others(protocol, registry):
    """A check that passed while another one failed must pass again together with it."""
    up = {"migrations", "database"}
    obs, request = service(protocol, registry, lambda: "migrations" in up)
    obs.check("cache", probe="startup", cache=0)(lambda: "cache" in up)

    assert (503, [("migrations", "UP"), ("cache", "DOWN")]) == states(request("/startup"))
    up ^= {"migrations", "cache"}
    assert (503, HELD_UP) == states(request("/ready"))
    up.add("migrations")
    assert 200 == request("/ready").status


@both
def test_a_check_that_is_not_critical_holds_nothing_up(protocol, registry):
    """With `critical=False` `/startup` is 200 and degraded, and readiness neither runs nor lists the check."""
    runs = []
    _, request = service(protocol, registry, lambda: runs.append(1) or False, critical=False)

    assert (200, [("database", "UP")]) == states(request("/ready"))
    assert [] == runs
    assert (200, [("migrations", "UP")]) == states(request("/startup"))
    assert 200 == request("/ready").status
    assert 1 == registry.get_sample_value("service_ready")


@both
def test_a_check_that_hangs_holds_readiness_up(protocol, registry):
    """A check that takes longer than its timeout has failed, for `/ready` and `service_ready` too."""
    gate = threading.Event()
    obs, request = service(protocol, registry, lambda: gate.wait(servers.LIMIT) and None, timeout=0.05)
    try:
        assert (503, HELD_UP) == states(request("/ready"))
        assert 503 == request("/startup").status
        assert 0 == registry.get_sample_value("service_ready")
    finally:
        gate.set()
    servers.until(lambda: request("/ready").status == 200)
    assert obs.is_ready()


def test_a_scrape_runs_none(registry):
    """A start-up check without a run counts as passed, and a scrape shows one that hangs."""
    gate, runs = threading.Event(), []

    def migrations():
        runs.append(1)
        gate.wait(servers.LIMIT)
        return False

    obs, request = service("wsgi", registry, migrations, timeout=0.05)
    request("/metrics")
    before = registry.get_sample_value("service_ready"), list(runs)
    obs._service.checks.report_at_once("startup")
    try:
        servers.until(lambda: registry.get_sample_value("service_ready") == 0)
    finally:
        gate.set()

    assert (1, []) == before
    assert [1] == runs


def test_a_check_that_is_registered_later_holds_readiness_up(registry):
    """A new start-up check delays readiness as a start-up task does; earlier ones stay passed."""
    is_migrated, is_warm = [True], []
    obs, request = service("wsgi", registry, lambda: bool(is_migrated))
    request("/startup")
    is_migrated.clear()
    obs.check("warm", probe="startup", cache=0)(lambda: bool(is_warm))

    assert (503, [("lifecycle", "DOWN"), ("warm", "DOWN"), ("database", "UP")]) == states(request("/ready"))
    is_warm.append(True)
    assert [200, 200] == [request(path).status for path in ("/ready", "/startup")]


def test_the_start_is_over_only_after_the_lifespan(registry):
    """A check that passes before the application has started must pass again after it."""
    is_migrated = [True]
    obs, request = service("asgi", registry, lambda: bool(is_migrated))
    obs._service.lifecycle.lifespan_begun()
    first = obs._service.answers.answer(
        "startup", "GET", lambda _: "", report=obs._service.checks.report("startup")
    ).status
    is_migrated.clear()
    obs._service.lifecycle.lifespan_started()
    then = request("/startup"), request("/ready")

    assert 503 == first
    assert (503, [("migrations", "DOWN")]) == states(then[0])
    assert (503, HELD_UP) == states(then[1])


def test_the_management_port_agrees(registry):
    """On the management port, `/ready` has the reason of the failure."""
    port, is_migrated = servers.free_port(), []

    def migrations():
        if not is_migrated:
            raise scaleobs.CheckFailed("0042 is missing")

    app = scaleobs.instrument(
        lambda environ, start: [], registry=registry, log_format="off", drain_seconds=0, management_port=port
    )
    obs = scaleobs.observer_of(app)
    obs.check("migrations", probe="startup", cache=0)(migrations)
    wsgi(app, path="/health")
    try:
        status, body = servers.get(port, "/ready")
        lifecycle, check = json.loads(body)["checks"]
        page = servers.get(port, "/metrics")[1]
        is_migrated.append(True)
        after = [servers.get(port, path)[0] for path in ("/ready", "/startup")]
    finally:
        obs._service._management.close()

    assert (503, {"state": "starting"}) == (status, lifecycle["data"])
    assert ("migrations", "0042 is missing") == (check["name"], check["data"]["reason"])
    assert b"service_ready 0.0" in page
    assert [200, 200] == after
