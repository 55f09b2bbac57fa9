"""The four endpoints, equal in both protocols."""

from __future__ import annotations

import json

import pytest

import scaleobs
from support.exchanges import asgi, counted, log_lines, wsgi


def service(protocol, registry, **settings):
    """Return an instrumented application, and a function that requests a path of it."""

    async def by_asgi(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"the application"})

    def by_wsgi(environ, start_response):
        start_response("200 OK", [])
        return [b"the application"]

    app = scaleobs.instrument(by_asgi if protocol == "asgi" else by_wsgi, registry=registry, **settings)
    serve = asgi if protocol == "asgi" else wsgi
    return app, lambda path, method="GET", **more: serve(app, method, path, **more)


both = pytest.mark.parametrize("protocol", ["asgi", "wsgi"])


def answered_checks(obs):
    """Register a check for each outcome."""
    obs.check("postgres")(lambda: {"lag_seconds": 1, "nan": float("nan"), "at": object, 3: "three"})
    obs.check("redis")(lambda: True)
    obs.check("queue")(failing)
    obs.check("search", critical=False)(failing)
    obs.check("warm", probe="startup")(lambda: True)


def failing():
    """Fail with a confidential reason."""
    raise scaleobs.CheckFailed("mq-7.internal refused")


@both
def test_bodies_are_in_the_wire_format(protocol, registry):
    """An answer has MicroProfile's keys, with names and states only: no data and no errors of checks."""
    app, request = service(protocol, registry)
    answered_checks(scaleobs.observer_of(app))

    ready, startup, live = request("/ready"), request("/startup"), request("/health")

    assert (503, 200, 200) == (ready.status, startup.status, live.status)
    assert {
        "status": "DOWN",
        "checks": [
            {"name": "postgres", "status": "UP"},
            {"name": "redis", "status": "UP"},
            {"name": "queue", "status": "DOWN"},
            {"name": "search", "status": "UP", "data": {"state": "DEGRADED"}},
        ],
    } == ready.json
    assert {"status": "UP", "checks": [{"name": "warm", "status": "UP"}]} == startup.json
    assert {"status": "UP", "checks": []} == live.json
    assert "application/json" == ready.headers["content-type"]


@both
def test_details_are_shown_if_requested(protocol, registry):
    """With `details`, the data of a check has its result, its failure, its duration and its age."""
    app, request = service(protocol, registry, details=True)
    answered_checks(scaleobs.observer_of(app))
    checks = json.loads(request("/ready").body, parse_constant=pytest.fail)["checks"]
    data_of_checks = [{**check["data"]} for check in checks]
    times = [(data.pop("duration_seconds"), data.pop("age_seconds")) for data in data_of_checks]

    assert all(0 <= seconds < 10 for pair in times for seconds in pair)
    assert [
        {"lag_seconds": 1, "nan": None, "at": "<class 'object'>", "3": "three"},
        {},
        {"reason": "mq-7.internal refused"},
        {"state": "DEGRADED", "reason": "mq-7.internal refused"},
    ] == data_of_checks


@both
@pytest.mark.parametrize("path", ["/health", "/ready", "/startup", "/metrics"])
def test_methods_and_headers(path, protocol, registry):
    """GET and HEAD have equal headers, which forbid caches; any other method is 405 with the allowed ones."""
    _, request = service(protocol, registry)
    get, head = request(path), request(path, "HEAD")

    assert (200, 200, b"") == (get.status, head.status, head.body)
    assert get.headers.keys() == head.headers.keys()
    assert "no-store" == get.headers["cache-control"]
    assert str(len(get.body)) == get.headers["content-length"]
    for method in ("POST", "DELETE", "OPTIONS", "BREW"):
        refused = request(path, method)
        assert (405, "GET, HEAD", "no-store") == (
            refused.status,
            refused.headers["allow"],
            refused.headers["cache-control"],
        )


@both
def test_data_that_cannot_be_written_is_no_failure(protocol, registry):
    """A check may return any data, such as a circular reference, or an object whose `repr` raises."""

    class Silent:
        def __str__(self):
            raise RuntimeError

    around = {}
    around["self"] = around
    app, request = service(protocol, registry, details=True)
    scaleobs.observer_of(app).check("odd")(lambda: {"circle": around, "silent": Silent(), Silent(): 1})

    assert (200, "UP") == ((seen := request("/ready")).status, seen.json["status"])


@both
def test_paths_can_be_changed_and_turned_off(protocol, registry):
    """A path that is changed or disabled belongs to the application, and only the exact path is an endpoint."""
    _, request = service(protocol, registry, health_path="/-/live", ready_path=None, metrics_path="/m")

    assert {"status": "UP", "checks": []} == request("/-/live").json
    assert b"active_connections" in request("/m").body
    for path in ("/health", "/ready", "/metrics", "/startup/", "/startup/x", "//startup", "/STARTUP"):
        assert b"the application" == request(path).body


