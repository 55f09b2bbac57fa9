"""Checks under real servers whose workers are forked from a process that has loaded the application."""

from __future__ import annotations

import json

import pytest

from support.servers import BIN, free_port, get, running, until

pytestmark = pytest.mark.servers

SERVICE = """
import os, threading
import scaleobs

loaded_in = os.getpid()


def here():
    return {"pid": os.getpid(), "is_forked": os.getpid() != loaded_in}


async def here_async():
    return here()


checks = [
    scaleobs.Check("sync", here, timeout=10),
    scaleobs.Check("async", here_async, timeout=10),
    scaleobs.Check("background", here, timeout=10, every=0.02),
    scaleobs.Check("async background", here_async, timeout=10, every=0.02),
    scaleobs.Check("hanging", threading.Event().wait, timeout=0.1, every=0.02, critical=False),
]


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        raise RuntimeError
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": str(threading.active_count()).encode()})


def wsgi(environ, start_response):
    start_response("200 OK", [])
    return [str(threading.active_count()).encode()]


asgi_app = scaleobs.instrument(asgi, service="asgi", checks=checks, details=True)
wsgi_app = scaleobs.instrument(wsgi, service="wsgi", checks=checks, details=True)
"""

SERVERS = {
    "gunicorn": ["gunicorn", "service:wsgi_app"],
    "gunicorn gthread": ["gunicorn", "-k", "gthread", "--threads", "4", "service:wsgi_app"],
    "gunicorn uvicorn": ["gunicorn", "-k", "uvicorn_worker.UvicornWorker", "service:asgi_app"],
}


@pytest.mark.parametrize("server", SERVERS)
def test_checks_of_a_preloaded_application(server, tmp_path):
    """Each worker runs its own checks, also in the background; one that hangs is found, and keeps one thread."""
    (tmp_path / "service.py").write_text(SERVICE)
    port = free_port()
    program, *arguments = SERVERS[server]
    command = [str(BIN / program), *arguments, "--preload", "-w", "2", "-b", f"127.0.0.1:{port}"]

    def ready():
        status, body = get(port, "/ready")
        return status, {check["name"]: check for check in json.loads(body)["checks"]}

    with running(command, port, tmp_path, PYTHONPATH=str(tmp_path)):
        # On a busy machine a check may take longer than it has.
        until(lambda: ready()[0] == 200)
        checks = ready()[1]
        until(lambda: ready()[1]["hanging"].get("data", {}).get("state") == "DEGRADED")
        pids = set()

        def both_workers_answer():
            pids.add(ready()[1]["sync"]["data"]["pid"])
            return len(pids) == 2

        until(both_workers_answer)
        ages = [ready()[1]["background"]["data"]["age_seconds"] for _ in range(20)]
        threads = int(get(port, "/")[1])

    assert {True} == {
        check["data"]["is_forked"] for name, check in checks.items() if name != "hanging" and "data" in check
    }
    assert max(ages) < 5
    # The main one, the server's own, the scheduler, a hanging run, and those that are just being run.
    assert threads <= 12
