"""`scaleobs demo`: a service, a fault, and the alert that tells of it, in about a minute."""

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

from scaleobs._render import output
from scaleobs.cli.board import Board, View
from scaleobs.cli.sampling import Sampler
from scaleobs.cli.stack import (
    LOOPBACK,
    Program,
    StackError,
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
from scaleobs.cli.traffic import Traffic

TIME_SCALE = 60
"""The rules' five minutes become five seconds, so that an alert takes seconds to fire and to resolve."""

ALERT = "HighErrorRate"
_HEALTHY_SECONDS = 12
_AFTERMATH_SECONDS = 5
_PATIENCE_SECONDS = 45


@click.command()
@click.option("--forever", is_flag=True, help="Keep everything up after the drill, until Ctrl-C, and show the URLs.")
@click.option("--port", type=click.IntRange(1, 65535), help="The service's port.  [default: a free one]")
def demo(*, forever: bool, port: int | None) -> None:
    """Run a service, break it, and see the alert fire and resolve."""
    missing = [library for library in ("fastapi", "uvicorn") if find_spec(library) is None]
    if missing:
        msg = f"The demo's service needs {' and '.join(missing)}: pip install {' '.join(missing)}"
        raise click.ClickException(msg)
    if port is not None and not is_port_free(port):
        msg = f"Port {port} is in use: stop what listens there, or give --port another one."
        raise click.ClickException(msg)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    directory = Path(tempfile.mkdtemp(prefix="scaleobs-demo-"))
    try:
        _Demo(directory, Console(highlight=False)).run(forever=forever, port=port)
    except StackError as error:
        msg = f"{error} Its files are in {directory}."
        raise click.ClickException(msg) from None
    except KeyboardInterrupt:
        click.echo(f"Stopped. The files are in {directory}.")
        sys.exit(130)


def _stop(number: int, _frame: object) -> None:
    # An answer that is half made when the signal comes raises when it is collected, and Python 3.13 says so.
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
        self._write_files()
        with contextlib.ExitStack() as stack:
            shop = stack.enter_context(self._shop(port))
            heard = stack.enter_context(webhook())
            board = stack.enter_context(Board(self._console))
            prometheus = self._monitoring(stack, shop, heard, board)
            drill = _Drill(shop, prometheus, heard, board)
            with Traffic(shop.port) as traffic:
                drill.run()
                if forever:
                    self._keep_up(drill, shop, prometheus)
            drill.look()
        self._summarise(drill, traffic)

    def _write_files(self) -> None:
        for name, text in output.dashboard_texts("orders").items():
            (self._directory / name).write_text(text, encoding="utf-8")

    def _shop(self, port: int | None) -> contextlib.AbstractContextManager[Program]:
        uvicorn = [sys.executable, "-m", "uvicorn", "scaleobs.cli.shop:app", "--host", LOOPBACK, "--port"]
        return running(
            "orders",
            lambda chosen: [*uvicorn, str(chosen)],
            ready="/health",
            directory=self._directory,
            port=port,
            env={**os.environ, "SCALEOBS_LOG_FORMAT": "json"},
        )

    def _monitoring(self, stack: contextlib.ExitStack, shop: Program, heard: Webhook, board: Board) -> Program | None:
        if find("prometheus") is None or find("alertmanager") is None:
            board.event(
                "No Prometheus and Alertmanager on PATH, so everything but alerts is shown. "
                "On Debian and Ubuntu: apt install prometheus prometheus-alertmanager"
            )
            self._write_rules()
            return None
        board.event("Starting a Prometheus and an Alertmanager.")
        alertmanager = stack.enter_context(
            running(
                "alertmanager",
                alertmanager_command(self._directory, webhook=heard.port),
                ready="/-/ready",
                directory=self._directory,
            )
        )
        command = prometheus_command(
            self._directory, targets={"orders": shop.port}, alertmanager=alertmanager.port, scrape_interval="500ms"
        )
        prometheus = stack.enter_context(running("prometheus", command, ready="/-/ready", directory=self._directory))
        # With durations divided by 60, a service that was not scraped yet would be missed at once.
        wait_until(lambda: is_scraped(prometheus, "orders"), seconds=20, what="Prometheus scrapes the service")
        self._write_rules()
        prometheus.process.send_signal(signal.SIGHUP)
        return prometheus

    def _write_rules(self) -> None:
        rules = output.rules_text("orders", time_scale=TIME_SCALE)
        (self._directory / "rules.yml").write_text(rules, encoding="utf-8")

    def _keep_up(self, drill: _Drill, shop: Program, prometheus: Program | None) -> None:
        drill.say(f"Service {shop.url}/metrics" + (f", alerts {prometheus.url}/api/v1/alerts" if prometheus else ""))
        drill.say(f"Break it again: curl -X POST {shop.url}/database/off (and /on). Ctrl-C ends it all.")
        drill.view.title = "kept up until Ctrl-C"
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                drill.look()
                time.sleep(0.5)

    def _summarise(self, drill: _Drill, traffic: Traffic) -> None:
        tell = self._console.print
        requests, failed = drill.sampler.totals()
        tell()
        sent = traffic.sent + drill.sent
        tell(f"The demo sent {sent} requests; {requests:.0f} were counted, {failed:.0f} of them failed.")
        for line in drill.told():
            tell(line)
        tell(f"The files are in {self._directory}:", soft_wrap=True)
        tell(f"  rules.yml     the alert rules, their durations divided by {TIME_SCALE} for the drill")
        tell("  orders.json   a Grafana dashboard, ready to import")
        tell("  orders.log    the service's log, one JSON object per line")
        tell("The rules for a real service: scaleobs rules --service orders")


class _Drill:
    """A quiet stretch, a fault, its alert, the repair, and the all-clear."""

    def __init__(self, shop: Program, prometheus: Program | None, heard: Webhook, board: Board) -> None:
        self._shop = shop
        self._prometheus = prometheus
        self._heard = heard
        self._board = board
        self.view = View()
        self.sent = 0
        self._states: dict[str, str] = {}
        self._broken_at = self._mended_at = 0.0
        self._fired_after: float | None = None
        self._resolved_after: float | None = None
        self.sampler = Sampler(shop.url)

    def run(self) -> None:
        """Go through the drill."""
        self.view.title = "all is well"
        self.say("The service takes orders.")
        self._look_for(_HEALTHY_SECONDS, lambda: False)

        self.view.title = "the database is gone"
        self._switch("off")
        self._broken_at = time.monotonic()
        self.say("Fault switched on: the database is gone, orders fail, /ready turns 503.")
        self._fired_after = self._wait_for_notice("firing", self._broken_at)
        self._look_for(_AFTERMATH_SECONDS, lambda: False)

        self.view.title = "the database is back"
        self._switch("on")
        self._mended_at = time.monotonic()
        self.say("Fault switched off: the database is back.")
        self._resolved_after = self._wait_for_notice("resolved", self._mended_at)
        self.view.title = "all is well again"
        self._look_for(_AFTERMATH_SECONDS, lambda: False)

    def told(self) -> Iterator[str]:
        """Yield what became of the alert, a sentence a line."""
        if self._prometheus is None:
            yield "No alert was evaluated: there was no Prometheus."
            return
        for status, after, since in (
            ("fired", self._fired_after, "after the fault"),
            ("resolved", self._resolved_after, "after the repair"),
        ):
            if after is None:
                yield f"{ALERT} was NOT {status} within {_PATIENCE_SECONDS} s."
            else:
                yield f"{ALERT} {status} {after:.0f} s {since}, as Alertmanager told a webhook."

    def look(self) -> None:
        """Read everything once and show it."""
        self.sampler.sample()
        self.view.rates = self.sampler.rates()
        self.view.probes = self.sampler.probes()
        if self._prometheus is not None:
            self.view.alerts = self._alerts(self._prometheus)
        self._board.show(self.view)

    def say(self, what: str) -> None:
        """Note an event."""
        self._board.event(what)

    def _look_for(self, seconds: float, is_over: Callable[[], Any]) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.look()
            if is_over():
                return True
            time.sleep(0.4)
        return False

    def _wait_for_notice(self, status: str, since: float) -> float | None:
        if self._prometheus is None:
            self._look_for(_AFTERMATH_SECONDS, lambda: False)
            return None
        if not self._look_for(_PATIENCE_SECONDS, lambda: self._heard.told(ALERT, status)):
            return None
        after = time.monotonic() - since
        notice = self._heard.told(ALERT, status) or {}
        why = f" {notice['annotations']['description']}" if status == "firing" else ""
        self.say(f"Webhook: {ALERT} {status}.{why}")
        return after

    def _alerts(self, prometheus: Program) -> dict[str, str]:
        answer = get_json(f"{prometheus.url}/api/v1/alerts") or {"data": {"alerts": []}}
        states = {alert["labels"]["alertname"]: alert["state"] for alert in answer["data"]["alerts"]}
        for name, state in states.items():
            if self._states.get(name) != state:
                self.say(f"Prometheus: {name} is {state}.")
        self._states = states
        return states

    def _switch(self, state: str) -> None:
        request = urllib.request.Request(f"{self._shop.url}/database/{state}", method="POST")  # noqa: S310
        self.sent += 1
        urllib.request.urlopen(request, timeout=5).close()  # noqa: S310 - Loopback only.
