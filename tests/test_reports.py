"""Probes in `application/health+json` (draft-inadarei-api-health-check-06), equal in both protocols."""

from __future__ import annotations

import http.client
import json
import sys
import time
from datetime import datetime

import jsonschema
import pytest

import scaleobs
from support.exchanges import asgi, wsgi
from support.servers import free_port, running

HEALTH_JSON = "application/health+json"
JSON = "application/json"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"

STATUS = {"enum": ["pass", "warn", "fail"]}
SCHEMA = {
    "type": "object",
    "required": ["status"],
    "additionalProperties": False,
    "properties": {
        "status": STATUS,
        "checks": {
            "type": "object",
            "additionalProperties": {
                "type": "array",
                "minItems": 1,
                "items": {
                    "type": "object",
                    "required": ["status"],
                    "additionalProperties": False,
                    "dependentRequired": {"observedValue": ["observedUnit", "time"], "time": ["observedValue"]},
                    "properties": {
                        "status": STATUS,
                        "output": {"type": "string"},
                        "observedValue": {"type": "number"},
                        "observedUnit": {"const": "s"},
                        "time": {"type": "string", "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$"},
                        "data": {"type": "object"},
                    },
                },
            },
        },
    },
}
"""The draft's keys as far as they are used: sections 3.1, 3.6 and 4."""


def serving(protocol, registry, **settings):
    """Return the observer of a service, and a function that requests its probes in this format."""
    kind = scaleobs.ASGIMiddleware if protocol == "asgi" else scaleobs.WSGIMiddleware
    app = kind(lambda *_: None, registry=registry, **settings)

    def fetch(path, accept=HEALTH_JSON):
        return (asgi if protocol == "asgi" else wsgi)(app, path=path, headers=[("Accept", accept)])

    return app.observer, fetch


def valid(seen):
    """Return a body in this format."""
    assert HEALTH_JSON == seen.headers["content-type"]
    assert "no-store" == seen.headers["cache-control"]
    body = json.loads(seen.body, parse_constant=pytest.fail)
    jsonschema.validate(body, SCHEMA)
    return body


def failing():
    """Fail with a confidential reason."""
    raise scaleobs.CheckFailed("mq-7.internal refused")


both = pytest.mark.parametrize("protocol", ["asgi", "wsgi"])


@both
@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("", JSON),
        ("*/*", JSON),
        (BROWSER, JSON),
        ("application/*", JSON),
        ("application/json", JSON),
        ("text/plain", JSON),
        ("application/health+json", HEALTH_JSON),
        ("Application/Health+JSON; charset=utf-8", HEALTH_JSON),
        ("application/health+json, */*", HEALTH_JSON),
        ("application/health+json, application/json;q=0.9", HEALTH_JSON),
        ("application/health+json;q=0.5, text/html", HEALTH_JSON),
        ("application/health+json;q=0.5, application/json", JSON),
        ("application/health+json;q=0.5, */*", JSON),
        ("application/health+json;q=0", JSON),
        ("application/json, application/health+json", JSON),
    ],
)
def test_format_is_the_one_that_is_preferred(accept, media_type, protocol, registry):
    """The format of MicroProfile is the default."""
    _, fetch = serving(protocol, registry)
    headers = [fetch(path, accept).headers for path in ("/health", "/ready", "/startup")]

    assert [(media_type, "Accept")] * 3 == [(one["content-type"], one["vary"]) for one in headers]


@both
def test_names_and_states_are_all_that_is_shown(protocol, registry):
    """A check passes, warns or fails; the service has the worst status; no details are shown."""
    obs, fetch = serving(protocol, registry)
    live, empty = fetch("/health"), fetch("/ready")
    obs.check("postgres")(lambda: {"lag_seconds": 1})
    passing = fetch("/ready")
    obs.check("search", critical=False)(failing)
    warned = fetch("/ready")
    obs.check("queue")(failing)
    failed = fetch("/ready")

    assert [200, 200, 200, 200, 503] == [seen.status for seen in (live, empty, passing, warned, failed)]
    assert {"status": "pass", "checks": {}} == valid(live) == valid(empty)
    assert {"status": "pass", "checks": {"postgres": [{"status": "pass"}]}} == valid(passing)
    assert {"status": "warn", "checks": {"postgres": [{"status": "pass"}], "search": [{"status": "warn"}]}} == (
        valid(warned)
    )
    assert {
        "status": "fail",
        "checks": {"postgres": [{"status": "pass"}], "search": [{"status": "warn"}], "queue": [{"status": "fail"}]},
    } == valid(failed)


