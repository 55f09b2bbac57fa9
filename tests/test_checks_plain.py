"""The ready-made checks that need only the standard library, and the errors if something is missing."""

from __future__ import annotations

import importlib.util
import shutil
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler
from types import SimpleNamespace

import pytest

from scaleobs import checks
from scaleobs._health import Checks
from support.http_server import answering
from support.servers import free_port


def result(check):
    """Return the result of a check."""
    registered = Checks(lambda *_: None)
    registered.add(check)
    ((name, outcome),) = registered.report("ready").checks
    assert check.name == name
    return outcome


@pytest.fixture
def listener():
    """Return a socket that listens and accepts nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


@pytest.fixture
def web():
    """Return the address of a web server whose paths select the answer."""
    release = threading.Event()

    class ByPath(BaseHTTPRequestHandler):
        def do_GET(self):
            status = self.path.strip("/")
            if status == "hang":
                release.wait(20)
                status = "200"
            if status == "token":
                status = "200" if self.headers["Authorization"] == "Bearer t" else "401"
            self.send_response(int(status))
            if status == "302":
                self.send_header("Location", "/204")
            self.send_header("Content-Length", "0")
            self.end_headers()

    with answering(ByPath) as port:
        yield f"http://127.0.0.1:{port}"
        release.set()


@pytest.mark.parametrize(
    ("path", "is_up", "reason"),
    [
        ("/200", True, ""),
        ("/302", True, ""),
        ("/404", False, "HTTPError: HTTP Error 404: Not Found"),
        ("/503", False, "HTTPError: HTTP Error 503: Service Unavailable"),
        ("/hang", False, ""),
        ("/token", False, "HTTPError: HTTP Error 401: Unauthorized"),
    ],
)
def test_http(path, is_up, reason, web):
    """The check passes with an answer that is not an error, in time, after redirects."""
    outcome = result(checks.http(web + path, timeout=0.4 if path == "/hang" else 10))

    assert (is_up, True) == (outcome.is_up, outcome.reason.startswith(reason))


def test_http_sends_the_headers(web):
    """The check sends its headers, such as a token."""
    assert result(checks.http(f"{web}/token", headers={"Authorization": "Bearer t"}, timeout=10)).is_up


@pytest.mark.parametrize("url", ["ftp://host/", "file:///etc/passwd", "host:80", "http://", ""])
def test_what_is_no_http_is_refused(url):
    """A file is never read, and a URL without a scheme is refused."""
    with pytest.raises(ValueError, match="give a URL that begins with http:// or https://"):
        checks.http(url)


def test_tcp(listener):
    """The check passes if a socket listens."""
    host, port = listener.getsockname()

    assert result(checks.tcp(host, port)).is_up
    assert result(checks.tcp(host, free_port())).reason.startswith("ConnectionRefusedError")


def test_dns(monkeypatch):
    """The check passes if the system finds the host, and one that hangs takes its timeout."""
    assert result(checks.dns("localhost", timeout=10)).is_up

    def gone(*_):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", gone)
    assert "gaierror: [Errno -2] Name or service not known" == result(checks.dns("gone.invalid")).reason
    gate = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: gate.wait(20))
    assert "no answer within 0.05 s" == result(checks.dns("slow.invalid", timeout=0.05)).reason
    gate.set()


def test_disk_space(monkeypatch, tmp_path):
    """The check fails below either limit, and shows the free space."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(total=1000, free=40))

    assert f"40 bytes (4.0%) of {tmp_path} are free" == result(checks.disk_space(str(tmp_path))).reason
    assert not result(checks.disk_space(free_share=0, free_bytes=41)).is_up
    assert {"free_bytes": 40, "free_share": 0.04} == result(checks.disk_space(free_share=0.04, free_bytes=40)).data


def test_disk_space_of_this_machine(tmp_path):
    """A file system that does not exist is a failure with its reason."""
    assert result(checks.disk_space(str(tmp_path), free_share=0)).is_up
    assert result(checks.disk_space(str(tmp_path / "gone"))).reason.startswith("FileNotFoundError")


@pytest.mark.parametrize("share", [-0.1, 5, float("nan")])
def test_a_share_that_is_none_is_refused(share):
    """A share is a number from 0 to 1: five per cent is 0.05."""
    with pytest.raises(ValueError, match=r"give a share from 0 to 1, e.g. 0.05"):
        checks.disk_space(free_share=share)


def test_from_callable():
    """The check has the name of the function, unless a name is given."""

    def queue():
        return False

    assert ("queue", False) == (checks.from_callable(queue).name, result(checks.from_callable(queue)).is_up)
    assert "mq" == checks.from_callable(queue, name="mq").name


def test_options_are_those_of_a_check():
    """Each ready-made check takes all options of a check."""
    options = {"probe": "startup", "timeout": 2, "every": 5, "cache": 3, "critical": False, "failure_threshold": 4}
    made = [
        checks.from_callable(print, **options),
        checks.postgresql("postgresql://", **options),
        checks.redis("redis://", **options),
        checks.http("http://host", **options),
        checks.tcp("host", 1, **options),
        checks.dns("host", **options),
        checks.disk_space(**options),
    ]

    assert len(made) == len({check.name for check in made})
    for check in made:
        assert options == {name: getattr(check, name) for name in options}


@pytest.mark.parametrize(
    ("make", "outcome"),
    [
        (checks.postgresql, r"checks.postgresql needs psycopg or asyncpg, .*: pip install 'psycopg\[binary\]'"),
        (checks.redis, "checks.redis needs redis, which is not installed: pip install redis"),
    ],
)
def test_a_missing_package_is_named(make, outcome, monkeypatch):
    """The error at the start has the line that installs the package."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)

    with pytest.raises(ImportError, match=outcome):
        make("redis://host")


@pytest.mark.parametrize(
    ("make", "outcome"),
    [
        (checks.postgresql, "checks.postgresql got 7: give a DSN, or a pool of psycopg_pool or asyncpg"),
        (checks.redis, "checks.redis got 7: give a URL, or a client of redis-py"),
    ],
)
def test_what_is_no_source_is_refused(make, outcome):
    """An invalid source is refused at the start."""
    with pytest.raises(TypeError, match=outcome):
        make(7)


def test_the_packages_are_loaded_when_they_are_needed():
    """Importing the checks, and making one, loads no driver."""
    script = """
import sys
from scaleobs import checks
checks.postgresql("postgresql://"), checks.redis("redis://"), checks.http("http://host")
sys.exit(sorted({"psycopg", "asyncpg", "redis", "urllib.request"} & sys.modules.keys()) or 0)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)

    assert (0, b"") == (done.returncode, done.stderr)
