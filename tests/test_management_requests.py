"""What clients send to the management port: requests, and bytes that are none."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from scaleobs._management import connections, messages, slots
from scaleobs._metrics import collectors
from support import servers
from support.collectors import Hanging
from support.management import exchange, status_of

FAULTS = "scaleobs_internal_faults_total"


GOOD = {
    "HTTP/1.0 without headers": b"GET /health HTTP/1.0\r\n\r\n",
    "HTTP/1.1": b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n",
    "line ends without CR": b"GET /health HTTP/1.1\nHost: a\n\n",
    "an empty line before": b"\r\nGET /health HTTP/1.1\r\nHost: a\r\n\r\n",
    "a whole URL": b"GET http://[::1]:9090/health?x=http://[y HTTP/1.1\r\nHost: a\r\n\r\n",
    "a path with escapes": b"GET /%68ealth HTTP/1.1\r\nHost: a\r\n\r\n",
    "bytes in a header": b"GET /health HTTP/1.1\r\nHost: a\r\nUser-Agent: \xff\xe9\r\nEmpty:\r\n\r\n",
    "a body": b"GET /health HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    "two requests at once": b"GET /health HTTP/1.1\r\nHost: a\r\n\r\nGET /ready HTTP/1.1\r\nHost: a\r\n\r\n",
    "a header of 8 kB": b"GET /health HTTP/1.1\r\nCookie: " + 8000 * b"x" + b"\r\n\r\n",
}
LONG = 200_000
BAD = {
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)) * 2,
    "SSH": b"SSH-2.0-OpenSSH_9.6\r\n",
    "HTTP/0.9": b"GET /health\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "another version": b"GET /health HTTP/9.9\r\n\r\n",
    "no version": b"GET /health HTTP/\r\n\r\n",
    "a URL that is none": b"GET http://[x/ HTTP/1.1\r\n\r\n",
    "a URL with a port that is none": b"GET http://a:b/health HTTP/1.1\r\n\r\n",
    "a URL without a host": b"GET http:///health HTTP/1.1\r\n\r\n",
    "no path": b"GET health HTTP/1.1\r\n\r\n",
    "CONNECT": b"CONNECT example.com:443 HTTP/1.1\r\n\r\n",
    "OPTIONS *": b"OPTIONS * HTTP/1.1\r\n\r\n",
    "two spaces": b"GET  /health HTTP/1.1\r\n\r\n",
    "a space in the path": b"GET /health now HTTP/1.1\r\n\r\n",
    "a method with bytes": b"G\xc3\x89T /health HTTP/1.1\r\n\r\n",
    "a path with bytes": b"GET /\xff\xfe HTTP/1.1\r\n\r\n",
    "NUL": bytes(8),
    "NUL in a path": b"GET /health\x00 HTTP/1.1\r\n\r\n",
    "NUL in a header": b"GET /health HTTP/1.1\r\nHost: a\x00b\r\n\r\n",
    "CR in a header": b"GET /health HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
    "a header without a colon": b"GET /health HTTP/1.1\r\nHost\r\n\r\n",
    "a header without a name": b"GET /health HTTP/1.1\r\n: a\r\n\r\n",
    "a space before the colon": b"GET /health HTTP/1.1\r\nHost : a\r\n\r\n",
    "a folded header": b"GET /health HTTP/1.1\r\nX: a\r\n b\r\n\r\n",
    "a length that is none": b"GET /health HTTP/1.1\r\nContent-Length: five\r\n\r\n",
    "a negative length": b"GET /health HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
    "two lengths": b"GET /health HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "a length and chunks": b"GET /health HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "an unknown coding": b"GET /health HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
    "a long method": b"G" * LONG,
    "a long path": b"GET /" + b"a" * LONG,
    "a long header": b"GET /health HTTP/1.1\r\nX: " + b"a" * LONG,
    "many headers": b"GET /health HTTP/1.1\r\n" + b"X: a\r\n" * (LONG // 6),
    "long empty lines": b"\r\n" * (LONG // 2),
}


def test_each_request_is_answered(manage):
    """One request a connection is answered, in one piece or byte by byte."""
    port, _ = manage()

    assert [] == [name for name, sent in GOOD.items() if status_of(exchange(port, sent)) != 200]
    assert 200 == status_of(exchange(port, *(b"%c" % byte for byte in GOOD["HTTP/1.1"])))


def test_what_is_no_request_is_a_400(manage, registry):
    """Any other bytes are answered by 400 at once, the connection is closed, and no client can cause a fault."""
    port, _ = manage()
    begun = time.monotonic()
    statuses = {name: status_of(exchange(port, sent)) for name, sent in BAD.items()}
    seconds = time.monotonic() - begun

    assert {} == {name: status for name, status in statuses.items() if status != 400}
    assert seconds < connections.HEAD_SECONDS * len(BAD)
    assert 0 == registry.get_sample_value(FAULTS)


def test_other_paths_and_methods(manage):
    """An unknown path is a 404, and any other method a 405, also with a body that is not read."""
    port, _ = manage()
    body = b"POST /metrics HTTP/1.1\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000

    assert 404 == status_of(exchange(port, b"GET //health HTTP/1.1\r\n\r\n"))
    assert 404 == status_of(exchange(port, b"GET /healthy HTTP/1.1\r\n\r\n"))
    assert 405 == status_of(exchange(port, body))
    assert 405 == status_of(exchange(port, b"BREW /health HTTP/1.1\r\n\r\n"))


def test_half_a_request_is_a_400(manage):
    """A client that ends in the middle receives an answer; one that sends nothing, none."""
    port, _ = manage()
    answers = []
    for sent in (b"GET /health HTTP/1.1\r\nHo", b""):
        with socket.create_connection(("127.0.0.1", port), timeout=servers.LIMIT) as client:
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)
            answers.append(client.makefile("rb").read())

    assert (400, b"") == (status_of(answers[0]), answers[1])


@given(st.one_of(st.binary(max_size=200), st.lists(st.sampled_from(b"GET /:[]@?#%\r\n\x00\xff HTP1.0").map(chr))))
@example("GET http://[x/ HTTP/1.1\r\n\r\n")
def test_any_bytes_are_a_request_or_bad(sent):
    """Reading raises no other error, and does not depend on how the bytes arrive."""
    sent = sent if isinstance(sent, bytes) else "".join(sent).encode("latin-1")

    def read(data):
        try:
            return messages.read(data)
        except messages.BadRequestError:
            return "bad"

    seen = [one for one in (read(sent[:end]) for end in range(len(sent) + 1)) if one is not None]

    assert all(one == seen[0] for one in seen)


def mutated(random_source):
    """Return a request with bytes changed, removed or added."""
    sent = bytearray(random_source.choice([*GOOD.values(), *(one[:500] for one in BAD.values())]))
    for _ in range(random_source.randrange(1, 6)):
        at, piece = (
            random_source.randrange(len(sent) + 1),
            bytes(random_source.choices(b"\r\n :/?[]%\0\xff\x80GH.1", k=2)),
        )
        sent[at : at + random_source.randrange(3)] = piece[: random_source.randrange(3)]
    return bytes(sent)


def test_no_bytes_cause_a_fault(manage, registry):
    """Requests that are changed at random are answered, and no answer is an error of scaleobs."""
    port, _ = manage()
    source = random.Random(17)
    statuses = set()
    for _ in range(400):
        with socket.create_connection(("127.0.0.1", port), timeout=servers.LIMIT) as client:
            client.sendall(mutated(source))
            client.shutdown(socket.SHUT_WR)
            answer = client.makefile("rb").read()
        statuses.add(status_of(answer) if answer else None)

    assert {200, 400, 404, 405} <= statuses <= {None, 200, 400, 404, 405}
    assert 0 == registry.get_sample_value(FAULTS)


def test_slow_head_is_closed(manage, monkeypatch):
    """A client has one deadline for the whole head, however often it sends a byte."""
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.5)
    port, _ = manage()
    begun = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=servers.LIMIT) as client, contextlib.suppress(OSError):
        client.settimeout(0.05)
        while time.monotonic() - begun < servers.LIMIT:
            client.sendall(b"G" if time.monotonic() - begun < 0.05 else b"")
            with contextlib.suppress(TimeoutError):
                if client.recv(1) == b"":
                    break

    assert 0.4 < time.monotonic() - begun < servers.LIMIT


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_child_process_keeps_no_connection_open(manage, monkeypatch):
    """A process that the application forks meanwhile closes the connections, which the parent would not end."""
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.5)
    port, _ = manage()
    with socket.create_connection(("127.0.0.1", port), timeout=servers.LIMIT) as client:
        client.sendall(b"GET ")
        exchange(port, GOOD["HTTP/1.1"])  # The first connection was accepted before this one.
        child = os.fork()
        if not child:
            time.sleep(2 * servers.LIMIT)
            os._exit(0)
        try:
            end = client.recv(1)
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)

    assert b"" == end


def test_oldest_silent_connection_is_closed_first(manage, monkeypatch):
    """If there are too many connections, the oldest ones without a request are closed for new ones."""
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 4)
    monkeypatch.setattr(connections, "HEAD_SECONDS", 60)
    port, _ = manage()
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=servers.LIMIT)) for _ in range(6)
        ]
        closed = [client.recv(1) for client in clients[:2]]
        for client in clients[2:]:
            client.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        statuses = [status_of(client.makefile("rb").read()) for client in clients[2:]]

    assert [b"", b""] == closed
    assert [200] * 4 == statuses


def test_collector_that_hangs_costs_one_slot_and_one_fault(manage, registry, monkeypatch, caplog):
    """The first scrape hangs. Others have a page without the collector after its time, and all again after its end."""
    monkeypatch.setattr(collectors, "HANGS_SECONDS", 0.3)
    collector = Hanging()
    registry.register(collector)
    port, _ = manage()
    request = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"
    with contextlib.ExitStack() as stack:
        hanging = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=servers.LIMIT))
        hanging.sendall(request)
        servers.until(lambda: collector.threads)
        pages = [exchange(port, request) for _ in range(3)]
        statuses = [status_of(exchange(port, b"GET /health HTTP/1.1\r\n\r\n")) for _ in range(3)]
        callers = len(set(collector.threads))
        servers.until(lambda: f"{FAULTS} 1.0".encode() in exchange(port, request))
        collector.released.set()
        first = hanging.makefile("rb").read()
    calls = len(collector.threads)
    after = exchange(port, request)

    assert [200] * 3 == [status_of(page) for page in pages] == statuses
    assert all(b"service_ready 1.0" in page for page in (*pages, first, after))
    assert 1 == callers
    assert f"{FAULTS} 1.0".encode() in after
    assert calls + 1 == len(collector.threads)
    (line,) = [one for one in caplog.records if one.getMessage() == "scaleobs.fault"]
    assert "Hanging.collect" in line.exc_text or "wait" in line.kind


def test_scrapes_beyond_the_slots_wait_and_then_receive_503(manage, registry, monkeypatch):
    """Scrapes that hang keep their slots; another one receives 503 after a while, and probes go on."""
    monkeypatch.setattr(slots, "WAIT_SECONDS", 0.3)
    collector = Hanging()
    registry.register(collector)
    port, _ = manage()
    request = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"
    with contextlib.ExitStack() as stack:
        for _ in range(connections.SLOTS["metrics"]):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=servers.LIMIT))
            client.sendall(request)
        servers.until(lambda: collector.threads)
        late = exchange(port, request)
        health = exchange(port, b"GET /health HTTP/1.1\r\n\r\n")
        collector.released.set()

    assert [503, 200] == [status_of(late), status_of(health)]
    assert 200 == status_of(exchange(port, request))


def test_page_without_a_length_is_chunked(manage, registry):
    """A page that breaks off is seen to be incomplete: its last chunk is missing."""
    from prometheus_client import Gauge

    wide = Gauge("wide", "Of many series.", ["number"], registry=registry)
    for number in range(5000):
        wide.labels(number).set(number)
    port, _ = manage()
    chunked = exchange(port, b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
    plain = exchange(port, b"GET /metrics HTTP/1.0\r\n\r\n")
    head = exchange(port, b"HEAD /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
    status, body = servers.get(port, "/metrics")

    assert b"Transfer-Encoding: chunked" in chunked.partition(b"\r\n\r\n")[0]
    assert chunked.endswith(b"\r\n0\r\n\r\n")
    assert b"Transfer-Encoding" not in plain.partition(b"\r\n\r\n")[0]
    assert (200, True, True) == (status, b'wide{number="4999"}' in body, b'wide{number="4999"}' in plain)
    assert head.endswith(b"\r\n\r\n")


def test_client_that_does_not_read_is_cut_if_others_wait(manage, registry, monkeypatch):
    """Four clients that never read a long page delay a fifth scrape for a moment only."""
    from prometheus_client import Gauge

    monkeypatch.setattr(slots, "SEND_SECONDS_IF_OTHERS_WAIT", 0.2)
    wide = Gauge("wide", "x" * 20_000_000, registry=registry)
    wide.set(1)
    port, _ = manage()
    request = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"
    with contextlib.ExitStack() as stack:
        for _ in range(connections.SLOTS["metrics"]):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", port))
            client.sendall(request)
        fifth = exchange(port, request)

    assert 200 == status_of(fifth)
    assert fifth.endswith(b"\r\n0\r\n\r\n")