@both
def test_details_are_in_the_keys_of_the_draft(protocol, registry):
    """With `details`, a check has the duration, the time, the failure and the data of its last run."""
    obs, fetch = serving(protocol, registry, details=True)
    obs.check("postgres")(lambda: {"status": "odd", "nan": float("nan"), 3: "three"})
    obs.check("redis")(lambda: time.sleep(0.02))
    obs.check("search", critical=False)(failing)
    obs.check("queue")(failing)
    begun = time.time()
    checks = {name: one for name, (one,) in valid(fetch("/ready"))["checks"].items()}
    ended = time.time()
    times = [datetime.fromisoformat(one.pop("time")).timestamp() for one in checks.values()]
    seconds = {name: (one.pop("observedValue"), one.pop("observedUnit")) for name, one in checks.items()}

    assert all(begun - 0.01 <= at <= ended + 0.01 for at in times)
    assert 0.02 <= seconds["redis"][0] < ended - begun + 0.001
    assert {
        "postgres": {"status": "pass", "data": {"status": "odd", "nan": None, "3": "three"}},
        "redis": {"status": "pass"},
        "search": {"status": "warn", "output": "mq-7.internal refused"},
        "queue": {"status": "fail", "output": "mq-7.internal refused"},
    } == checks


def test_time_is_that_of_the_last_run(registry):
    """A cached result has the time of its run."""
    obs, fetch = serving("asgi", registry, details=True)
    obs.check("postgres", cache=60)(lambda: True)
    first = valid(fetch("/ready"))["checks"]["postgres"][0]["time"]
    passed = datetime.fromisoformat(first).timestamp() + 0.05
    while time.time() < passed:
        time.sleep(0.01)
    again = valid(fetch("/ready"))["checks"]["postgres"][0]["time"]

    assert abs(datetime.fromisoformat(first) - datetime.fromisoformat(again)).total_seconds() < 0.02


def test_check_that_still_passes_has_no_output(registry):
    """A failure below the threshold is not yet one, and by the draft a check that passes has no output."""
    results = iter([True, False])
    obs, fetch = serving("wsgi", registry, details=True)
    obs.check("postgres", cache=0, failure_threshold=3)(lambda: next(results))
    seen = [valid(fetch("/ready"))["checks"]["postgres"][0] for _ in range(2)]

    assert [("pass", False)] * 2 == [(one["status"], "output" in one) for one in seen]


@both
def test_state_is_a_component_of_its_own(protocol, registry):
    """Until start-up is over, its state is reported, also beside a check with the same name."""
    obs, fetch = serving(protocol, registry, manual_start=True)
    obs.check("lifecycle")(lambda: True)
    state = {"status": "fail", "data": {"state": "new"}}

    assert {"status": "fail", "checks": {"lifecycle": [state, {"status": "pass"}]}} == valid(fetch("/ready"))
    assert {"status": "fail", "checks": {"lifecycle": [state]}} == valid(fetch("/startup"))
    assert {"status": "pass", "checks": {}} == valid(fetch("/health"))


def test_data_that_cannot_be_written_is_no_failure(registry):
    """A check may return any data, such as a circular reference."""
    around = {}
    around["self"] = around
    obs, fetch = serving("asgi", registry, details=True)
    obs.check("odd")(lambda: around)

    assert (200, "pass") == ((seen := fetch("/ready")).status, valid(seen)["status"])


SERVICE = """
import scaleobs

async def app(scope, receive, send):
    pass

app = scaleobs.instrument(app, service="shop")
scaleobs.observer_of(app).check("search", critical=False)(lambda: False)
"""


@pytest.mark.servers
def test_degraded_service_behind_a_real_server(tmp_path):
    """A client that requests the format gets it; the next one, without the header, gets the default."""
    (tmp_path / "shop.py").write_text(SERVICE)
    port = free_port()
    with running([sys.executable, "-m", "uvicorn", "--port", str(port), "shop:app"], port, tmp_path):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        answers = []
        for headers in ({"Accept": HEALTH_JSON}, {}):
            connection.request("GET", "/ready", headers=headers)
            answer = connection.getresponse()
            answers.append((answer.status, answer.headers["content-type"], json.loads(answer.read())))
        connection.close()

    assert [
        (200, HEALTH_JSON, {"status": "warn", "checks": {"search": [{"status": "warn"}]}}),
        (200, JSON, {"status": "UP", "checks": [{"name": "search", "status": "UP", "data": {"state": "DEGRADED"}}]}),
    ] == answers