@both
def test_aliases_are_answered_on_request(protocol, registry):
    """If aliases are enabled, liveness and readiness have them; they answer the same and are not counted."""
    app, request = service(protocol, registry, probe_aliases=True)
    _, request_without = service(protocol, registry)
    answered_checks(scaleobs.observer_of(app))

    assert [{"status": "UP", "checks": []}] * 2 == [request("/livez").json, request("/healthz").json]
    assert (503, request("/ready").json) == ((ready := request("/readyz")).status, ready.json)
    assert {} == counted(registry)
    for path in ("/livez", "/healthz", "/readyz"):
        assert (405, b"the application") == (request(path, "POST").status, request_without(path).body)


@both
def test_aliases_take_no_path_of_another(protocol, registry):
    """A configured path is never an alias of another endpoint, and a disabled probe has no alias."""
    settings = {"registry": registry, "probe_aliases": True}
    _, request = service(protocol, **settings, manual_start=True, ready_path="/livez", metrics_path="/readyz")
    _, without_live = service(protocol, **settings, health_path="off", startup_path="/healthz")
    _, without_ready = service(protocol, **settings, ready_path=None)

    assert [503, 200, 200] == [request(path).status for path in ("/livez", "/healthz", "/readyz")]
    assert b"active_connections" in request("/readyz").body
    assert {"status": "UP", "checks": []} == without_live("/healthz").json == without_live("/readyz").json
    assert b"the application" == without_live("/livez").body == without_ready("/readyz").body
    assert {"status": "UP", "checks": []} == without_ready("/livez").json


def test_aliases_take_no_path_of_another_below_a_root_path(registry):
    """The same holds for a configured path that includes the server's prefix."""
    _, request = service("asgi", registry, probe_aliases=True, manual_start=True, ready_path="/api/healthz")

    assert [200, 503, 200] == [
        request(path, root_path="/api").status for path in ("/api/livez", "/api/healthz", "/api/health")
    ]


def test_endpoints_are_found_below_a_root_path(registry):
    """A server with a configured prefix sends whole paths; the probes are found with and without it."""
    _, request = service("asgi", registry)

    assert {"status": "UP", "checks": []} == request("/api/health", root_path="/api").json
    assert {"status": "UP", "checks": []} == request("/health", root_path="/api").json
    assert b"the application" == request("/apihealth", root_path="/api").body
    assert b"the application" == request("/other/health", root_path="/api").body


def test_endpoints_are_found_below_a_script_name(registry):
    """WSGI removes the prefix itself."""
    _, request = service("wsgi", registry)

    assert {"status": "UP", "checks": []} == request("/health", SCRIPT_NAME="/api").json


@both
def test_probes_are_not_counted_and_silent_while_they_succeed(protocol, registry, capsys):
    """Probes have no sample and no line; a failing probe is logged with the checks that are down."""
    app, request = service(protocol, registry)
    for path in ("/health", "/ready", "/startup", "/metrics"):
        request(path)
        request(path, "POST")

    assert [] == log_lines(capsys)
    scaleobs.observer_of(app).check("bad")(lambda: False)
    request("/ready")
    line = next(line for line in log_lines(capsys) if line["event"] == "probe.failed")

    assert {} == counted(registry)
    assert ("warning", "ready", 503, ["bad"]) == (
        line["level"],
        line["probe"],
        line["status_code"],
        line["checks_down"],
    )


@both
def test_manual_start_is_reported_by_the_application(protocol, registry):
    """With `manual_start`, only the application ends start-up, not a request or a lifespan."""
    app, request = service(protocol, registry, manual_start=True)
    request("/")

    assert [503, 503, 200] == [request(path).status for path in ("/ready", "/startup", "/health")]
    scaleobs.observer_of(app).started()
    assert [200, 200, 200] == [request(path).status for path in ("/ready", "/startup", "/health")]


@both
def test_checks_of_the_other_probe_are_not_run(protocol, registry):
    """Liveness runs no check; start-up runs its own; readiness its own and, during start-up, those of start-up."""
    runs = []
    app, request = service(protocol, registry)
    for probe in ("ready", "startup"):
        scaleobs.observer_of(app).check(f"of {probe}", probe=probe)(lambda probe=probe: runs.append(probe))

    assert [200, 200] == [request("/health").status, request("/metrics").status]
    assert [] == runs
    assert ["of startup"] == [check["name"] for check in request("/startup").json["checks"]]
    assert ["startup"] == runs
    assert ["of ready"] == [check["name"] for check in request("/ready").json["checks"]]
    assert ["startup", "ready"] == runs
