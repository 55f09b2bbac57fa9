"""Workers that come and go: counts stay, gauges go, and no counter ever falls."""

from __future__ import annotations

import base64
import contextlib
import os
import signal
import socket
import threading
from pathlib import Path

import pytest

from support import servers
from support.expositions import PROTOBUF, key, samples
from support.group import fleet
from support.group.pages import OPENMETRICS

pytestmark = pytest.mark.servers

GUNICORN = [*fleet.GUNICORN, "wsgi_shop:app"]
GTHREAD = [*GUNICORN, "--threads", "4"]
ROUTE = "/hello/<name>"


# So many threads that one worker, which may get several connections in a row, never has all of them busy.
MANY_THREADS = [*GUNICORN, "--threads", "40"]


@pytest.mark.parametrize("command", [MANY_THREADS, fleet.UVICORN], ids=["gunicorn", "uvicorn"])
def test_killed_in_the_middle_of_a_request(command, tmp_path):
    """The counts of a killed worker stay, its open requests go, and a new worker replaces it."""
    with fleet.running(command, tmp_path) as shop, contextlib.ExitStack() as opened, shop.watched():
        shop.send([f"/hello/{number}" for number in range(200)])
        workers = {}
        while len(workers) < 2:
            connection, worker = shop.open("/slow/60")
            opened.enter_context(contextlib.closing(connection))
            workers.setdefault(worker, []).append(connection)
        many = sum(map(len, workers.values()))
        shop.until(lambda page: (200 + many, many) == (page.total("http_requests_total"), page.in_flight))
        killed, left = workers
        os.kill(killed, signal.SIGKILL)
        shop.until(lambda page: (len(workers[left]), 4) == (page.in_flight, page.workers))
        shop.send([f"/hello/{number}" for number in range(100)])
        shop.until(lambda page: 300 + many == page.total("http_requests_total"))
        pages = shop.scrapes()
    (shown,) = {tuple(page.sent().items()) for page in pages}

    assert [300 + many] == [number for _, number in shown]
    assert {(len(workers[left]), 4)} == {(page.in_flight, page.workers) for page in pages}


def test_recycled_workers(tmp_path):
    """A hundred workers one after the other leave few files, and exact counts."""
    command = [*GUNICORN, "--preload", "--max-requests", "5", "--max-requests-jitter", "4"]
    with fleet.running(command, tmp_path) as shop, shop.watched():
        directory, workers = shop.directory, set()
        first = ledger_bytes(directory)
        while len(workers) < 100:
            workers |= shop.send(["/hello/again"] * 200, threads=4, each=1)
            files = sorted(path.name for path in directory.iterdir())

            assert len(files) <= 20, files
        sent = shop.until(lambda page: page.total("http_requests_total") % 200 == 0).total("http_requests_total")
        shop.send(["/hello/again"] * 200, threads=4, each=1)
        pages = [shop.until(lambda page: sent + 200 == page.total("http_requests_total")), *shop.scrapes()]
        last = ledger_bytes(directory)

    assert {sent + 200} == {page.total("http_requests_total") for page in pages}
    assert 0 == pages[-1].total("scaleobs_internal_faults_total")
    assert last < 4 * first


def ledger_bytes(directory):
    """Return how many bytes a scrape reads."""
    return sum(path.stat().st_size for path in directory.glob("*.ledger"))


def test_reload_with_other_buckets(tmp_path):
    """A HUP keeps all counts, also if an objective adds a bucket; only open requests count as open."""
    with fleet.running(GTHREAD, tmp_path) as shop, shop.watched():
        shop.send([f"/hello/{number}" for number in range(400)])
        shop.until(lambda page: 400 == page.total("http_requests_total"))
        old, root = shop.pids(), shop.root
        source = (tmp_path / "wsgi_shop.py").read_text()
        objective = '"objectives": [scaleobs.Latency(90, under=0.003)]'
        (tmp_path / "wsgi_shop.py").write_text(source.replace("SETTINGS = {", f"SETTINGS = {{{objective}"))
        os.kill(root, signal.SIGHUP)
        servers.until(lambda: old.isdisjoint(shop.pids()))
        shop.send([f"/hello/{number}" for number in range(100)])
        connection, _ = shop.open("/slow/60")
        with contextlib.closing(connection):
            shop.until(lambda page: (501, 1) == (page.total("http_requests_total"), page.in_flight))
            pages = shop.scrapes()

    assert {(501, 1, 4)} == {(page.total("http_requests_total"), page.in_flight, page.workers) for page in pages}
    for page in pages:
        assert ("http_request_duration_seconds_bucket", ROUTE, "0.003") in {
            (name, dict(labels)["route"], dict(labels).get("le")) for name, labels in page if "route" in dict(labels)
        }
        assert 501 == page.total("http_request_duration_seconds_bucket", le="+Inf")


