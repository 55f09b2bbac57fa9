"""Which processes are workers: those of real servers, and none that are only similar."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import sys
import threading
from pathlib import Path

import pytest

from scaleobs._workers.recognition import Root
from support import servers

pytestmark = pytest.mark.servers

MAIN = """
import multiprocessing, sys, threading
from scaleobs._workers.recognition import find_root

def serve(port):
    {serve}

def write_root():
    with open("parent", "a") as file:
        print(find_root(), file=file, flush=True)

if __name__ == "__main__":
    write_root()
    for wait in range(1, 20):
        timer = threading.Timer(wait / 5, write_root)
        timer.daemon = True
        timer.start()
    {main}
"""
UVICORN = "import uvicorn; uvicorn.run('root_app:asgi', port=port, workers={})"
GRANIAN = "import granian; granian.Granian('root_app:asgi', port=port, workers=2, interface='asgi').serve()"
SERVE = "serve(int(sys.argv[1]))"

GUNICORN = ["gunicorn", "-w", "2", "-b", "127.0.0.1:PORT"]
PRELOAD = [*GUNICORN, "--preload"]

# The server, its command, and when the application is there: as a worker starts, or before it is forked.
WORKERS = {
    "gunicorn sync": ("gunicorn", [*GUNICORN, "root_app:wsgi"], "import"),
    "gunicorn sync preload": ("gunicorn", [*PRELOAD, "root_app:wsgi"], "in the fork"),
    "gunicorn gthread": ("gunicorn", [*GUNICORN, "--threads", "4", "root_app:wsgi"], "import"),
    "gunicorn gthread preload": ("gunicorn", [*PRELOAD, "--threads", "4", "root_app:wsgi"], "in the fork"),
    "gunicorn gevent": ("gunicorn", [*GUNICORN, "-k", "gevent", "root_app:wsgi"], "import"),
    "gunicorn gevent preload": ("gunicorn", [*PRELOAD, "-k", "gevent", "root_app:wsgi"], "in the fork"),
    "gunicorn asgi": ("gunicorn", [*GUNICORN, "-k", "asgi", "root_app:asgi"], "import"),
    "gunicorn uvicorn": ("gunicorn", [*GUNICORN, "-k", "uvicorn_worker.UvicornWorker", "root_app:asgi"], "import"),
    "gunicorn uvicorn preload": (
        *("gunicorn", [*PRELOAD, "-k", "uvicorn_worker.UvicornWorker", "root_app:asgi"], "in the fork"),
    ),
    "uvicorn": ("uvicorn", ["uvicorn", "--workers", "2", "--port", "PORT", "root_app:asgi"], "import"),
    "uvicorn.run": ("uvicorn", [MAIN.format(serve=UVICORN.format(2), main=SERVE)], "import"),
    "granian": (
        *("granian", ["granian", "--workers", "2", "--port", "PORT", "--interface", "asgi", "root_app:asgi"], "import"),
    ),
    "granian wsgi": (
        *("granian", ["granian", "--workers", "2", "--port", "PORT", "--interface", "wsgi", "root_app:wsgi"], "import"),
    ),
    "Granian preload": ("granian", [MAIN.format(serve=GRANIAN, main="import root_app; " + SERVE)], "in the fork"),
    "Granian spawn": (
        *("granian", [MAIN.format(serve=GRANIAN, main="multiprocessing.set_start_method('spawn'); " + SERVE)]),
        "import",
    ),
    "hypercorn": ("hypercorn", ["hypercorn", "-w", "2", "-b", "127.0.0.1:PORT", "root_app:asgi"], "import"),
}
ALONE = {
    "uvicorn": ["uvicorn", "--port", "PORT", "root_app:asgi"],
    "uvicorn.run in a Process": [
        MAIN.format(
            serve=UVICORN.format(1),
            main="import uvicorn; run = {'app': 'root_app:asgi', 'port': int(sys.argv[1])}; "
            "multiprocessing.Process(target=uvicorn.run, kwargs=run, daemon=True).start(); threading.Event().wait()",
        )
    ],
    "a server of its own": [
        MAIN.format(
            serve="import root_app, wsgiref.simple_server as simple; "
            "simple.make_server('127.0.0.1', port, root_app.wsgi).serve_forever()",
            main=SERVE,
        )
    ],
}


def started(command, folder):
    """Return a context that runs a server with the application, and its port."""
    shutil.copy(Path(__file__).parents[1] / "support" / "group" / "root_app.py", folder)
    port = servers.free_port()
    if len(command) == 1:
        (folder / "main.py").write_text(command[0])
        return servers.running([sys.executable, "main.py", str(port)], port, folder), port
    command = [str(servers.BIN / command[0]), *(part.replace("PORT", str(port)) for part in command[1:])]
    return servers.running(command, port, folder), port


def request(port, path="/"):
    """Return the roots that one worker has found."""
    answers = json.loads(servers.get(port, path)[1])
    when = ("import", "before the fork", "in the fork", "request", "thread")
    return answers | {name: answers[name] and Root(*answers[name]) for name in when}


def request_all(port, number=2):
    """Return the roots of each worker."""
    answers = {}

    def request_one():
        with contextlib.suppress(OSError, http.client.HTTPException):  # A worker ends with what it has accepted.
            one = request(port)
            answers[one["pid"]] = one

    def request_some():
        threads = [threading.Thread(target=request_one) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return len(answers) >= number

    servers.until(request_some)
    return list(answers.values())


@pytest.mark.parametrize("kind", WORKERS)
def test_workers_have_one_root(kind, tmp_path):
    """
    Each worker finds the process that started it: while it imports the application or in the fork, and later.

    That process itself is no worker, before it forks and later, and neither are children that a worker starts.
    """
    server, command, when = WORKERS[kind]
    running, port = started(command, tmp_path)
    with running:
        answers = request_all(port)
        children = request(port, "/children")["children"]
    (expected,) = {one["request"] for one in answers}

    assert (server, 0) == (expected.server, expected.previous)
    assert expected.started > 0
    assert {expected.pid} == {one["parent"] for one in answers}
    assert [(expected, expected)] * len(answers) == [(one[when], one["thread"]) for one in answers]
    assert [(None, None)] * len(answers) == [
        (one["before the fork"], one["in the fork" if when == "import" else "import"]) for one in answers
    ]
    assert {"fork", "subprocess"} <= set(children)
    assert {name: [None] * len(answers) for name, answers in children.items()} == children
    if (tmp_path / "parent").exists():
        assert {"None"} == set((tmp_path / "parent").read_text().split())


@pytest.mark.parametrize("kind", ALONE)
def test_alone(kind, tmp_path):
    """A single process, or one that the user's own program started, is no worker; nor are its children."""
    running, port = started(ALONE[kind], tmp_path)
    with running:
        answers = request(port, "/children")

    assert [None] * 5 == [answers[when] for when in ("import", "before the fork", "in the fork", "request", "thread")]
    assert {name: [None] * len(answers) for name, answers in answers["children"].items()} == answers["children"]


