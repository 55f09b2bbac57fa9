"""The stage of the drills: a Prometheus with a file of targets, an Alertmanager, and a webhook."""

from __future__ import annotations

import contextlib
import json
import signal
import urllib.parse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

import yaml

from scaleobs._cli.demo.processes import (
    LOOPBACK,
    Program,
    Webhook,
    alertmanager_command,
    find,
    get,
    running,
    wait_until,
    webhook,
)

_SLOWEST_SECONDS = 120
"""A Prometheus that has a thousand pods to look after takes its time."""


@dataclass(slots=True)
class Stage:
    """What runs, and who is scraped."""

    prometheus: Program
    receiver: Webhook
    directory: Path
    targets: dict[str, dict[str, str]] = field(default_factory=dict)

    def watch(self, address: str, job: str, **labels: str) -> None:
        """Have a target scraped from now on, under a job; what was scraped there under another one is gone."""
        self.targets[address] = {"job": job, **labels}
        self._notify()

    def forget(self, address: str) -> None:
        """Have a target gone, as service discovery does when a pod is deleted."""
        self.targets.pop(address, None)
        self._notify()

    def load(self, name: str, rules: str) -> None:
        """Load a file of rules, beside those that are loaded, and wait until Prometheus has read it."""
        (self.directory / f"{name}-rules.yml").write_text(rules, encoding="utf-8")
        names = {group["name"] for group in yaml.safe_load(rules)["groups"]}
        self.prometheus.process.send_signal(signal.SIGHUP)
        wait_until(
            lambda: names <= {group["name"] for group in self.groups()}, seconds=30, what=f"The rules {name} are loaded"
        )

    def groups(self) -> list[dict[str, Any]]:
        """Return the groups of rules that are loaded."""
        _, answer = get(f"{self.prometheus.url}/api/v1/rules", timeout=_SLOWEST_SECONDS)
        return json.loads(answer)["data"]["groups"]

    def query(self, expression: str, *, at: float | None = None) -> list[dict[str, Any]]:
        """Return what an expression is now, or was at a time."""
        parameters = urllib.parse.urlencode({"query": expression} | ({} if at is None else {"time": at}))
        status, answer = get(f"{self.prometheus.url}/api/v1/query?{parameters}", timeout=_SLOWEST_SECONDS)
        assert status == HTTPStatus.OK, f"Prometheus refuses {expression}: {answer.decode()}"
        return json.loads(answer)["data"]["result"]

    def wait_for(self, expression: str, *, seconds: float = 30) -> list[dict[str, Any]]:
        """Wait until an expression has a value, and return it."""
        return wait_until(lambda: self.query(expression), seconds=seconds, what=expression)

    def _notify(self) -> None:
        listed = [{"targets": [address], "labels": labels} for address, labels in self.targets.items()]
        # In one step, so that Prometheus never reads half of it.
        new = self.directory / "new-targets"
        new.write_text(json.dumps(listed), encoding="utf-8")
        new.rename(self.directory / "targets.json")


@contextlib.contextmanager
def staged(directory: Path, *, interval: str, more: Sequence[dict[str, Any]] = ()) -> Iterator[Stage]:
    """
    Run the three for the length of a `with` block, with no target and no rules.

    Args:
        directory: where their files go.
        interval: how often targets are scraped.
        more: who else is scraped, as Prometheus has it in `scrape_configs`.
    """
    (directory / "targets.json").write_text("[]")
    with contextlib.ExitStack() as opened:
        receiver = opened.enter_context(webhook())
        command = alertmanager_command(directory, webhook=receiver.port)
        alertmanager = opened.enter_context(
            running("alertmanager", command, ready="/-/ready", directory=directory),
        )
        config = {
            "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
            "rule_files": ["*-rules.yml"],
            "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"{LOOPBACK}:{alertmanager.port}"]}]}]},
            "scrape_configs": [
                {"job_name": "services", "file_sd_configs": [{"files": ["targets.json"], "refresh_interval": "1s"}]},
                *more,
            ],
        }
        (directory / "prometheus.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
        prometheus = opened.enter_context(
            running(
                "prometheus",
                lambda port: [
                    find("prometheus") or "prometheus",
                    f"--config.file={directory / 'prometheus.yml'}",
                    f"--storage.tsdb.path={directory / 'prometheus-data'}",
                    f"--web.listen-address={LOOPBACK}:{port}",
                    "--rules.alert.resend-delay=200ms",
                    "--log.level=warn",
                ],
                ready="/-/ready",
                directory=directory,
            )
        )
        yield Stage(prometheus, receiver, directory)
