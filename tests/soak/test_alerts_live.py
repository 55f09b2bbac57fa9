"""
Every alert, fired by what it is about: for `make soak`.

Real processes of the demo's shop, a real Prometheus and Alertmanager, a webhook. Every duration of the rules is divided
by a hundred, so that five minutes are three seconds, ten scrapes long. Without SOAK_SECONDS in the environment there is
nothing to do here.
"""

from __future__ import annotations

import contextlib
import os

import pytest

from scaleobs._cli.demo.processes import wait_until
from scaleobs._render.output import rules_text
from support.drills.cluster import cluster, scraped_at
from support.drills.scene import Scene
from support.drills.stage import staged
from support.drills.table import DRILLS, OBJECTIVES

TIME_SCALE = 100
PATIENCE_SECONDS = 60
ROWS = [pytest.param(name, cause, id=f"{name}-{cause.__name__}") for name, row in DRILLS.items() for cause in row]

pytestmark = pytest.mark.skipif("SOAK_SECONDS" not in os.environ, reason="It takes minutes: `make soak` runs it.")


@pytest.fixture(scope="module")
def theatre(tmp_path_factory, tool):
    """The rules for every service, with objectives, on a stage that each drill has a job of its own on."""
    for name in ("prometheus", "alertmanager"):
        tool(name)
    directory = tmp_path_factory.mktemp("stage")
    with cluster() as pods, staged(directory, interval="300ms", more=scraped_at(pods.port)) as stage:
        stage.load("every", rules_text(objectives=OBJECTIVES, time_scale=TIME_SCALE))
        yield stage, pods


@pytest.fixture
def scene(theatre, request):
    """A job of the drill's own; afterwards its processes are ended and its scraped series are removed."""
    stage, pods = theatre
    job = request.node.callspec.id.replace("_", "-").lower()
    with contextlib.ExitStack() as opened:
        yield Scene(stage, pods, job, opened)
    for address, labels in list(stage.targets.items()):
        if labels["job"] == job:
            stage.forget(address)


@pytest.mark.parametrize(("name", "cause"), ROWS)
def test_alert_fires_for_its_cause(name, cause, scene):
    """Alertmanager notifies the webhook of the alert, for the service that has the fault."""
    cause(scene)
    notice = wait_until(
        lambda: scene.stage.receiver.first(name, "firing", service=scene.job),
        seconds=PATIENCE_SECONDS,
        what=f"{name} fires",
    )

    assert notice["annotations"]["summary"]
    assert "<no value>" not in str(notice)
    assert {"ok"} == {rule["health"] for group in scene.stage.groups() for rule in group["rules"]}
