"""Real servers drain after SIGTERM, and then end as they do without scaleobs."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from support import servers
from support.drain import draining
from support.drain.draining import GUNICORN, HYPERCORN, KEEPING, SERVERS, UVICORN, WITH_WEBSOCKETS

pytestmark = pytest.mark.servers

every_server = pytest.mark.parametrize("name", SERVERS)


@every_server
def test_drain_under_load(name, tmp_path):
    """
    After SIGTERM `/ready` answers 503 and nothing else changes during the drain; then the server ends by itself.

    No request fails in the drain, a stream that lasts longer is complete, hooks run once in each worker, and the log
    names a hook that raises or hangs. A response ends a connection that the client would keep, and no request on it is
    lost. An open WebSocket is served during the drain; then the server closes it.
    """
    command, workers, code = SERVERS[name]
    with draining.running(command, tmp_path, workers, SCALEOBS_DRAIN_SECONDS="2") as server:
        with contextlib.ExitStack() as opened:
            load = opened.enter_context(draining.Load(server.port))
            kept = opened.enter_context(draining.KeptConnections(server.port)) if name in KEEPING else None
            websocket = opened.enter_context(draining.WebSocket(server.port)) if name in WITH_WEBSOCKETS else None
            answers, shown, echoes = [], set(), set()
            stream = threading.Thread(target=lambda: answers.append(servers.get(server.port, "/stream")))
            servers.until(lambda: load.answered > 50 and (kept is None or kept.answered > 50))
            stream.start()
            time.sleep(0.1)  # It may begin before the drain or in it: it is whole.
            server.send_signal(signal.SIGTERM)
            servers.until(lambda: server.status("/ready") == 503)
            while time.monotonic() < server.signalled_at + 1.2:
                shown.add(tuple(server.status(path) for path in ("/health", "/ready", "/metrics")))
                if websocket:
                    echoes.add(websocket.echo())
            # Some servers end it with a close frame, others with the connection. From Python 3.12 on hypercorn waits
            # for it without end, with or without us.
            ended_with = websocket.end() if websocket and name != "hypercorn" else b""
            if websocket:
                websocket.close()
            after = server.gone_after()
            stream.join()
        output = server.printed()

    assert {(200, 503, 200)} == shown
    assert [] == load.failed_before(server.signalled_at + 1.2)
    assert kept is None or kept.failures == []
    assert echoes == ({b"\x81\x02hi"} if websocket else set())
    assert ended_with == b"" or ended_with.startswith(b"\x88")
    assert [(200, b"x" * 20)] == answers
    assert 2 < after  # And less than `servers.LIMIT`, though a hook takes longer.
    assert code == server.process.returncode
    assert [workers] * 4 == [
        output.count(event) for event in ("hook: sync", "hook: async", "drain.begun", "drain.ended")
    ]
    assert workers == output.count("RuntimeError: no way out")
    assert workers == output.count("It took longer than the drain.")


@every_server
def test_no_drain_with_0_seconds(name, tmp_path):
    """With `drain_seconds=0` the server stops at once, by the same exit code, and no hook runs."""
    command, workers, code = SERVERS[name]
    with draining.running(command, tmp_path, workers, SCALEOBS_DRAIN_SECONDS="0") as server:
        server.send_signal(signal.SIGTERM)
        server.gone_after()

        assert code == server.process.returncode
        assert "hook" not in server.printed()
        assert "drain." not in server.printed()


@every_server
def test_interrupt_has_no_delay(name, tmp_path):
    """SIGINT, sent to all processes as by Ctrl-C in a terminal, stops the server without a drain."""
    command, workers, _ = SERVERS[name]
    with draining.running(command, tmp_path, workers, SCALEOBS_DRAIN_SECONDS="60") as server:
        if command[0] == "gunicorn":
            server.settle()
        server.signalled_at = time.monotonic()
        if "wsgi_app:app" in command and command[0] == "gunicorn":
            # Its main process sends each worker SIGQUIT, at which gthread hangs now and then after SIGINT.
            server.send_signal(signal.SIGINT)
        else:
            os.killpg(server.process.pid, signal.SIGINT)
        server.gone_after()

        assert "hook" not in server.printed()


@pytest.mark.parametrize(
    ("name", "second"),
    [
        ("uvicorn", signal.SIGTERM),
        ("uvicorn", signal.SIGINT),
        ("hypercorn alone", signal.SIGTERM),
        ("hypercorn alone", signal.SIGINT),
        ("gunicorn sync", signal.SIGINT),
        ("gunicorn gthread", signal.SIGQUIT),
        ("gunicorn uvicorn", signal.SIGQUIT),
    ],
)
def test_second_signal_ends_the_drain(name, second, tmp_path):
    """A second signal to the main process ends the drain, if the server handles that itself."""
    command, workers, _ = SERVERS[name]
    with draining.running(command, tmp_path, workers, SCALEOBS_DRAIN_SECONDS="60") as server:
        server.send_signal(signal.SIGTERM)
        servers.until(lambda: server.status("/ready") == 503)
        servers.until(lambda: server.printed().count("hook: ") == 2 * workers)
        if command[0] == "gunicorn":
            server.settle()
        server.send_signal(second)
        server.gone_after()

        assert 2 * workers == server.printed().count("hook: ")


@pytest.mark.parametrize("name", ["uvicorn workers", "gunicorn sync", "gunicorn uvicorn", "granian workers"])
def test_signal_to_the_whole_service_is_one_signal(name, tmp_path):
    """If a supervisor signals every process, as systemd does, and the main process its workers, there is one drain."""
    command, workers, code = SERVERS[name]
    with draining.running(command, tmp_path, workers, SCALEOBS_DRAIN_SECONDS="2") as server:
        load = draining.Load(server.port, 2)
        with load:
            server.signalled_at = time.monotonic()
            os.killpg(server.process.pid, signal.SIGTERM)
            after = server.gone_after()

    assert after > 2
    assert [] == load.failed_before(server.signalled_at + 1.2)
    assert code == server.process.returncode


def test_second_signal_to_a_worker_ends_its_drain(tmp_path):
    """A worker that receives SIGTERM again after some time stops at once; the server replaces it."""
    with draining.running([*GUNICORN[:-1], "1"], tmp_path, SCALEOBS_DRAIN_SECONDS="60") as server:
        worker = draining.worker_of(server)
        os.kill(worker, signal.SIGTERM)
        servers.until(lambda: server.status("/ready") == 503)
        time.sleep(2.1)
        os.kill(worker, signal.SIGTERM)
        servers.until(lambda: not Path(f"/proc/{worker}").exists())
        servers.until(lambda: server.status("/ready") == 200)


@pytest.mark.parametrize(
    "name", ["uvicorn workers", "gunicorn sync", "gunicorn preload", "gunicorn uvicorn", "granian"]
)
def test_instance_stays_ready_during_a_reload(name, tmp_path):
    """On SIGHUP old workers drain while new ones start, slowly; `/ready` is always 200 and requests are answered."""
    command, workers, _ = SERVERS[name]
    settings = {"SCALEOBS_DRAIN_SECONDS": "1", "IMPORT_SECONDS": "1.5"}
    with draining.running(command, tmp_path, workers, **settings) as server:
        before = draining.worker_of(server)
        with draining.Load(server.port, 1) as load, draining.Load(server.port, 1, "/ready") as ready:
            server.send_signal(signal.SIGHUP)
            servers.until(lambda: not Path(f"/proc/{before}").exists())
            servers.until(lambda: server.printed().count("drain.ended") == workers)
            time.sleep(0.5)
        refused = [failure for _, failure in ready.failures if failure.startswith("503")]

    assert [] == refused
    # A worker that ends drops connections that it has accepted and not read yet, with us and without. http.client's
    # RemoteDisconnected is a ConnectionResetError, too.
    lost = ("Connection", "RemoteDisconnected")
    assert [] == [failure for _, failure in load.failures if not failure.startswith(lost)]


@pytest.mark.parametrize("name", ["uvicorn", "gunicorn sync", "hypercorn", "granian"])
def test_drain_as_the_first_process_of_a_container(name, tmp_path):
    """As PID 1 a server drains and ends as well."""
    command = SERVERS[name][0]
    namespace = ["unshare", "--pid", "--fork", "--map-root-user", "--mount-proc", "--kill-child"]
    if shutil.which("unshare") is None or os.system(f"{' '.join(namespace)} true 2>/dev/null") != 0:
        pytest.skip("This machine makes no namespaces.")
    program = shutil.which(command[0], path=str(servers.BIN))
    with draining.running([*namespace, program, *command[1:]], tmp_path, SCALEOBS_DRAIN_SECONDS="2") as server:
        (child,) = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
        with draining.Load(server.port, 2) as load:
            server.signalled_at = time.monotonic()
            os.kill(int(child), signal.SIGTERM)
            servers.until(lambda: server.status("/ready") == 503)
            after = server.gone_after()

    assert [] == load.failed_before(server.signalled_at + 1.2)
    assert 2 < after
    assert 0 == server.process.returncode


@pytest.mark.parametrize(
    ("command", "is_logged"),
    [
        ([*GUNICORN, "--graceful-timeout", "3"], True),
        ([*GUNICORN, "--graceful-timeout", "6"], False),
        ([*GUNICORN, "--threads", "2", "--preload", "--graceful-timeout", "3"], True),
        (
            [
                "gunicorn",
                "asgi_app:app",
                *GUNICORN[2:],
                "-k",
                "uvicorn_worker.UvicornWorker",
                "--graceful-timeout",
                "3",
            ],
            True,
        ),
        ([*draining.GRANIAN, "asgi", "--workers-kill-timeout", "3", "asgi_app:app"], True),
        ([*UVICORN, "--timeout-graceful-shutdown", "3"], False),
        ([*HYPERCORN, "--graceful-timeout", "3"], False),
    ],
)
def test_limit_that_ends_before_the_drain_is_logged(command, is_logged, tmp_path):
    """A warning at the start names the limit after which the server kills its workers, if the drain is longer."""
    with draining.running(command, tmp_path) as server:
        # If requests come on threads, the second one may write it.
        servers.until(lambda: server.status() == 200 and (not is_logged or "drain.cut_short" in server.printed()))
        assert is_logged == ("drain.cut_short" in server.printed())


@pytest.mark.parametrize("name", ["uvicorn", "hypercorn"])
def test_no_drain_with_reload(name, tmp_path):
    """With `--reload` a change of the code is served as soon as it would be without a drain."""
    command, workers, _ = SERVERS[name]
    with draining.running([*command, "--reload"], tmp_path, workers, SCALEOBS_DRAIN_SECONDS="60") as server:
        before = draining.worker_of(server)

        def is_replaced():
            # The reloader compares with the times of its first scan: a change before that is none.
            for app in tmp_path.glob("*_app.py"):
                with app.open("a") as code:
                    code.write("# It has changed.\n")
            return not Path(f"/proc/{before}").exists()

        servers.until(is_replaced)
        servers.until(lambda: server.status("/ready") == 200)
