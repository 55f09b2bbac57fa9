"""What has to be known of the server: how long it waits for a worker, its threads, whether it follows the code."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from scaleobs import group


def shorter_limit(seconds: float) -> dict[str, Any] | None:
    """
    Return what to say about a limit that ends before a drain of so many seconds does; `None` where there is none.

    Only a limit that counts from SIGTERM on can be too short. Those of uvicorn (`timeout_graceful_shutdown`) and
    hypercorn (`graceful_timeout`) count from when the drain is over.
    """
    root = group.root()
    server = root.server if root is not None else ""
    name, limit = "", 0.0
    if server == "gunicorn":
        name, limit = "graceful_timeout", float(getattr(getattr(_gunicorn(), "cfg", None), "graceful_timeout", 0))
    elif server == "granian":
        name, limit = "workers_kill_timeout", _of_granian()
    if not limit or seconds < limit:
        return None
    fix = f"Set {name} above drain_seconds plus what the slowest request takes, or lower drain_seconds."
    return {"server": server, name: limit, "fix": fix}


def spawned_with(name: str) -> Any:
    """Return what a server handed to this process under a name when it started it by multiprocessing, or `None`."""
    process = sys.modules.get("multiprocessing.process")
    return None if process is None else getattr(process.current_process(), "_kwargs", {}).get(name)


def threads() -> int:
    """Return how many requests this WSGI worker serves at a time; 0 where that isn't known."""
    worker = _gunicorn()
    kind = str(getattr(worker.cfg, "worker_class_str", "")) if worker is not None else ""
    if kind != "gthread":
        return int(kind == "sync")
    # While requests wait it has as many as it will get: in Python 3.11 fewer now and then (cpython#88354).
    pool = worker.tpool
    return len(pool._threads) if pool._work_queue.qsize() else int(worker.cfg.threads)  # noqa: SLF001


def _gunicorn() -> Any:
    """Return the worker of gunicorn that this process is, of any kind but `asgi`, or `None`."""
    # The handler that uvicorn inside it leaves alone.
    worker: Any = getattr(signal.getsignal(signal.SIGUSR1), "__self__", None)
    return worker if hasattr(worker, "cfg") else None


def _of_granian() -> float:
    option = "--workers-kill-timeout"
    said = [os.environ.get("GRANIAN_WORKERS_KILL_TIMEOUT", "")]
    for place, word in enumerate(sys.argv):
        if word.startswith(option + "="):
            said.append(word.partition("=")[2])
        elif word == option:
            said.extend(sys.argv[place + 1 : place + 2])
    try:
        return float(said[-1] or 0)
    except ValueError:  # With a unit, which granian takes too.
        return 0.0


def is_reloading() -> bool:
    """Return whether the server ends its worker whenever the code changes, for someone who waits for the new one."""
    config = spawned_with("config")
    root = group.root()
    if root is not None and root.server == "granian":
        return "--reload" in sys.argv
    return bool(getattr(config, "reload", False) or getattr(config, "use_reloader", False))  # uvicorn's, hypercorn's.
