"""Local processes of the demo: programs, their configuration, a webhook for alerts, and traffic."""

from __future__ import annotations

import contextlib
import functools
import http.client
import json
import random
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
from typing import Any, Self

from scaleobs._render.output import yaml_text

LOOPBACK = "127.0.0.1"

_CUSTOMERS = 4
_PAUSE_SECONDS = 0.08
_MAX_REQUESTS = 20_000
"""The limit of each customer's requests, also for a demo that runs forever."""

_REQUESTS = (
    [("GET", "/items/{}")] * 10
    + [("POST", "/orders")] * 6
    + [("GET", "/report")] * 2
    + [("GET", "/feed")] * 2
    + [("GET", "/old-page")]
)


class ProcessError(Exception):
    """A program did not start, or a condition was not met in time."""


@dataclass(slots=True)
class Program:
    """A process that listens on a port of loopback."""

    name: str
    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://{LOOPBACK}:{self.port}"

    def stop(self) -> None:
        """Terminate the process, and kill it after five seconds."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def find(tool: str) -> str | None:
    """Return the path of a program, also by its name in Debian; None if it is not on PATH."""
    return shutil.which(tool) or shutil.which(f"prometheus-{tool}")


def free_port() -> int:
    """Return a port that is free now."""
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
    Return the condition's result as soon as it is true.

    Raises:
        ProcessError: it was not true within the time.
    """
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            msg = f"{what}: not within {seconds:g} s."
            raise ProcessError(msg)
        time.sleep(0.05)


def get(url: str, *, timeout: float = 5) -> tuple[int, bytes]:
    """Return the status and the body of a response; without a response, the status is 0."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:  # noqa: S310 - Loopback only.
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except (OSError, http.client.HTTPException):
        return 0, b""


def get_json(url: str) -> Any:
    """Return the JSON at a URL; None if the status is not 200."""
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

    Another process may take a free port before the program does, so a failed start is repeated with another port.

    Args:
        name: of the program; its output goes to `<directory>/<name>.log`.
        command: returns the command line for a port.
        ready: the path that answers 200 once the program has started.
        directory: the working directory.
        port: the port to listen on; if None, a free one.
        env: the environment; if None, that of this process.

    Raises:
        ProcessError: the program does not start.
    """
    ports = [port] if port is not None else [free_port() for _ in range(3)]
    for chosen in ports:
        program = _start(name, command, directory, chosen, env)
        try:
            state = wait_until(functools.partial(_start_result, program, ready), seconds=20, what=f"{name} starts")
            if state == "up":
                yield program
                return
        finally:
            program.stop()
    lines = program.log.read_text(errors="replace").strip().splitlines()
    msg = f"{name} did not start; the last line of its output: {lines[-1] if lines else '(none)'}"
    raise ProcessError(msg)


def _start_result(program: Program, ready: str) -> str:
    """Return `ended` or `up`, or an empty text before that."""
    if program.process.poll() is not None:
        return "ended"
    return "up" if get(program.url + ready)[0] == HTTPStatus.OK else ""


def _start(
    name: str, command: Callable[[int], Sequence[str]], directory: Path, port: int, env: dict[str, str] | None
) -> Program:
    log = directory / f"{name}.log"
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 - Its callers build the command.
            command(port),
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            cwd=directory,
            env=env,
            process_group=0,  # Ctrl-C reaches only this process, which stops the programs in order.
        )
    return Program(name, process, port, log)


def is_scraped(prometheus: Program, job: str) -> bool:
    """Return whether Prometheus has scraped a job."""
    answer = get_json(f"{prometheus.url}/api/v1/query?query=up%7Bjob%3D%22{job}%22%7D%3D%3D1")
    return bool(answer and answer["data"]["result"])


def prometheus_command(
    directory: Path, *, targets: dict[str, int], alertmanager: int, scrape_interval: str, flags: Sequence[str] = ()
) -> Callable[[int], list[str]]:
    """Write a configuration that scrapes each job at its port and loads `*rules.yml`; return the command for a port."""
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
        "--rules.alert.resend-delay=200ms",  # Rules are evaluated many times a second; alerts are sent as often.
        "--log.level=warn",
        *flags,
    ]


def alertmanager_command(directory: Path, *, webhook: int) -> Callable[[int], list[str]]:
    """Write a configuration that sends every alert to the webhook at once; return the command for a port."""
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
    """The alerts that Alertmanager has sent, in order."""

    port: int
    alerts: list[dict[str, Any]] = field(default_factory=list)

    def first(self, name: str, status: str, **labels: str) -> dict[str, Any] | None:
        """Return the first notice of an alert with a status, `firing` or `resolved`, or None."""
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
    """Receive Alertmanager's notices for the length of a `with` block."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            notice = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            received.alerts.extend(notice["alerts"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer((LOOPBACK, 0), Handler) as server:
        received = Webhook(server.server_address[1])
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield received
        finally:
            server.shutdown()
            thread.join()


class Traffic:
    """Customers that send one request after the other to the demo's service, for the length of a `with` block."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stopped = threading.Event()
        self._customers = [
            threading.Thread(target=self._send_requests, args=(number,), name=f"customer-{number}", daemon=True)
            for number in range(_CUSTOMERS)
        ]
        self.sent = 0
        self.failed = 0

    def __enter__(self) -> Self:
        for customer in self._customers:
            customer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for customer in self._customers:
            customer.join(5)

    def _send_requests(self, number: int) -> None:
        generator = random.Random(number)  # noqa: S311 - The same requests in every demo.
        connection = http.client.HTTPConnection(LOOPBACK, self._port, timeout=5)
        for _ in range(_MAX_REQUESTS):
            if self._stopped.wait(_PAUSE_SECONDS):
                break
            method, path = generator.choice(_REQUESTS)
            try:
                connection.request(method, path.format(generator.randint(1, 100)))
                answer = connection.getresponse()
                answer.read()
                self.sent += 1
                self.failed += answer.status >= 500  # noqa: PLR2004
            except (OSError, http.client.HTTPException):
                connection.close()
                time.sleep(_PAUSE_SECONDS)
        connection.close()
