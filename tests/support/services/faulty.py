"""The demo's shop, with faults that a drill switches on."""

import asyncio
import hashlib
import os
import resource
import threading
import time
from pathlib import Path
from typing import Any

import anyio.to_thread
from fastapi import HTTPException
from prometheus_client import REGISTRY

import scaleobs
from scaleobs._cli.demo.demo_app import app

observer = scaleobs.observer_of(app)
log = scaleobs.get_logger("shop")
state = {"delay": 0.01, "fails": False, "search": True, "queue": True}
held: list[Any] = []


@observer.check("search", every=0.2, critical=False)
def search_answers() -> bool:
    return state["search"]


@observer.check("migrations", probe="startup", every=0.2)
def migrations_are_done() -> bool:
    return "DRILL_NEVER_STARTS" not in os.environ


@app.get("/work")
async def work() -> None:
    """Take the time of the fault, and end with its result."""
    await asyncio.sleep(state["delay"])
    if state["fails"]:
        raise HTTPException(503)


@app.get("/block")
async def block() -> None:
    """Block the event loop, as a call that should have been awaited does."""
    time.sleep(0.6)  # noqa: ASYNC251 - That is the fault.


@app.get("/thread")
def thread() -> None:
    """Hold a worker thread."""
    time.sleep(0.5)


@app.get("/hang")
async def hang() -> None:
    """Wait for what never comes."""
    await asyncio.Event().wait()


@app.get("/complain")
async def complain() -> None:
    """Write errors that no answer shows, one for each of ten things that are lost."""
    for number in range(10):
        log.error("stock.lost", number=number)


@app.post("/fault/{name}")
async def fault(name: str) -> None:
    """Switch a fault on."""
    FAULTS[name]()


def few_threads() -> None:
    anyio.to_thread.current_default_thread_limiter().total_tokens = 2


def many_files() -> None:
    """Hold nearly all file descriptors that there may be."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    while len(list(Path("/proc/self/fd").iterdir())) < 0.9 * most:
        held.append(Path("/dev/zero").open("rb"))  # noqa: SIM115 - It isn't closed: that is the fault.


def busy() -> None:
    """Keep a core busy, without the interpreter lock, so that everything else continues."""

    def compute() -> None:
        while True:
            hashlib.pbkdf2_hmac("sha256", b"", b"", 1_000_000)

    for _ in range(3):
        threading.Thread(target=compute, daemon=True).start()


class QueueLength:
    """A collector of the application's own, which raises once its queue is gone."""

    def collect(self) -> list[Any]:
        if not state["queue"]:
            raise ConnectionError("the queue is gone")
        return []


REGISTRY.register(QueueLength())
FAULTS = {
    "slow": lambda: state.update(delay=0.7),
    "failing": lambda: state.update(fails=True),
    "search": lambda: state.update(search=False),
    "threads": few_threads,
    "files": many_files,
    "busy": busy,
    "queue": lambda: state.update(queue=False),
}
