"""
Three days of health, in fifteen minutes, and not one alert; for `make soak`.

Every duration of the rules is divided by 300: three days, the longest window, are 864 seconds, and five minutes are
one, five scrapes long, which is as short as rates can be trusted. Without SOAK_SECONDS in the environment there is
nothing to do here.
"""

from __future__ import annotations

import contextlib
import os
import time

import pytest

from scaleobs._cli.demo.processes import Traffic, wait_until
from scaleobs._render.output import rules_text
from support.drills.cluster import cluster, scraped_at
from support.drills.scene import Scene
from support.drills.stage import staged
from support.drills.table import OBJECTIVES

TIME_SCALE = 300
STRETCH_SECONDS = 3 * 24 * 3600 / TIME_SCALE
PATIENT = ["ServiceDown.for=10m", "InstanceDown.for=10m"]
"""A machine that has others to serve, too, may stand still for a second, which is five minutes here."""
EVALUATIONS = STRETCH_SECONDS / (30 / TIME_SCALE)

pytestmark = pytest.mark.skipif("SOAK_SECONDS" not in os.environ, reason="It takes minutes: `make soak` runs it.")


def test_nothing_fires_as_long_as_all_is_well(tmp_path, tool):
    """
    No alert is sent while requests are served, for the longest window; the first missing series sends one.
    """
    for name in ("prometheus", "alertmanager"):
        tool(name)
    with contextlib.ExitStack() as opened:
        pods = opened.enter_context(cluster())
        stage = opened.enter_context(staged(tmp_path, interval="200ms", more=scraped_at(pods.port)))
        scene = Scene(stage, pods, "orders", opened)
        instance = scene.serve()
        with Traffic(instance.program.port) as traffic:
            stage.wait_for('rate(http_requests_total{job="orders"}[1s]) > 0')
            # Only then: before its first scrape a service is absent.
            stage.load("orders", rules_text("orders", objectives=OBJECTIVES, time_scale=TIME_SCALE, overrides=PATIENT))
            _be_well_for(STRETCH_SECONDS, stage)
            seen = stage.query(f"count_over_time(job:http_requests:rate5m[{STRETCH_SECONDS:.0f}s])")

            assert [] == stage.receiver.alerts
            assert traffic.sent > 10 * STRETCH_SECONDS
            assert float(seen[0]["value"][1]) > 0.5 * EVALUATIONS
            assert stage.query("job:http_requests:rate3d > 0")
            assert {"ok"} == {rule["health"] for group in stage.groups() for rule in group["rules"]}
        scene.quieten()
        wait_until(lambda: stage.receiver.first("TrafficGone", "firing"), seconds=30, what="TrafficGone fires")
        stage.forget(instance.address)
        wait_until(lambda: stage.receiver.first("ServiceAbsent", "firing"), seconds=30, what="ServiceAbsent fires")


def _be_well_for(seconds, stage):
    over = time.monotonic() + seconds
    while time.monotonic() < over:
        time.sleep(1)
        assert [] == stage.receiver.alerts
