"""The four events of a service, and what each calls, in order."""

from __future__ import annotations

import ast
from pathlib import Path
from unittest.mock import Mock

import pytest

import scaleobs
from scaleobs._service import _Service

SOURCE = Path(__file__).parent.parent / "src" / "scaleobs"
EVENTS = {"on_loaded", "on_lifespan", "on_first_traffic", "on_drain"}
OF_A_REQUEST = {"answers", "checks", "choose_path", "drain", "fault", "recorder_for", "storage"}
PARTS = ("lifecycle", "checks", "drain", "startup_tasks", "_management", "_traces", "storage", "log")


class Recorded:
    """A part of a service whose calls are recorded."""

    def __init__(self, name, part, calls):
        self._name, self._part, self._calls = name, part, calls

    def __getattr__(self, name):
        value = getattr(self._part, name)
        if not callable(value):
            return value

        def called(*args, **options):
            self._calls.append(f"{self._name}.{name}")
            return value(*args, **options)

        return called


@pytest.fixture
def recorded(registry):
    """Return a service and the list of the calls to its parts; a stand-in replaces an unneeded part."""
    service, calls = scaleobs.Observer(registry=registry, log_format="off")._service, []
    for part in PARTS:
        setattr(service, part, Recorded(part.lstrip("_"), getattr(service, part) or Mock(), calls))
    return service, calls


def test_a_service_has_four_events():
    """What happens to a service is one of four events."""
    assert {name for name in vars(_Service) if name.startswith("on_")} == EVENTS


@pytest.mark.parametrize("protocol", ["asgi", "wsgi"])
def test_middlewares_call_events_alone(protocol):
    """A middleware calls the events, and otherwise uses only what a single request needs."""
    tree = ast.parse((SOURCE / "_http" / f"{protocol}.py").read_text())
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute) and node.value.attr == "_service"
    }
    of_observer = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute) and node.value.attr == "observer"
    }

    assert EVENTS - {"on_drain"} - ({"on_lifespan"} if protocol == "wsgi" else set()) == used - OF_A_REQUEST
    assert {"_service"} == of_observer


@pytest.mark.parametrize("has_lifespan", [True, False])
def test_loaded(has_lifespan, recorded):
    """An application without a lifespan has started when it is loaded."""
    service, calls = recorded
    service.on_loaded(has_lifespan=has_lifespan)

    started = [] if has_lifespan else ["lifecycle.lifespan_started", "drain.loaded"]
    assert [*started, "management.loaded"] == calls


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        ("opened", ["lifecycle.lifespan_begun", "checks.note_loop", "drain.serving", "management.open"]),
        (
            "started",
            [
                "lifecycle.lifespan_started",
                "drain.serving",
                "startup_tasks.begin",
                "traces.begin",
                "storage.disable_fast_path",
            ],
        ),
        ("failed", ["lifecycle.lifespan_failed"]),
        ("stopping", ["lifecycle.lifespan_stopping", "drain.stopping"]),
        ("stopped", ["traces.flush"]),
        ("left", ["lifecycle.lifespan_exited"]),
    ],
)
def test_lifespan(stage, expected, recorded):
    """Each stage of the lifespan calls the parts in this order."""
    service, calls = recorded
    service.on_lifespan(stage)

    assert expected == calls


def test_lifespan_that_was_stopped_closes_the_management_port(recorded):
    """The management port is closed after the lifespan, if the server has requested the shutdown."""
    service, calls = recorded
    service.on_lifespan("stopping")
    calls.clear()
    service.on_lifespan("left")

    assert ["lifecycle.lifespan_exited", "management.close"] == calls


def test_first_traffic(recorded):
    """The first request does what a lifespan would have done; the next ones only compare."""
    service, calls = recorded
    service.on_first_traffic()
    first = list(calls)
    calls.clear()
    service.on_first_traffic()
    again = ["traces.begin", "management.request_received"]

    assert first == [
        "checks.serve",
        "traces.begin",
        "lifecycle.request_received",
        "management.request_received",
        "drain.serving",
        "startup_tasks.begin",
    ]
    assert again == calls


def test_drain(recorded):
    """The drain takes requests off the fast path when it begins, and sends the spans when it ends."""
    service, calls = recorded
    service.storage.fast_path[0] = True
    service.on_drain("begun")
    begun = list(calls)
    service.on_drain("ended")

    assert not service.storage.fast_path[0]
    assert [] == begun
    assert ["traces.flush"] == calls
