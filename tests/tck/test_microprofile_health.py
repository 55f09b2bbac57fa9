"""
The 28 cases of the MicroProfile Health TCK (`eclipse/microprofile-health`, `tck/`), for ASGI and WSGI.

Its kinds are `/health` (liveness), `/ready` and `/startup`. Its aggregate, `/health` there, has no path here, since an
orchestrator would restart a container for it; those cases run against an in-process report of all kinds. Liveness
checks run once in the process before, since a liveness probe waits for no check.
"""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass, field

import jsonschema
import pytest

import scaleobs
from support.tck_deployment import DOWN, PATHS, SCHEMA, UP, Deployment


def up():
    """Pass."""
    return True


def down():
    """Fail."""
    return False


@pytest.fixture(params=["asgi", "wsgi"])
def deployment(request, registry):
    """Return an application to deploy."""
    return Deployment(request.param, registry)


every_kind = pytest.mark.parametrize("kind", ["live", "ready", "startup"])


def test_no_checks(deployment):
    """1, NoProcedureSuccessful: without checks, 200 and an empty list, for the aggregate and for every kind."""
    deployment.deploy()

    assert (200, []) == deployment.aggregate()
    assert [(200, UP, [])] * 3 == [deployment.get(kind) for kind in PATHS]


@every_kind
def test_single_success(deployment, kind):
    """2, 4, 6, Single*Successful: one passing check is listed alone, UP, with 200."""
    deployment.deploy((kind, "successful-check", up))

    assert (200, UP, [("successful-check", UP)]) == deployment.get(kind)


@every_kind
def test_single_failure(deployment, kind):
    """3, 5, 7, Single*Failed: one failing check is listed alone, DOWN, with 503."""
    deployment.deploy((kind, "failed-check", down))

    assert (503, DOWN, [("failed-check", DOWN)]) == deployment.get(kind)


def test_multiple_liveness_failed(deployment):
    """8 and 9, MultipleLivenessFailed: both are listed with their own state, and readiness is not affected."""
    deployment.deploy(
        ("live", "failed-check", down), ("live", "successful-check", up), ("ready", "readiness-check", up)
    )

    assert (503, DOWN, [("failed-check", DOWN), ("successful-check", UP)]) == deployment.get("live")
    assert (200, UP, [("readiness-check", UP)]) == deployment.get("ready")


def test_multiple_readiness_failed(deployment):
    """10 and 11, MultipleReadinessFailed: the mirror; liveness stays at 200 with its one check."""
    deployment.deploy(
        ("ready", "failed-check", down), ("ready", "successful-check", up), ("live", "liveness-check", up)
    )

    assert (503, DOWN, [("failed-check", DOWN), ("successful-check", UP)]) == deployment.get("ready")
    assert (200, UP, [("liveness-check", UP)]) == deployment.get("live")


def test_startup_failed(deployment):
    """
    12 to 15, MultipleStartupFailed: start-up and the aggregate, with all three, 503; liveness 200.

    One assertion differs on purpose: the TCK has readiness at 200. Here readiness requires the start, so that nothing
    that requests `/ready` alone sends traffic to a service that has not started.
    """
    deployment.deploy(("startup", "startup", down), ("live", "liveness", up), ("ready", "readiness", up))

    assert (503, DOWN, [("startup", DOWN)]) == deployment.get("startup")
    assert (200, UP, [("liveness", UP)]) == deployment.get("live")
    assert (503, DOWN, [("lifecycle", DOWN), ("startup", DOWN), ("readiness", UP)]) == deployment.get("ready")
    status, checks = deployment.aggregate()

    assert (503, {("startup", DOWN), ("liveness", UP), ("readiness", UP)}) == (status, set(checks))


def test_aggregate_lists_every_kind(deployment):
    """16, MultipleProceduresFailed: one failing check of three takes the aggregate down, and all are listed."""
    deployment.deploy(("live", "first", up), ("ready", "second", up), ("ready", "third", down))
    status, checks = deployment.aggregate()

    assert (503, {("first", UP), ("second", UP), ("third", DOWN)}) == (status, set(checks))


