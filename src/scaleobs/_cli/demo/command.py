"""`scaleobs demo`: the command, and the drill that it runs."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from scaleobs._cli.demo.board import Board, Sampler, View
from scaleobs._cli.demo.processes import (
    LOOPBACK,
    ProcessError,
    Program,
    Traffic,
    Webhook,
    alertmanager_command,
    find,
    get_json,
    is_port_free,
    is_scraped,
    prometheus_command,
    running,
    wait_until,
    webhook,
)
from scaleobs._render import output

TIME_SCALE = 60
"""Five minutes in the rules become five seconds, so that an alert fires and resolves within seconds."""

ALERT = "HighErrorRate"
_HEALTHY_SECONDS = 12
_AFTERMATH_SECONDS = 5
_NOTICE_SECONDS = 45


@click.command()
@click.option("--forever", is_flag=True, help="Keep everything running after the drill, until Ctrl-C; print the URLs.")
@click.option("--port", type=click.IntRange(1, 65535), help="The service's port.  [default: a free port]")
def demo(*, forever: bool, port: int | None) -> None:
    """Run a service, break it, and show the alert fire and resolve."""
    missing = [library for library in ("fastapi", "uvicorn") if find_spec(library) is None]
    if missing:
        msg = f"The demo's service needs {' and '.join(missing)}: pip install {' '.join(missing)}"
        raise click.ClickException(msg)
    if port is not None and not is_port_free(port):
        msg = f"Port {port} is in use: stop the program that listens there, or give another --port."
        raise click.ClickException(msg)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    directory = Path(tempfile.mkdtemp(prefix="scaleobs-demo-"))
    try:
        _Demo(directory, Console(highlight=False)).run(forever=forever, port=port)
    except ProcessError as error:
        msg = f"{error} The files are in {directory}."
        raise click.ClickException(msg) from None
    except KeyboardInterrupt:
        click.echo(f"Stopped. The files are in {directory}.")
        sys.exit(130)


def _stop(number: int, _frame: object) -> None:
    # A response that the signal interrupts raises in its finalizer, which Python 3.13 prints.
    sys.unraisablehook = lambda _: None
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(143)


class _Demo:
    def __init__(self, directory: Path, console: Console) -> None:
        self._directory = directory
        self._console = console

    def run(self, *, forever: bool, port: int | None) -> None:
        """Run the drill once."""
        self._write_dashboard()
        with contextlib.ExitStack() as stack:
            service = stack.enter_context(self._service(port))
            notices = stack.enter_context(webhook())
            board = stack.enter_context(Board(self._console))
            prometheus = self._monitoring(stack, service, notices, board)
            drill = _Drill(service, prometheus, notices, board)
            with Traffic(service.port) as traffic:
                drill.run()
                if forever:
                    self._keep_running(drill, service, prometheus)
            drill.refresh()
        self._print_summary(drill, traffic)

    def _write_dashboard(self) -> None:
        for name, text in output.dashboard_texts("orders").items():
            (self._directory / name).write_text(text, encoding="utf-8")

    def _service(self, port: int | None) -> contextlib.AbstractContextManager[Program]:
        uvicorn = [sys.executable, "-m", "uvicorn", "scaleobs._cli.demo.demo_app:app", "--host", LOOPBACK, "--port"]
        return running(
            "orders",
            lambda chosen: [*uvicorn, str(chosen)],
            ready="/health",
            directory=self._directory,
            port=port,
            env={**os.environ, "SCALEOBS_LOG_FORMAT": "json"},
        )

    def _monitoring(
        self, stack: contextlib.ExitStack, service: Program, notices: Webhook, board: Board
    ) -> Program | None:
        if find("prometheus") is None or find("alertmanager") is None:
            board.event(
                "No Prometheus and Alertmanager on PATH: the demo shows everything except alerts. "
                "On Debian and Ubuntu: apt install prometheus prometheus-alertmanager"
            )
            self._write_rules()
            return None
        board.event("Starting Prometheus and Alertmanager.")
        alertmanager = stack.enter_context(
            running(
                "alertmanager",
                alertmanager_command(self._directory, webhook=notices.port),
                ready="/-/ready",
                directory=self._directory,
            )
        )
        command = prometheus_command(
            self._directory, targets={"orders": service.port}, alertmanager=alertmanager.port, scrape_interval="500ms"
        )
        prometheus = stack.enter_context(running("prometheus", command, ready="/-/ready", directory=self._directory))
        # With durations divided by 60, ServiceAbsent would fire before the first scrape.
        wait_until(lambda: is_scraped(prometheus, "orders"), seconds=20, what="Prometheus scrapes the service")
        self._write_rules()
        prometheus.process.send_signal(signal.SIGHUP)
        return prometheus

    def _write_rules(self) -> None:
        rules = output.rules_text("orders", time_scale=TIME_SCALE)
        (self._directory / "rules.yml").write_text(rules, encoding="utf-8")

    def _keep_running(self, drill: _Drill, service: Program, prometheus: Program | None) -> None:
        alerts = f", alerts {prometheus.url}/api/v1/alerts" if prometheus else ""
        drill.event(f"Service {service.url}/metrics{alerts}")
        drill.event(f"To break it again: curl -X POST {service.url}/database/off (and /on). Ctrl-C stops everything.")
        drill.view.title = "running until Ctrl-C"
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                drill.refresh()
                time.sleep(0.5)

    def _print_summary(self, drill: _Drill, traffic: Traffic) -> None:
        line = self._console.print
        requests, failed = drill.sampler.totals()
        line()
        sent = traffic.sent + drill.sent
        line(f"The demo sent {sent} requests; {requests:.0f} were counted, {failed:.0f} of them failed.")
        for sentence in drill.summary():
            line(sentence)
        line(f"The files are in {self._directory}:", soft_wrap=True)
        line(f"  rules.yml     the alert rules, with durations divided by {TIME_SCALE} for the drill")
        line("  orders.json   a Grafana dashboard, ready to import")
        line("  orders.log    the service's log, one JSON object per line")
        line("The rules for a real service: scaleobs rules --service orders")


class _Drill:
    """Healthy traffic, a fault and its alert, the repair and the resolved alert."""

    def __init__(self, service: Program, prometheus: Program | None, notices: Webhook, board: Board) -> None:
        self._service = service
        self._prometheus = prometheus
        self._notices = notices
        self._board = board
        self.view = View()
        self.sent = 0
        self._states: dict[str, str] = {}
        self._fired_after: float | None = None
        self._resolved_after: float | None = None
        self.sampler = Sampler(service.url)

    def run(self) -> None:
        """Run all phases."""
        self.view.title = "all is well"
        self.event("The service takes orders.")
        self._refresh_until(_HEALTHY_SECONDS, lambda: False)

        self.view.title = "the database is gone"
        self._switch_database("off")
        broken_at = time.monotonic()
        self.event("Fault switched on: the database is gone, orders fail, /ready turns 503.")
        self._fired_after = self._wait_for_notice("firing", broken_at)
        self._refresh_until(_AFTERMATH_SECONDS, lambda: False)

        self.view.title = "the database is back"
        self._switch_database("on")
        repaired_at = time.monotonic()
        self.event("Fault switched off: the database is back.")
        self._resolved_after = self._wait_for_notice("resolved", repaired_at)
        self.view.title = "all is well again"
        self._refresh_until(_AFTERMATH_SECONDS, lambda: False)

    def summary(self) -> Iterator[str]:
        """Yield one sentence for each change of the alert."""
        if self._prometheus is None:
            yield "No alert was evaluated: there was no Prometheus."
            return
        for status, after, since in (
            ("fired", self._fired_after, "after the fault"),
            ("resolved", self._resolved_after, "after the repair"),
        ):
            if after is None:
                yield f"{ALERT} was NOT {status} within {_NOTICE_SECONDS} s."
            else:
                yield f"{ALERT} {status} {after:.0f} s {since} (notice of Alertmanager)."

    def refresh(self) -> None:
        """Read the service and Prometheus once, and update the board."""
        self.sampler.sample()
        self.view.rates = self.sampler.rates()
        self.view.probes = self.sampler.probes()
        if self._prometheus is not None:
            self.view.alerts = self._alerts(self._prometheus)
        self._board.show(self.view)

    def event(self, text: str) -> None:
        """Add an event to the board."""
        self._board.event(text)

    def _refresh_until(self, seconds: float, condition: Callable[[], Any]) -> bool:
        """Refresh for some seconds, or until the condition is true; return whether it was."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.refresh()
            if condition():
                return True
            time.sleep(0.4)
        return False

    def _wait_for_notice(self, status: str, since: float) -> float | None:
        """Return after how many seconds the webhook received the alert; None if it did not."""
        if self._prometheus is None:
            self._refresh_until(_AFTERMATH_SECONDS, lambda: False)
            return None
        if not self._refresh_until(_NOTICE_SECONDS, lambda: self._notices.first(ALERT, status)):
            return None
        after = time.monotonic() - since
        notice = self._notices.first(ALERT, status) or {}
        description = f" {notice['annotations']['description']}" if status == "firing" else ""
        self.event(f"Webhook: {ALERT} {status}.{description}")
        return after

    def _alerts(self, prometheus: Program) -> dict[str, str]:
        answer = get_json(f"{prometheus.url}/api/v1/alerts") or {"data": {"alerts": []}}
        states = {alert["labels"]["alertname"]: alert["state"] for alert in answer["data"]["alerts"]}
        for name, state in states.items():
            if self._states.get(name) != state:
                self.event(f"Prometheus: {name} is {state}.")
        self._states = states
        return states

    def _switch_database(self, state: str) -> None:
        request = urllib.request.Request(f"{self._service.url}/database/{state}", method="POST")  # noqa: S310
        self.sent += 1
        urllib.request.urlopen(request, timeout=5).close()  # noqa: S310 - Loopback only.