def test_two_generations(tmp_path):
    """After USR2 old and new workers are one group, and the new ones continue when the old have ended."""
    with fleet.running(GTHREAD, tmp_path) as shop, shop.watched():
        shop.send(["/hello/before"] * 100)
        old, directory = shop.root, shop.directory
        started = shop.scrape()["process_start_time_seconds", ()]
        os.kill(old, signal.SIGUSR2)
        shop.until(lambda page: 8 == page.workers)
        shop.send(["/hello/both"] * 200)
        pages = [shop.until(lambda page: 300 == page.total("http_requests_total")), *shop.scrapes(workers=5)]
        os.kill(old, signal.SIGTERM)
        shop.until(lambda page: 4 == page.workers)
        later = shop.root
        shop.send(["/hello/after"] * 100)
        last = [shop.until(lambda page: 400 == page.total("http_requests_total")), *shop.scrapes()]
        # Workers that start after the end of the old arbiter use the same directory.
        servers.until(lambda: "Master has been promoted" in (tmp_path / "stderr").read_text())
        for pid in shop.pids():
            os.kill(pid, signal.SIGKILL)
        shop.until(lambda page: (400, 4) == (page.total("http_requests_total"), page.workers))
        stayed = directory.is_dir()

    assert old != later
    assert {300} == {page.total("http_requests_total") for page in pages}
    assert {400} == {page.total("http_requests_total") for page in last}
    assert stayed
    assert started > 0


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGKILL])
def test_directory_goes_with_its_group(by, tmp_path):
    """The directory of a dead group is removed by the next worker of any group that starts."""
    with fleet.running(GUNICORN, tmp_path / "one") as shop:
        directory, root, workers = shop.directory, shop.root, shop.pids()
        os.kill(root, by)
    servers.until(lambda: not any(is_alive(pid) for pid in workers))
    with fleet.running(GUNICORN, tmp_path / "other"):
        left = directory.exists()

    assert not left


def is_alive(pid):
    """Return whether a process exists and is no zombie."""
    try:
        return "Z" != Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def test_websockets_of_a_killed_worker(tmp_path):
    """Its WebSockets don't count as open, those of the others do; those that it has closed stay, in each format."""
    with fleet.running(fleet.UVICORN, tmp_path) as shop, contextlib.ExitStack() as opened, shop.watched():
        with contextlib.closing(socket.create_connection(("127.0.0.1", shop.port), servers.LIMIT)) as stream:
            killed = talk(stream)
            stream.sendall(b"\x88\x82\0\0\0\0" + (4321).to_bytes(2, "big"))
            stream.recv(10)
        workers = []
        while len(set(workers)) < 2 or killed not in workers:
            stream = opened.enter_context(socket.create_connection(("127.0.0.1", shop.port), servers.LIMIT))
            workers.append(talk(stream))
        websocket = ("active_connections", (("protocol", "websocket"),))
        shop.until(lambda page: len(workers) == page[websocket])
        os.kill(killed, signal.SIGKILL)
        left = len(workers) - workers.count(killed)
        shop.until(lambda page: (left, 4) == (page[websocket], page.workers))
        pages = shop.scrapes() + shop.scrapes(headers=OPENMETRICS)
        in_protobuf = [samples(shop.fetch("/metrics", {"Accept": PROTOBUF})[2], PROTOBUF) for _ in range(4)]
    closed = [page.total("websocket_connections_total", route="/stay", code="4xxx") for page in pages]
    timed = [page.total("websocket_duration_seconds_count", route="/stay") for page in pages]

    assert {left} == {page[websocket] for page in pages}
    assert {1} == {*closed, *timed}
    assert {1} == {
        found[key(name, labels)]
        for found in in_protobuf
        for name, labels in (
            ("websocket_connections_total", {"route": "/stay", "code": "4xxx"}),
            ("websocket_duration_seconds_count", {"route": "/stay"}),
        )
    }


def talk(stream):
    """Open a WebSocket, and return the pid that it sends."""
    key = base64.b64encode(os.urandom(16)).decode()
    stream.sendall(
        "GET /stay HTTP/1.1\r\nHost: shop\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    with stream.makefile("rb") as file:
        while file.readline().strip():
            pass
        _, length = file.read(2)
        return int(file.read(length))


def test_two_services_of_one_parent(tmp_path):
    """Two servers that one shell has started count separately."""
    ports = [servers.free_port(), servers.free_port()]
    (tmp_path / "one").mkdir()
    script = " & ".join(" ".join(part.replace("PORT", str(port)) for part in GUNICORN) for port in ports)
    (tmp_path / "both.sh").write_text(f"cd one; {script} & wait\n")
    environ = {"PATH": f"{servers.BIN}{os.pathsep}{os.environ['PATH']}"}
    with fleet.running(["sh", str(tmp_path / "both.sh")], tmp_path / "one", port=ports[0], **environ) as one:
        other = fleet.Fleet(ports[1], tmp_path, one.end)
        other.until(lambda page: 4 == page.workers)
        one.send(["/hello/one"] * 300)
        other.send(["/hello/other"] * 200)
        one.until(lambda page: 300 == page.total("http_requests_total"))
        other.until(lambda page: 200 == page.total("http_requests_total"))
        shown = [{page.total("http_requests_total") for page in shop.scrapes()} for shop in (one, other)]
        parents = {fleet.parent_of(shop.root) for shop in (one, other)}

    assert [{300}, {200}] == shown
    assert 1 == len(parents)


def test_threads_that_scrape_at_once(tmp_path):
    """Scrapes side by side in one worker, while others begin to count, show each request once."""
    with fleet.running([*GUNICORN, "--threads", "16"], tmp_path) as shop:
        sent = 0
        for number in range(20):
            status = threading.Thread(target=shop.send, args=([f"/hello/{number}", "/boom", "/nowhere"] * 4,))
            status.start()
            fleet.side_by_side(shop.scrape, 12)
            status.join()
            sent += 12
        shop.until(lambda page: sent == page.total("http_requests_total"))
        pages = shop.scrapes(24, workers=4)

    assert {sent} == {page.total("http_requests_total") for page in pages}
    assert {0} == {page.total("scaleobs_internal_faults_total") for page in pages}
