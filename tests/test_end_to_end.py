"""Two real services, a real Prometheus, a real Alertmanager, and a webhook: what happens when something breaks."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import pytest

from scaleobs._cli.demo.processes import (
    LOOPBACK,
    ProcessError,
    Program,
    Webhook,
    alertmanager_command,
    get_json,
    is_scraped,
    prometheus_command,
    running,
    wait_until,
    webhook,
)
from scaleobs._render import output
from scaleobs.catalog import EXPOSED, RUNTIME

pytestmark = pytest.mark.servers

SERVICES = Path(__file__).parent / "support" / "services"
INTEGRATIONS = Path(__file__).parents[1] / "integrations"
TIME_SCALE = 150
"""Five minutes become two seconds."""

FIRING_SECONDS = 60
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(SERVICES), "SCALEOBS_DRAIN_SECONDS": "0.5"}
OF_AN_END = {"ServiceDown", "InstanceDown"}


@dataclass(slots=True)
class Stack:
    services: dict[str, Program]
    prometheus: Program
    receiver: Webhook
    directory: Path
    opened: contextlib.ExitStack

    def restart(self, name: str) -> list[str]:
        """End a service if it runs, and start it again on its port; return the lines of its log until then."""
        self.services[name].stop()
        lines = self.services[name].log.read_text().splitlines()
        start = {"orders": orders, "billing": billing}[name]
        self.services[name] = self.opened.enter_context(start(self.directory, self.services[name].port))
        return lines

    def query(self, expression: str) -> list[dict]:
        answer = get_json(f"{self.prometheus.url}/api/v1/query?query={urllib.parse.quote(expression)}")
        return answer["data"]["result"]


@pytest.fixture(scope="module")
def stack(tmp_path_factory, tool):
    """
    Both services scraped five times a second, the CLI's rules for them loaded, nothing broken.

    Each test leaves it so, but alerts of what it broke may still come.
    """
    tmp_path = tmp_path_factory.mktemp("stack")
    for name in ("prometheus", "alertmanager", "promtool"):
        tool(name)
    with contextlib.ExitStack() as opened:
        services = {
            "orders": opened.enter_context(orders(tmp_path)),
            "billing": opened.enter_context(billing(tmp_path)),
        }
        receiver = opened.enter_context(webhook())
        alertmanager = opened.enter_context(
            running(
                "alertmanager",
                alertmanager_command(tmp_path, webhook=receiver.port),
                ready="/-/ready",
                directory=tmp_path,
            )
        )
        ports = {job: program.port for job, program in services.items()}
        command = prometheus_command(tmp_path, targets=ports, alertmanager=alertmanager.port, scrape_interval="200ms")
        prometheus = opened.enter_context(running("prometheus", command, ready="/-/ready", directory=tmp_path))
        for job in services:
            wait_until(lambda job=job: is_scraped(prometheus, job), seconds=30, what=f"{job} is scraped")
            scaleobs("rules", "--service", job, "--time-scale", str(TIME_SCALE), "--out", tmp_path / f"{job}-rules.yml")
        prometheus.process.send_signal(signal.SIGHUP)
        wait_until(lambda: len(groups(prometheus)) == 12, seconds=30, what="the rules are loaded")
        yield Stack(services, prometheus, receiver, tmp_path, opened)


def orders(directory, port=None):
    config = INTEGRATIONS / "uvicorn" / "log_config.json"
    uvicorn = [sys.executable, "-m", "uvicorn", "orders:app", "--log-config", str(config), "--host", LOOPBACK, "--port"]

    def command(port):
        return [*uvicorn, str(port)]

    return running("orders", command, ready="/ready", directory=directory, port=port, env=ENVIRONMENT)


def billing(directory, port=None):
    config = INTEGRATIONS / "gunicorn" / "gunicorn.conf.py"
    gunicorn = [sys.executable, "-m", "gunicorn", "billing:app", "--config", str(config), "--threads", "4", "--bind"]

    def command(port):
        return [*gunicorn, f"{LOOPBACK}:{port}"]

    return running("billing", command, ready="/ready", directory=directory, port=port, env=ENVIRONMENT)


def scaleobs(*arguments):
    subprocess.run([Path(sys.executable).with_name("scaleobs"), *arguments], check=True, capture_output=True)


def groups(prometheus):
    return get_json(f"{prometheus.url}/api/v1/rules")["data"]["groups"]


def evaluated(prometheus):
    """Return all rules, or nothing as long as one was never evaluated."""
    rules = [rule for group in groups(prometheus) for rule in group["rules"]]
    return rules if "unknown" not in {rule["health"] for rule in rules} else None


@contextlib.contextmanager
def traffic(*urls):
    """Send about twenty requests a second to each address, at most two thousand."""
    is_over = threading.Event()

    def send(url):
        for number in range(2000):
            if is_over.wait(0.05):
                return
            with contextlib.suppress(OSError):  # An HTTPError is one, and so is a timeout.
                urllib.request.urlopen(f"{url}{number}", timeout=5).close()

    threads = [threading.Thread(target=send, args=(url,)) for url in urls]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


def missing(stack, selectors):
    return {selector for selector in selectors if not stack.query(selector)}


def switch(program, answer):
    urllib.request.urlopen(urllib.request.Request(f"{program.url}/broken/{answer}", method="POST"), timeout=5).close()


def test_every_rule_and_panel_finds_its_series(stack):
    """
    Each rule evaluates without an error, and each series that rules and panels use exists.
    """
    with traffic(f"{stack.services['orders'].url}/orders/", f"{stack.services['billing'].url}/bills/"):
        wait_until(lambda: len(stack.query("job:http_requests:rate5m > 0")) == 2, seconds=30, what="both have traffic")
        rules = wait_until(lambda: evaluated(stack.prometheus), seconds=30, what="each rule is evaluated")
        texts = [output.rules_text(), *output.dashboard_texts().values()]
        recorded = {rule["name"] for rule in rules if rule["type"] == "recording"}
        used = {
            name
            for text in texts
            for name in re.findall(r"\b(?:http_|active_|service_|scaleobs_|process_|event_|thread_)\w+(?=\{)", text)
        }
        used |= {name for text in texts for name in re.findall(r"\bjob(?:_route)?:\w+:\w+(?=\{)", text)}
        # This Prometheus keeps classic histograms; test_native_rules.py has the others.
        used -= {metric.name for metric in (*EXPOSED, *RUNTIME) if metric.kind == "histogram"}
        of_loops = {name for metric in RUNTIME for name in metric.series}
        services_with = {name: ["orders"] if name in of_loops else stack.services for name in used | recorded}
        expected_series = {f'{name}{{job="{job}"}}' for name, jobs in services_with.items() for job in jobs}
        # Rates need a second scrape with traffic in it.
        with contextlib.suppress(ProcessError):
            wait_until(lambda: not missing(stack, expected_series), seconds=15, what="every series is there")
        still_missing = missing(stack, expected_series)

    assert {"ok"} == {rule["health"] for rule in rules}
    assert set() == still_missing
    assert len(used & of_loops) == 4
    assert len(used) > 10


def test_a_service_that_ended_is_notified(stack):
    """
    ServiceDown fires for the service whose process was killed, and no alert for another one.
    """
    stack.services["orders"].process.kill()
    wait_until(
        lambda: stack.receiver.first("ServiceDown", "firing", service="orders"),
        seconds=FIRING_SECONDS,
        what="ServiceDown fires",
    )
    stack.restart("orders")

    assert {"orders"} == {alert["labels"]["service"] for alert in stack.receiver.alerts}


def test_failing_requests_and_the_repair_are_notified(stack):
    """
    HighErrorRate stays quiet while all is well, fires for the service that fails, and resolves when it is mended.
    """
    failing = {"orders": "/orders/", "billing": "/bills/"}
    with traffic(*(f"{stack.services[name].url}{path}" for name, path in failing.items())):
        wait_until(
            lambda: len(stack.query("job:http_requests_bad:ratio_rate5m == 0")) == 2,
            seconds=FIRING_SECONDS,
            what="both services have traffic without errors",
        )
        for program in stack.services.values():
            switch(program, "yes")
        for name in failing:
            wait_until(
                lambda name=name: stack.receiver.first("HighErrorRate", "firing", service=name),
                seconds=FIRING_SECONDS,
                what=f"HighErrorRate fires for {name}",
            )
        for program in stack.services.values():
            switch(program, "no")
        for name in failing:
            wait_until(
                lambda name=name: stack.receiver.first("HighErrorRate", "resolved", service=name),
                seconds=FIRING_SECONDS,
                what=f"HighErrorRate resolves for {name}",
            )

    alert_names = {alert["labels"]["alertname"] for alert in stack.receiver.alerts} - OF_AN_END

    # The latter two repeat the first; this Alertmanager has no inhibitions to suppress them.
    assert {"HighErrorRate"} <= alert_names <= {"HighErrorRate", "HighRouteErrorRate", "ErrorLogBurst"}


def test_every_line_of_both_servers_is_json(stack):
    """
    With the log configurations of `integrations/`, the servers' own lines are JSON objects too, from start to end.
    """
    for name in stack.services:
        lines = stack.restart(name)

        assert len(lines) > 3
        assert all(isinstance(json.loads(line), dict) for line in lines)