def test_each_kind_sees_its_own(deployment):
    """17 and 18, HealthCheckSuccessful: liveness and readiness pass, and each sees only its own kind."""
    deployment.deploy(("live", "liveness", up), ("ready", "readiness", up))

    assert (200, UP, [("liveness", UP)]) == deployment.get("live")
    assert (200, UP, [("readiness", UP)]) == deployment.get("ready")
    assert (200, [("liveness", UP), ("readiness", UP)]) == deployment.aggregate()


def test_data_round_trips(deployment):
    """19, CheckWithAttributes: the data of a check is shown if details are enabled."""
    attributes = {"first-key": "first-val", "second-key": "second-val"}
    (check,) = deployment.deploy(("ready", "attributes-check", lambda: attributes), details=True).body("ready")[
        "checks"
    ]

    assert ("attributes-check", UP, attributes) == (
        check["name"],
        check["status"],
        {k: check["data"][k] for k in attributes},
    )


def test_what_is_not_registered_is_not_run(deployment):
    """20, EnforceQualifier: a check that was given to no probe is never run; one without a kind is readiness here."""
    runs = []
    scaleobs.Check("unqualified", lambda: runs.append(1))
    deployment.deploy()

    assert (200, []) == deployment.aggregate()
    assert [(200, UP, [])] * 3 == [deployment.get(kind) for kind in PATHS]
    assert [] == runs


@every_kind
def test_checks_made_by_factories(deployment, kind):
    """21 to 23, CDIProduced: what a factory makes is a check as any other: closures, partials, objects, methods."""

    def closure():
        return deployment is not None

    class Database:
        def __call__(self):
            return True

        def is_up(self):
            return True

    made = {"closure": closure, "partial": functools.partial(up), "object": Database(), "method": Database().is_up}
    deployment.deploy(*[(kind, name, function) for name, function in made.items()])

    assert (200, UP, [(name, UP) for name in made]) == deployment.get(kind)


def test_slow_construction(deployment):
    """24, DelayedCheck: the first request waits for a check that is slow to be made, and lists it DOWN."""

    def delayed():
        time.sleep(0.3)
        return False

    deployment.deploy(("ready", "delayed-check", delayed))

    assert (503, DOWN, [("delayed-check", DOWN)]) == deployment.get("ready")


def test_delegation(deployment):
    """25, DelegateHealth: a check may request the state of another component."""

    class Component:
        is_healthy = True

    component = Component()
    deployment.deploy(("ready", "delegate-check", lambda: component.is_healthy))

    assert (200, UP, [("delegate-check", UP)]) == deployment.get("ready")


def test_empty_readiness(deployment):
    """26, ConfigTest: a service that is up and has no checks of readiness answers 200 and an empty list."""
    deployment.deploy(("live", "liveness", up))

    assert (200, UP, []) == deployment.get("ready")


@pytest.mark.parametrize("details", [True, False])
@every_kind
def test_schema(deployment, kind, details):
    """27, JsonSchemaValidation: `status` and `checks` with `name`, `status`, `data`, and nothing else."""
    functions = {"up": up, "down": down, "data": lambda: {"a": 1, "b": "two", "c": True}}
    deployment.deploy(*[(kind, name, function) for name, function in functions.items()], details=details)

    jsonschema.validate(deployment.body(kind), SCHEMA)


@dataclass
class HealthCheckResponse:
    """The response class of the specification, for one check."""

    name: str
    status: str
    data: dict = field(default_factory=dict)


def test_response_class(deployment):
    """28, HealthCheckResponseValidation: a check's part of the body becomes the language's own object."""
    deployment.deploy(("ready", "successful-check", lambda: {"key": "value"}), details=True)
    (response,) = [HealthCheckResponse(**check) for check in deployment.body("ready")["checks"]]

    assert ("successful-check", UP, "value") == (response.name, response.status, response.data["key"])


def test_all_are_run_though_one_fails(deployment):
    """In the specification's text: no short circuit, and what a check raises is that check DOWN, never a 500."""

    def broken():
        raise SystemExit

    deployment.deploy(("ready", "broken", broken), ("ready", "successful-check", up))

    assert (503, DOWN, [("broken", DOWN), ("successful-check", UP)]) == deployment.get("ready")
