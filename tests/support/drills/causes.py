"""What makes an alert fire: one function for each fault, which causes it in a real service and leaves it there."""

from __future__ import annotations

import contextlib
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable

from scaleobs._cli.demo.processes import LOOPBACK
from support.drills.scene import Scene, plain_exporter

# Who is there.


def stopped(scene: Scene) -> None:
    """The only process is stopped: it keeps its socket open and answers no request."""
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
    started = f'process_start_time_seconds{{job="{scene.job}",instance="{instance.address}"}}'
    for _ in range(4):
        (before,) = scene.stage.query(started)
        instance.program.process.kill()
        instance.program.process.wait()
        instance = scene.start(port=instance.management)
        scene.stage.wait_for(f"{started} > {before['value'][1]}")


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
    """A process waits for migrations that never run."""
    scene.serve(DRILL_NEVER_STARTS="1")


# Do requests fail, or take too long?


def failing(scene: Scene) -> None:
    """Every request to a route fails."""
    instance = scene.serve()
    scene.send_requests(f"{instance.program.url}/work", clients=2)
    instance.break_("failing")


def slow(scene: Scene) -> None:
    """Every request to a route takes 0.7 s."""
    instance = scene.serve()
    scene.send_requests(f"{instance.program.url}/work", clients=6)
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
    """A deployment has fewer replicas than it requests."""
    scene.serve()
    scene.deployed().available = 1


def blocked(scene: Scene) -> None:
    """A request blocks the event loop for 0.6 s, again and again."""
    scene.send_requests(f"{scene.serve().program.url}/block")


def too_few_threads(scene: Scene) -> None:
    """Eight clients need two threads."""
    instance = scene.serve()
    instance.break_("threads")
    scene.send_requests(f"{instance.program.url}/thread", clients=8, pause=0.01)


def many_files(scene: Scene) -> None:
    """A process may hold 100 file descriptors and holds nearly as many."""
    scene.serve(limits=["prlimit", "--nofile=100:100"]).break_("files")


def hanging(scene: Scene) -> None:
    """Requests wait for what never comes, and no other ones come."""
    instance = scene.start()
    scene.stage.watch(instance.address, scene.job)
    scene.send_requests(f"{instance.program.url}/hang", clients=3)


def complaining(scene: Scene) -> None:
    """After a quiet time, errors are logged that no answer shows."""
    instance = scene.serve()
    scene.stage.wait_for(f'rate(log_messages_total{{job="{scene.job}",level="error"}}[3s]) == 0')
    scene.send_requests(f"{instance.program.url}/complain", clients=4)


# Does scaleobs itself work?


def many_routes(scene: Scene) -> None:
    """More routes are requested than the limit of label sets."""
    instance = scene.serve(SCALEOBS_MAX_LABEL_SETS="3")
    for path in ("/items/1", "/items/95", "/report", "/feed", "/complain", "/nowhere"):
        scene.send_requests(f"{instance.program.url}{path}", pause=0.5)


def collector_broken(scene: Scene) -> None:
    """A collector of the application's own raises with each scrape."""
    scene.serve().break_("queue")


Cause = Callable[[Scene], None]
