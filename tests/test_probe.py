"""`python -m scaleobs.probe` and `scaleobs probe` against real servers."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import scaleobs
from support.servers import BIN, free_port, running

SOURCE = Path(scaleobs.__file__).parents[1]

SHOP = """
import scaleobs

async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b""})

app = scaleobs.instrument(app, service="shop")
obs = scaleobs.observer_of(app)

@obs.check("postgres")
def postgres():
    return False

@obs.check("queue")
def queue():
    return True
"""


def probe(*arguments, **environ):
    """Run the probe as a container's health check does, and return its exit code and its line."""
    done = subprocess.run(
        [sys.executable, "-m", "scaleobs.probe", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        env={"PYTHONPATH": str(SOURCE), **environ},
    )
    assert "" == done.stderr
    assert 1 == done.stdout.count("\n")
    return done.returncode, done.stdout.strip()


def command(*arguments, **environ):
    """Run the console script's command, and return its exit code and what it wrote."""
    done = subprocess.run(
        [str(BIN / "scaleobs"), "probe", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        env={"PYTHONPATH": str(SOURCE), **environ},
    )
    assert "" == done.stderr
    return done.returncode, done.stdout.strip()


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    """Return the port of a service whose database is down."""
    folder = tmp_path_factory.mktemp("shop")
    (folder / "shop.py").write_text(SHOP)
    number = free_port()
    with running([sys.executable, "-m", "uvicorn", "--port", str(number), "shop:app"], number, folder):
        yield number


@pytest.mark.servers
@pytest.mark.parametrize(
    ("arguments", "answer"),
    [
        ([], (0, "live: UP")),
        (["live", "--timeout", "5"], (0, "live: UP")),
        (["startup"], (0, "startup: UP")),
        (["ready"], (1, "ready: DOWN, 503: postgres")),
    ],
)
def test_answer(arguments, answer, port):
    """The exit code is for the orchestrator; the line names the checks that are down."""
    assert answer == probe(*arguments, "--port", port)
    assert answer == probe(f"--port={port}", *arguments)


@pytest.mark.servers
def test_command_answers_the_same(port):
    """`scaleobs probe` requests the same service, by the same environment, and exits with the same code."""
    assert (0, "live: UP") == command("--port", port)
    assert (0, "startup: UP") == command("startup", f"--port={port}", "--timeout", "5")
    assert (1, "ready: DOWN, 503: postgres") == command("--port", port, "ready")
    assert (1, "live: DOWN, 404") == command("--port", port, SCALEOBS_HEALTH_PATH="/nowhere")


@pytest.mark.servers
def test_path_from_the_environment(port):
    """The paths are those of the service's own settings."""
    assert (0, "live: UP") == probe("--port", port, SCALEOBS_HEALTH_PATH="/startup")
    assert (1, "live: DOWN, 404") == probe("--port", port, SCALEOBS_HEALTH_PATH="/nowhere")


def test_no_server_listens():
    """No answer is a failure with its reason."""
    code, line = probe("--port", free_port())

    assert 1 == code
    assert "no answer from port" in line


@pytest.mark.parametrize("sent", [b"", b"HTTP/1.1 200", b"220 smtp.example ready\r\n\r\n"])
def test_something_else_listens(sent):
    """A server that hangs, or that is not HTTP, is a failure within the timeout."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = []

        def serve():
            connection, _ = server.accept()
            connection.recv(1000)
            connection.sendall(sent)
            taken.append(connection)
            if sent.endswith(b"\n"):
                connection.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        code, line = probe("--port", server.getsockname()[1], "--timeout", "0.3")
        thread.join(5)
        for connection in taken:
            connection.close()

    assert 1 == code
    assert ("it took longer than 0.3 s" in line) or ("the answer is not HTTP" in line)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["alive"], "'alive' is neither a probe nor an option"),
        (["--port", "0"], "--port '0' is not a port"),
        (["--port"], "--port '' is not a port"),
        (["--port", "99999"], "--port '99999' is not a port"),
        (["--timeout=never"], "--timeout 'never' is not a number of seconds above 0"),
        (["--timeout", "-1"], "--timeout '-1' is not a number of seconds above 0"),
    ],
)
def test_wrong_arguments(arguments, message):
    """A mistake is a failure with the reason and the usage; Docker reserves every other exit code."""
    code, line = probe(*arguments)

    assert 1 == code
    assert line.startswith(message)
    assert "usage: python -m scaleobs.probe" in line


@pytest.mark.parametrize(
    "arguments",
    [["alive"], ["--port"], ["--timeout", "-1"], ["--timeout=never"], ["-p3"], ["--"], ["live", "--", "x"], [""]],
)
def test_command_hands_arguments_on(arguments):
    """No argument is read, changed or left out on the way, not even one that looks like an option or ends them."""
    assert probe(*arguments) == command(*arguments)


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["ready", "--port", "--help"]])
def test_command_explains_itself(arguments):
    """The help has the usage, the probes, each option with its default, the exit codes and the variables."""
    code, text = command(*arguments, COLUMNS="110")

    assert 0 == code
    assert text.startswith("Usage: scaleobs probe [live|ready|startup] [--port 3000] [--timeout 2] [--tls]\n")
    options = ("\n  --port 3000 ", "\n  --timeout 2 ", "\n  --tls ")
    for message in ("live, ready, startup  The probe", *options, "exit code is 0"):
        assert message in text
    for name in ("HEALTH", "READY", "STARTUP"):
        assert f"SCALEOBS_{name}_PATH" in text


def test_nothing_needless_is_loaded():
    """The probe starts every few seconds in every container, and loads neither typing, re, socket nor http."""
    code = "import sys, scaleobs.probe; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": str(SOURCE)}
    )

    assert not {"typing", "re", "socket", "http", "json", "argparse", "dataclasses"} & set(done.stdout.split())
