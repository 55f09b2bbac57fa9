"""
Three days of history: which budget is spent, and which alerts that is worth; for `make soak`.

The windows are the real ones. Without SOAK_SECONDS in the environment there is nothing to do here.
"""

from __future__ import annotations

import os
import time

import pytest
import yaml

from scaleobs._cli.demo.processes import LOOPBACK, find, running, wait_until
from scaleobs._render.output import rules_text
from scaleobs.objectives import Availability
from support.drills import history
from support.drills.history import HOUR, Past
from support.drills.stage import staged

DAYS = 3
SECONDS = DAYS * 24 * HOUR
RULES = rules_text(objectives=[Availability(99.9)], overrides=["ErrorBudgetBurn.for=1m"])
"""The shipped rules, without the wait of three hours of the last alert."""

SPENT = next(
    rule["expr"]
    for group in yaml.safe_load(RULES)["groups"]
    for rule in group["rules"]
    if rule.get("record") == "job:http_requests_bad:ratio_rate30d"
)
"""The share that failed of all requests of a budget's time, as the rules record it."""
MEAN_OF_RATIOS = "avg_over_time(job:http_requests_bad:ratio_rate5m[30d])"
"""The same rules as sloth writes them."""

pytestmark = pytest.mark.skipif("SOAK_SECONDS" not in os.environ, reason="It takes minutes: `make soak` runs it.")


def by_day(left):
    """Return how many requests come per second: a hundred by day, two at night."""
    return 2.0 if left // HOUR % 24 in range(8, 16) else 100.0


def a_night_of_failures(left):
    """Half of the few requests failed last night; all is well since."""
    return by_day(left), 0.5 if 8 * HOUR < left <= 14 * HOUR else 0.0


def a_little_for_a_day(left):
    """Seven in a thousand have failed for 26 hours."""
    return 50.0, 0.007 if left <= 26 * HOUR else 0.0


def much_for_two_hours(left):
    """Three in a hundred have failed for two hours."""
    return 50.0, 0.03 if left <= 2 * HOUR else 0.0


def long_over(left):
    """One in twenty failed for ten hours, and none has for as long."""
    return 50.0, 0.05 if 10 * HOUR < left <= 20 * HOUR else 0.0


def as_allowed(left):
    """One in two thousand fails, always."""
    return 50.0, 0.0005


BURNING = {
    a_night_of_failures: set(),
    a_little_for_a_day: {"6h", "1d", "3d"},
    much_for_two_hours: {"1h", "6h"},
    long_over: set(),
    as_allowed: set(),
}


@pytest.fixture(scope="module")
def known(tmp_path_factory, tool):
    """The histories, and a stage whose Prometheus has them, with what the rules would have recorded."""
    promtool = tool("promtool")
    tool("prometheus"), tool("alertmanager")
    directory = tmp_path_factory.mktemp("history")
    data = directory / "prometheus-data"
    data.mkdir()
    (directory / "prometheus.yml").write_text("{}")
    end = int(time.time()) // history.STEP_SECONDS * history.STEP_SECONDS
    pasts = [Past(pace.__name__, pace) for pace in BURNING]
    history.write(pasts, end, SECONDS, promtool=promtool, data=data)
    for rules in history.recorded(yaml.safe_load(RULES)["groups"]):
        # It looks for new blocks when it starts.
        with running("prometheus", lambda port: command(directory, port), ready="/-/ready", directory=directory) as one:
            history.record(rules, end, SECONDS, promtool=promtool, prometheus=one, data=data)
    with staged(directory, interval="30s") as stage:
        stage.load("every", RULES)
        yield {past.job: past for past in pasts}, stage, end


def command(directory, port):
    config = directory / "prometheus.yml"
    data = directory / "prometheus-data"
    address = f"--web.listen-address={LOOPBACK}:{port}"
    return [find("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={data}", address, "--log.level=warn"]


def test_budget_is_that_of_requests(known):
    """The spent part of a budget is exact; a mean of ratios is wrong by a factor."""
    pasts, stage, end = known
    spent, means = (
        {one["metric"]["job"]: float(one["value"][1]) for one in stage.query(expression, at=end)}
        for expression in (SPENT, MEAN_OF_RATIOS)
    )
    print()
    for job, past in pasts.items():
        exact = past.failed / (past.answered + past.failed)
        print(f"{job:22} exact {exact:.5%}, ours {spent[job]:.5%}, a mean of ratios {means[job]:.5%}")

        assert spent[job] == pytest.approx(exact, rel=0.01)

    night = pasts["a_night_of_failures"]
    assert means["a_night_of_failures"] > 10 * night.failed / (night.answered + night.failed)


def test_alerts_are_those_that_the_history_is_worth(known):
    """Each pair of windows fires for the histories that it is for, and for no other."""
    _, stage, _ = known
    expected = {(pace.__name__, window) for pace, windows in BURNING.items() for window in windows}
    wait_until(
        lambda: len(stage.query('ALERTS{alertname="ErrorBudgetBurn",alertstate="firing"}')) >= len(expected),
        seconds=180,
        what="The alerts fire",
    )
    found = stage.query('ALERTS{alertname=~"ErrorBudgetBurn|Quiet.*"}')

    assert expected == {(one["metric"]["job"], one["metric"].get("long_window")) for one in found}
    wait_until(
        lambda: {(one["labels"]["job"], one["labels"]["long_window"]) for one in notified(stage)} >= expected,
        seconds=30,
        what="The webhook receives all of them",
    )
    assert expected == {(one["labels"]["job"], one["labels"]["long_window"]) for one in notified(stage)}


def notified(stage):
    return [alert for alert in stage.receiver.alerts if alert["labels"]["alertname"] == "ErrorBudgetBurn"]
