"""One drill on the stage: processes of the shop, their customers, and what else has to be ended after it."""

from __future__ import annotations

import contextlib
import http.client
import os
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from scaleobs._cli.demo.processes import LOOPBACK, Program, free_port, running
from support.drills.cluster import NAMESPACE, Cluster, Deployment
from support.drills.stage import Stage
from support.http_server import answering

SERVICES = Path(__file__).parents[1] / "services"
_PAUSE = 0.1


@dataclass(slots=True)
class Instance:
    """A process of the shop, and where it is scraped."""

    program: Program
    management: int

    @property
    def address(self) -> str:
        """What Prometheus calls it."""
        return f"{LOOPBACK}:{self.management}"

    def break_(self, fault: str) -> None:
        """Switch a fault of `services/faulty.py` on, or of the demo."""
        path = fault if fault.startswith("/") else f"/fault/{fault}"
        urllib.request.urlopen(urllib.request.Request(self.program.url + path, method="POST"), timeout=5).close()


@dataclass(slots=True)
class Scene:
    """One drill: a job of its own on the stage, and all that has to be ended after it."""

    stage: Stage
    cluster: Cluster
    job: str
    opened: contextlib.ExitStack
    instances: list[Instance] = field(default_factory=list)
    customers: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def __post_init__(self) -> None:
        """Have customers end with everything else."""
        self.opened.enter_context(self.customers)

    def start(self, *, limits: Sequence[str] = (), port: int | None = None, **environ: str) -> Instance:
        """Start an instance, without having it scraped."""
        directory = self.stage.directory / f"{self.job}-{len(self.instances)}"
        directory.mkdir(exist_ok=True)
        management = port or free_port()
        uvicorn = [*limits, sys.executable, "-m", "uvicorn", "faulty:app", "--host", LOOPBACK, "--port"]
        environ = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(SERVICES), os.environ.get("PYTHONPATH", "")]),
            "SCALEOBS_MANAGEMENT_PORT": str(management),
            **environ,
        }
        shop = running(self.job, lambda port: [*uvicorn, str(port)], ready="/health", directory=directory, env=environ)
        self.instances.append(Instance(self.opened.enter_context(shop), management))
        # As a kubelet does: without it, checks that only run for a probe would not run.
        self.opened.enter_context(requesting(f"http://{LOOPBACK}:{management}/ready", pause=0.3))
        return self.instances[-1]

    def serve(self, **options: Any) -> Instance:
        """Start an instance in a pod, and wait until it has been scraped with some traffic."""
        instance = self.start(**options)
        self.send_requests(f"{instance.program.url}/work")
        self.stage.watch(instance.address, self.job, namespace=NAMESPACE, pod=self.deployed().pod)
        self.stage.wait_for(f'service_info{{job="{self.job}",instance="{instance.address}"}}')
        return instance

    def deployed(self) -> Deployment:
        """Return the deployment of the job."""
        return self.cluster.deploy(self.job)

    def send_requests(self, url: str, *, clients: int = 1, pause: float = _PAUSE) -> None:
        """Make clients send one request after the other until the drill is over, or quiet."""
        self.customers.enter_context(requesting(url, clients=clients, pause=pause))

    def quieten(self) -> None:
        """Stop the requests of clients; those of kubelets continue."""
        self.customers.close()


@contextlib.contextmanager
def requesting(url: str, *, clients: int = 1, pause: float = _PAUSE) -> Iterator[None]:
    """Make clients send one request after the other for the length of a `with` block, with any result."""
    is_over = threading.Event()

    def send_requests() -> None:
        while not is_over.wait(pause):
            with contextlib.suppress(OSError, http.client.HTTPException):  # An HTTPError is an OSError.
                urllib.request.urlopen(url, timeout=2).close()

    threads = [threading.Thread(target=send_requests, daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


@contextlib.contextmanager
def plain_exporter() -> Iterator[int]:
    """Serve metrics that aren't ours for the length of a `with` block, and yield the port."""

    class Plain(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(b"process_cpu_seconds_total 1\n")

    with answering(Plain) as port:
        yield port
