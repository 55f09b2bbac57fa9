"""What makes an alert fire: one function for each fault, which causes it in a real service and leaves it there."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from drills.cluster import NAMESPACE, Cluster, Deployment
from drills.stage import Stage
from scaleobs.cli.stack import LOOPBACK, Program, free_port, running

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
        # As a kubelet does: without it, nobody would run the checks that wait to be asked.
        self.opened.enter_context(asking(f"http://{LOOPBACK}:{management}/ready", pause=0.3))
        return self.instances[-1]

    def serve(self, **options: Any) -> Instance:
        """Start an instance in a pod, and wait until it has been scraped with some traffic."""
        instance = self.start(**options)
        self.ask(f"{instance.program.url}/work")
        self.stage.watch(instance.address, self.job, namespace=NAMESPACE, pod=self.deployed().pod)
        self.stage.wait_for(f'service_info{{job="{self.job}",instance="{instance.address}"}}')
        return instance

    def deployed(self) -> Deployment:
        """Return what the cluster says of the job."""
        return self.cluster.deploy(self.job)

    def ask(self, url: str, *, clients: int = 1, pause: float = _PAUSE) -> None:
        """Have clients ask one request after the other until the drill is over, or quiet."""
        self.customers.enter_context(asking(url, clients=clients, pause=pause))

    def quieten(self) -> None:
        """Have no customer ask any more; kubelets go on."""
        self.customers.close()


@contextlib.contextmanager
def asking(url: str, *, clients: int = 1, pause: float = _PAUSE) -> Iterator[None]:
    """Have clients ask one request after the other for the length of a `with` block, whatever becomes of them."""
    is_over = threading.Event()

    def ask() -> None:
        while not is_over.wait(pause):
            with contextlib.suppress(OSError, http.client.HTTPException):  # An HTTPError is an OSError.
                urllib.request.urlopen(url, timeout=2).close()

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        is_over.set()
        for thread in threads:
            thread.join()


# Who is there.


def stopped(scene: Scene) -> None:
    """The only process is stopped: it keeps its socket and answers nobody."""
    scene.serve().program.process.send_signal(signal.SIGSTOP)


def killed(scene: Scene) -> None:
    """One of two processes is killed."""
    scene.serve()
    scene.serve().program.process.kill()


def deleted(scene: Scene) -> None:
    """The only target is no longer discovered."""
    scene.stage.forget(scene.serve().address)


def uninstrumented(scene: Scene) -> None:
    """A release without scaleobs takes the place of the one that had it."""
    instance = scene.serve()
    port = scene.opened.enter_context(plain_exporter())
    scene.stage.forget(instance.address)
    scene.stage.watch(f"{LOOPBACK}:{port}", scene.job)


def crashing(scene: Scene) -> None:
    """A process dies again and again as soon as it is there, and is started again in the same place."""
    instance = scene.serve()
    for _ in range(3):
        instance.program.process.kill()
        instance.program.process.wait()
        instance = scene.start(port=instance.management)
        started = f'process_start_time_seconds{{job="{scene.job}",instance="{instance.address}"}}'
        scene.stage.wait_for(f"time() - {started} < 3")


@contextlib.contextmanager
def plain_exporter() -> Iterator[int]:
    """Serve metrics that aren't ours for the length of a `with` block, and yield the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(b"process_cpu_seconds_total 1\n")

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer((LOOPBACK, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


# Would it take requests?


def database_gone(scene: Scene) -> None:
    """The database of the only instance is gone."""
    scene.serve().break_("/database/off")


def database_gone_for_one(scene: Scene) -> None:
    """The database of one of two instances is gone."""
    scene.serve()
    scene.serve().break_("/database/off")


def search_gone(scene: Scene) -> None:
    """A check fails that isn't critical."""
    scene.serve().break_("search")


def never_started(scene: Scene) -> None:
    """A process waits for migrations that nobody does."""
    scene.serve(DRILL_NEVER_STARTS="1")


# Do requests fail, or take too long?


def failing(scene: Scene) -> None:
    """Every request to a route fails."""
    instance = scene.serve()
    scene.ask(f"{instance.program.url}/work", clients=2)
    instance.break_("failing")


def slow(scene: Scene) -> None:
    """Every request to a route takes 0.7 s."""
    instance = scene.serve()
    scene.ask(f"{instance.program.url}/work", clients=6)
    instance.break_("slow")


def few_fail(scene: Scene) -> None:
    """Three requests come, and all fail."""
    _few(scene, "failing")


def few_are_slow(scene: Scene) -> None:
    """Three requests come, and all are slow."""
    _few(scene, "slow")


def _few(scene: Scene, fault: str) -> None:
    instance = scene.start()
    instance.break_(fault)
    scene.stage.watch(instance.address, scene.job)
    scene.stage.wait_for(f'http_requests_total{{job="{scene.job}"}}')
    for _ in range(3):
        with contextlib.suppress(urllib.error.HTTPError):
            urllib.request.urlopen(f"{instance.program.url}/work", timeout=5).close()
        time.sleep(1)


# What may be the cause?


def busy(scene: Scene) -> None:
    """A thread keeps a core busy, outside Kubernetes."""
    instance = scene.start()
    scene.stage.watch(instance.address, scene.job)
    instance.break_("busy")


def busy_container(scene: Scene) -> None:
    """A container uses nearly all of its CPU limit."""
    scene.serve()
    scene.deployed().cores = 0.48


def full_container(scene: Scene) -> None:
    """A container holds nearly all of its memory limit."""
    scene.serve()
    scene.deployed().memory = 0.95


def throttled_container(scene: Scene) -> None:
    """A container is held back in most periods of the scheduler."""
    scene.serve()
    scene.deployed().throttled = 0.8


def replicas_gone(scene: Scene) -> None:
    """A deployment has fewer replicas than it asks for."""
    scene.serve()
    scene.deployed().available = 1


def blocked(scene: Scene) -> None:
    """A request blocks the event loop for 0.6 s, again and again."""
    scene.ask(f"{scene.serve().program.url}/block")


def too_few_threads(scene: Scene) -> None:
    """Eight clients ask for two threads."""
    instance = scene.serve()
    instance.break_("threads")
    scene.ask(f"{instance.program.url}/thread", clients=8, pause=0.01)


def many_files(scene: Scene) -> None:
    """A process may hold 100 file descriptors and holds nearly as many."""
    scene.serve(limits=["prlimit", "--nofile=100:100"]).break_("files")


def hanging(scene: Scene) -> None:
    """Requests wait for what never comes, and no other ones come."""
    instance = scene.start()
    scene.stage.watch(instance.address, scene.job)
    scene.ask(f"{instance.program.url}/hang", clients=3)


def complaining(scene: Scene) -> None:
    """After a quiet time, errors are logged that no answer shows."""
    instance = scene.serve()
    scene.stage.wait_for(f'rate(log_messages_total{{job="{scene.job}",level="error"}}[3s]) == 0')
    scene.ask(f"{instance.program.url}/complain", clients=4)


# Does scaleobs itself work?


def many_routes(scene: Scene) -> None:
    """More routes are asked for than there may be label sets."""
    instance = scene.serve(SCALEOBS_MAX_LABEL_SETS="3")
    for path in ("/items/1", "/items/95", "/report", "/feed", "/complain", "/nowhere"):
        scene.ask(f"{instance.program.url}{path}", pause=0.5)


def collector_broken(scene: Scene) -> None:
    """A collector of the application's own raises with each scrape."""
    scene.serve().break_("queue")


Cause = Callable[[Scene], None]
