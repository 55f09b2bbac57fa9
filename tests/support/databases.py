"""A real PostgreSQL and a real Redis, each of one test module's own, that can be stopped, held and brought back."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from support.servers import free_port

UNPRIVILEGED = 65534


class Server:
    """A server that is started and stopped as often as a test likes, on the same port and with the same data."""

    def __init__(self):
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="scaleobs-", dir="/tmp"))
        self.process = None
        self.as_whom = {}
        self.prefix = []

    def command(self) -> list[str]:
        """Return what starts it."""
        raise NotImplementedError

    def start(self):
        """Start it, and wait until it listens."""
        command = [*self.prefix, *self.command()]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, **self.as_whom)
        end = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            assert self.process.poll() is None, (self.folder / "log").read_text()
            assert time.monotonic() < end, (self.folder / "log").read_text()
            time.sleep(0.02)

    def hold(self):
        """Keep it from running: connections are accepted by the system, and nothing answers."""
        self._signal(signal.SIGSTOP)

    def let_go(self):
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def stop(self):
        """End it, clients or not."""
        if self.process is not None and self.process.poll() is None:
            self.let_go()
            self.process.send_signal(signal.SIGINT)  # For PostgreSQL, a fast shutdown.
            self.process.wait(30)

    def remove(self):
        """End it, and leave nothing behind."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _signal(self, number):
        """Send a signal to it, and then to its children, which for PostgreSQL have process groups of their own."""
        if self.process.poll() is not None:
            return
        os.kill(self.process.pid, number)
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):  # It has ended meanwhile.
                if int(stat.read_text().rpartition(")")[2].split()[1]) == self.process.pid:
                    os.kill(int(stat.parent.name), number)


class Redis(Server):
    """A Redis, or Valkey."""

    def __init__(self, tool):
        self.program = tool("redis-server")
        super().__init__()

    def command(self) -> list[str]:
        """Return what starts it."""
        return [self.program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]

    @property
    def url(self) -> str:
        """Return what clients connect to."""
        return f"redis://127.0.0.1:{self.port}/0"


class PostgreSQL(Server):
    """A PostgreSQL, which refuses to run as root, and runs as an unprivileged user if we are root."""

    def __init__(self, tool):
        self.program, initdb = tool("postgres"), tool("initdb")
        super().__init__()
        self.data = self.folder / "data"
        if os.geteuid() == 0:
            self._drop_privileges()
        arguments = ["-U", "postgres", "--auth=trust", "--no-locale", "--encoding=UTF8", "--no-sync", "-D", self.data]
        made = subprocess.run(
            [*self.prefix, initdb, *arguments], capture_output=True, cwd=self.folder, check=False, **self.as_whom
        )
        assert 0 == made.returncode, made.stderr.decode()

    def _drop_privileges(self):
        unprivileged = {"user": UNPRIVILEGED, "group": UNPRIVILEGED, "extra_groups": []}
        try:
            subprocess.run([self.program, "--version"], check=True, capture_output=True, **unprivileged)
        except (OSError, subprocess.CalledProcessError):
            # The unprivileged user may have no access. A user namespace shows us as that user, with our rights.
            self.prefix = ["unshare", "--user"]
        else:
            self.as_whom = unprivileged
            os.chown(self.folder, UNPRIVILEGED, UNPRIVILEGED)

    def command(self) -> list[str]:
        """Return what starts it."""
        options = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self.folder,
            "fsync": "off",
            "jit": "off",  # Its library is not among our tools.
            "timezone": "GMT",
            "log_timezone": "GMT",
        }
        return [self.program, "-D", str(self.data), *(f"--{name}={value}" for name, value in options.items())]

    @property
    def dsn(self) -> str:
        """Return what clients connect to."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