def test_two_services_of_one_parent_have_two_roots(tmp_path):
    """Two servers that one process started have different roots."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    one, port_of_one = started(WORKERS["uvicorn"][1], tmp_path / "one")
    two, port_of_two = started(WORKERS["uvicorn"][1], tmp_path / "two")
    with one, two:
        first, second = request(port_of_one)["request"], request(port_of_two)["request"]

    assert first != second
    assert first.pid != second.pid


@pytest.mark.parametrize("preload", [[], ["--preload"]], ids=["", "preload"])
def test_reload_and_reexec_of_gunicorn(preload, tmp_path):
    """
    After a HUP the root is the same; the root of a new arbiter's workers (USR2) names the previous arbiter.

    It still does when that one has ended, also for workers that start then.
    """
    running, port = started([*GUNICORN, *preload, "root_app:wsgi"], tmp_path)
    seen = {}
    with running:
        try:
            (first,) = {one["request"] for one in request_all(port)}
            old = {one["pid"] for one in request_all(port)}
            os.kill(first.pid, signal.SIGHUP)
            servers.until(lambda: old.isdisjoint(one["pid"] for one in request_all(port)))
            reloaded = {one["request"] for one in request_all(port)}
            os.kill(first.pid, signal.SIGUSR2)

            def new_arbiter():
                seen.update({one["request"].pid: one["request"] for one in request_all(port)})
                return len(seen) == 2

            servers.until(new_arbiter)
            (later,) = set(seen.values()) - {first}
            os.kill(first.pid, signal.SIGTERM)
            servers.until(lambda: {later} == {one["request"] for one in request_all(port)})
            # It is promoted within two seconds after the other's end, and deletes its pid.
            born = {one["pid"] for one in request_all(port)}

            def promoted():
                return "Master has been promoted" in (tmp_path / "stderr").read_text()

            servers.until(promoted)
            for pid in born:
                os.kill(pid, signal.SIGKILL)
            servers.until(lambda: born.isdisjoint(one["pid"] for one in request_all(port)))
            last = {one["request"] for one in request_all(port)}
        finally:
            for pid in set(seen) - {first.pid}:
                os.kill(pid, signal.SIGTERM)
                servers.until(lambda pid=pid: gone(pid))

    assert {first} == reloaded
    assert ("gunicorn", first.pid, 0) == (later.server, later.previous, first.previous)
    assert {later} == last


def gone(pid):
    """Return whether a process has ended; it may stay a zombie."""
    try:
        return "Z" == Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
