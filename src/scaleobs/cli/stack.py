"""A service, a Prometheus, an Alertmanager and a webhook on loopback, each ended by whoever started it."""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from scaleobs._render.output import yaml_text

LOOPBACK = "127.0.0.1"


class StackError(Exception):
    """A program didn't come up; the message says which, and what it last said."""


@dataclass(slots=True)
class Program:
    """A process of ours that listens on a port."""

    name: str
    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{LOOPBACK}:{self.port}"

    def stop(self) -> None:
        """End it: politely, and after five seconds for good."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def find(tool: str) -> str | None:
    """Return the path of a program, also under the name that Debian gives it."""
    return shutil.which(tool) or shutil.which(f"prometheus-{tool}")


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def is_port_free(port: int) -> bool:
    """Return whether a server could listen on a port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def wait_until(condition: Callable[[], Any], *, seconds: float, what: str) -> Any:
    """
    Return what the condition returns as soon as that is true.

    Raises:
        StackError: it isn't within the time.
    """
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            msg = f"{what}: not within {seconds:g} s."
            raise StackError(msg)
        time.sleep(0.05)


def get(url: str, *, timeout: float = 5) -> tuple[int, bytes]:
    """Return the status and the body of an answer; status 0 where there was none."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:  # noqa: S310 - Loopback only.
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except (OSError, http.client.HTTPException):
        return 0, b""


def get_json(url: str) -> Any:
    """Return the JSON at an address, or None where there is none."""
    status, body = get(url)
    return json.loads(body) if status == HTTPStatus.OK else None


@contextlib.contextmanager
def running(
    name: str,
    command: Callable[[int], Sequence[str]],
    *,
    ready: str,
    directory: Path,
    port: int | None = None,
    env: dict[str, str] | None = None,
) -> Iterator[Program]:
    """
    Run a program for the length of a `with` block.

    A free port may be taken by somebody else before the program listens on it, so a start that fails is tried again.

    Args:
        name: what to call it; its output goes to `<directory>/<name>.log`.
        command: from the port to the command line.
        ready: the path that answers 200 once the program is up.
        directory: where it runs.
        port: the port to listen on; a free one where it is None.
        env: its environment; ours where it is None.

    Raises:
        StackError: it doesn't come up.
    """
    ports = [port] if port is not None else [free_port() for _ in range(3)]
    for chosen in ports:
        program = _start(name, command, directory, chosen, env)
        try:
            state = wait_until(functools.partial(_has_settled, program, ready), seconds=20, what=f"{name} starts")
            if state == "up":
                yield program
                return
        finally:
            program.stop()
    said = program.log.read_text(errors="replace").strip().splitlines()
    msg = f"{name} did not start; it said: {said[-1] if said else 'nothing'}"
    raise StackError(msg)


def _has_settled(program: Program, ready: str) -> str:
    """Return `ended` or `up`, or nothing yet."""
    if program.process.poll() is not None:
        return "ended"
    return "up" if get(program.url + ready)[0] == HTTPStatus.OK else ""


def _start(
    name: str, command: Callable[[int], Sequence[str]], directory: Path, port: int, env: dict[str, str] | None
) -> Program:
    log = directory / f"{name}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 - The command is ours.
            command(port),
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=directory,
            env=env,
            process_group=0,  # Ctrl-C is for us: we end the programs in order.
        )
    return Program(name, process, port, log)


def is_scraped(prometheus: Program, job: str) -> bool:
    """Return whether Prometheus has scraped a job."""
    answer = get_json(f"{prometheus.url}/api/v1/query?query=up%7Bjob%3D%22{job}%22%7D%3D%3D1")
    return bool(answer and answer["data"]["result"])


def prometheus_command(
    directory: Path, *, targets: dict[str, int], alertmanager: int, scrape_interval: str, flags: Sequence[str] = ()
) -> Callable[[int], list[str]]:
    """Write a configuration that scrapes each job at its port and loads `*rules.yml`, and return the command for it."""
    interval = {"scrape_interval": scrape_interval, "scrape_timeout": scrape_interval}
    config = {
        "global": {**interval, "evaluation_interval": scrape_interval},
        "rule_files": ["*rules.yml"],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"{LOOPBACK}:{alertmanager}"]}]}]},
        "scrape_configs": [
            {"job_name": job, "static_configs": [{"targets": [f"{LOOPBACK}:{port}"]}]} for job, port in targets.items()
        ],
    }
    (directory / "prometheus.yml").write_text(yaml_text(config), encoding="utf-8")
    return lambda port: [
        find("prometheus") or "prometheus",
        f"--config.file={directory / 'prometheus.yml'}",
        f"--storage.tsdb.path={directory / 'prometheus-data'}",
        f"--web.listen-address={LOOPBACK}:{port}",
        "--rules.alert.resend-delay=200ms",  # Rules are evaluated many times a second, so alerts are sent so, too.
        "--log.level=warn",
        *flags,
    ]


def alertmanager_command(directory: Path, *, webhook: int) -> Callable[[int], list[str]]:
    """Write a configuration that tells the webhook of everything at once, and return the command for it."""
    config = {
        "route": {
            "receiver": "webhook",
            "group_by": ["alertname", "job"],
            "group_wait": "0s",
            "group_interval": "1s",
            "repeat_interval": "1h",
        },
        "receivers": [
            {
                "name": "webhook",
                "webhook_configs": [{"url": f"http://{LOOPBACK}:{webhook}/", "send_resolved": True}],
            }
        ],
    }
    (directory / "alertmanager.yml").write_text(yaml_text(config), encoding="utf-8")
    return lambda port: [
        find("alertmanager") or "alertmanager",
        f"--config.file={directory / 'alertmanager.yml'}",
        f"--storage.path={directory / 'alertmanager-data'}",
        f"--web.listen-address={LOOPBACK}:{port}",
        "--cluster.listen-address=",
        "--log.level=warn",
    ]


@dataclass(slots=True)
class Webhook:
    """What Alertmanager told us: each alert as it came, in order."""

    port: int
    alerts: list[dict[str, Any]] = field(default_factory=list)

    def told(self, name: str, status: str, **labels: str) -> dict[str, Any] | None:
        """Return the first notice that an alert is `firing` or `resolved`, or None."""
        return next(
            (
                alert
                for alert in self.alerts
                if alert["status"] == status and {"alertname": name, **labels}.items() <= alert["labels"].items()
            ),
            None,
        )


@contextlib.contextmanager
def webhook() -> Iterator[Webhook]:
    """Listen for Alertmanager's notices for the length of a `with` block."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            notice = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            heard.alerts.extend(notice["alerts"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer((LOOPBACK, 0), Handler) as server:
        heard = Webhook(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield heard
        finally:
            server.shutdown()
            thread.join()
