"""Four instances behind a HAProxy that follows `/ready`, restarted one after another under constant load."""

from __future__ import annotations

import contextlib
import subprocess
import time

import pytest

from support import servers
from support.drain import draining

pytestmark = pytest.mark.servers

CONFIGURATION = """
global
    nbthread 1
defaults
    mode http
    timeout connect 2s
    timeout client 20s
    timeout server 20s
    # HAProxy repeats no failed request.
    retries 0
frontend shop
    bind 127.0.0.1:{port}
    default_backend instances
backend instances
    balance roundrobin
    option httpchk GET /ready
    http-check expect status 200
    default-server check inter 100ms fall 1 rise 1
"""
INSTANCES = 4
COMMANDS = {
    "uvicorn": draining.SERVERS["uvicorn"][0],
    "gunicorn": draining.SERVERS["gunicorn sync"][0],
}


class Instances:
    """The four instances, each with its own port, on which it is restarted."""

    def __init__(self, command, folder, drain_seconds, stack):
        self._command, self._folder, self._seconds = command, folder, drain_seconds
        self._stack = stack
        self.ports = [servers.free_port() for _ in range(INSTANCES)]
        self._running = [self._start(number) for number in range(INSTANCES)]

    def _start(self, number):
        folder = self._folder / str(number)
        folder.mkdir(exist_ok=True)
        environ = {"SCALEOBS_DRAIN_SECONDS": str(self._seconds)}
        instance = draining.running(self._command, folder, port=self.ports[number], **environ)
        return self._stack.enter_context(instance)

    def restart(self, number):
        """Stop an instance and start it again, as a deployment does."""
        self._running[number].send_signal(draining.signal.SIGTERM)
        self._running[number].gone_after()
        self._running[number] = self._start(number)


@contextlib.contextmanager
def proxy(program, folder, ports):
    """Run HAProxy in front of instances; yield its port once it sends requests to all of them."""
    port = servers.free_port()
    lines = [f"    server s{each} 127.0.0.1:{each}" for each in ports]
    file = folder / "haproxy.cfg"
    file.write_text(CONFIGURATION.format(port=port) + "\n".join(lines) + "\n")
    with (folder / "haproxy.log").open("w") as log:
        process = subprocess.Popen([program, "-db", "-f", file], stdout=log, stderr=log)
    try:
        seen = set()

        def sees_all():
            assert process.poll() is None, (folder / "haproxy.log").read_text()
            with contextlib.suppress(OSError, TypeError):
                seen.add(draining.worker_of(draining.Server(process, port, folder)))
            return len(seen) >= len(ports)

        servers.until(sees_all)
        yield port
    finally:
        process.kill()
        process.wait(servers.LIMIT)


def losses(command, folder, program, drain_seconds, restarts):
    """Restart instances under load, one after another; return the number of answers, and the failures."""
    with contextlib.ExitStack() as stack:
        instances = Instances(command, folder, drain_seconds, stack)
        port = stack.enter_context(proxy(program, folder, instances.ports))
        with draining.Load(port, clients=6) as load:
            time.sleep(0.5)
            for number in range(restarts):
                instances.restart(number % INSTANCES)
                time.sleep(0.3)  # Until HAProxy sends requests to it again.
    return load.answered, [failure for _, failure in load.failures]


@pytest.mark.parametrize("name", COMMANDS)
def test_rolling_restart_loses_nothing(name, tmp_path, tool):
    """Three restarts by SIGTERM under constant load: every request is answered."""
    answered, failures = losses(COMMANDS[name], tmp_path, tool("haproxy"), drain_seconds=1, restarts=3)

    assert [] == failures
    assert answered > 300


@pytest.mark.parametrize("name", COMMANDS)
def test_rolling_restart_without_a_drain_loses_requests(name, tmp_path, tool):
    """The same without a drain loses some, so that the test above can fail."""
    _, failures = losses(COMMANDS[name], tmp_path, tool("haproxy"), drain_seconds=0, restarts=3)

    assert failures
