"""The state of a process between its start and its end."""

from __future__ import annotations

import pytest

from scaleobs._lifecycle.state import Lifecycle

STORIES = [
    ("", "new", False, False),
    ("lifespan_begun", "starting", False, False),
    ("lifespan_begun lifespan_started", "ready", True, True),
    ("lifespan_begun lifespan_started lifespan_stopping", "stopping", True, False),
    ("lifespan_begun lifespan_started lifespan_stopping lifespan_exited", "stopping", True, False),
    ("lifespan_begun lifespan_started lifespan_stopping request_received", "stopping", True, False),
    ("lifespan_begun lifespan_started lifespan_exited", "ready", True, True),
    ("lifespan_begun request_received", "starting", False, False),
    ("lifespan_begun lifespan_exited", "new", False, False),
    ("lifespan_begun lifespan_exited request_received", "ready", True, True),
    ("lifespan_begun lifespan_failed", "failed", False, False),
    ("lifespan_begun lifespan_failed lifespan_exited request_received started", "failed", False, False),
    ("request_received", "ready", True, True),
    ("lifespan_started", "ready", True, True),
    ("started", "ready", True, True),
    ("lifespan_begun lifespan_started lifespan_stopping started", "stopping", True, False),
    ("lifespan_begun lifespan_started lifespan_stopping lifespan_begun", "starting", False, False),
    ("lifespan_begun lifespan_failed lifespan_begun lifespan_started", "ready", True, True),
    ("started lifespan_begun", "ready", True, True),
]


@pytest.mark.parametrize(("story", "state", "is_started", "is_ready"), STORIES, ids=str)
def test_story(story, state, is_started, is_ready):
    """The events determine the state, and the state the probes."""
    lifecycle = Lifecycle(manual_start=False)
    for event in story.split():
        getattr(lifecycle, event)()

    assert (state, is_started, is_ready) == (lifecycle.state, lifecycle.is_started, lifecycle.is_ready)


@pytest.mark.parametrize(
    "story", ["lifespan_begun lifespan_started request_received", "request_received", "lifespan_started"]
)
def test_manual_start_waits_for_the_application(story):
    """Only `started` ends a manual start."""
    lifecycle = Lifecycle(manual_start=True)
    for event in story.split():
        getattr(lifecycle, event)()

    assert not lifecycle.is_ready
    lifecycle.started()
    assert lifecycle.is_ready


def test_drain_ends_readiness_only():
    """While the process drains it is started, isn't ready, and its state is `draining`."""
    draining = []
    lifecycle = Lifecycle(manual_start=False, is_draining=lambda: bool(draining))
    lifecycle.started()
    before = lifecycle.is_ready, lifecycle.probe_data()
    draining.append(True)

    assert (True, {"state": "ready"}) == before
    assert (True, False, {"state": "draining"}) == (lifecycle.is_started, lifecycle.is_ready, lifecycle.probe_data())
    lifecycle.lifespan_stopping()
    assert {"state": "stopping"} == lifecycle.probe_data()


def test_tasks_delay_the_end_of_the_start():
    """Start-up is over once every task is done, never if one has failed; until then a probe lists the tasks."""
    lifecycle = Lifecycle(manual_start=False)
    lifecycle.tasks |= {"warm_up": "running", "load": "waiting"}
    lifecycle.started()

    assert (False, False) == (lifecycle.is_started, lifecycle.is_ready)
    assert {"state": "starting", "startup_tasks": {"warm_up": "running", "load": "waiting"}} == lifecycle.probe_data()
    lifecycle.tasks["load"] = "failed"
    assert {"state": "failed", "startup_tasks": {"warm_up": "running", "load": "failed"}} == lifecycle.probe_data()
    lifecycle.tasks |= {"warm_up": "done", "load": "done"}
    assert (True, True, {"state": "ready"}) == (lifecycle.is_started, lifecycle.is_ready, lifecycle.probe_data())
