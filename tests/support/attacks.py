"""Clients that try to occupy a port, and the probes of an orchestrator meanwhile."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time

SLOW_SECONDS = 2


class Attack:
    """
    Connections that are kept until the attack ends; one that the server closes is opened again.

    Args:
        port: of the service.
        number: of connections.
        begins: what each one sends first.
        then: what each one sends every two seconds.
        receives: how many bytes a socket keeps that is never read; by default, what arrives is read.
    """

    def __init__(self, port, number, begins=b"", then=b"", receives=None):
        self.port, self.number, self.begins, self.then, self.receives = port, number, begins, then, receives
        self.reopened = 0
        self.errors = []

    def run(self, is_over):
        """Attack until the event is set."""
        with contextlib.ExitStack() as stack:
            clients = [self._open(stack) for _ in range(self.number)]
            due = time.monotonic() + SLOW_SECONDS
            while not is_over.wait(0.05):
                sends = time.monotonic() >= due
                due += SLOW_SECONDS * sends
                for position, client in enumerate(clients):
                    if client is None or not self._is_kept(client, sends=sends):
                        self.reopened += 1
                        clients[position] = self._open(stack)

    def _open(self, stack):
        client = stack.enter_context(socket.socket())
        if self.receives is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receives)
        client.settimeout(1)
        try:
            client.connect(("127.0.0.1", self.port))
            client.setblocking(False)
            client.send(self.begins)
        except OSError as error:
            self.errors.append(repr(error))
            return None
        return client

    def _is_kept(self, client, *, sends):
        try:
            if sends and self.then:
                client.send(self.then)
            if self.receives is None:
                is_kept = client.recv(4096) != b""
            else:  # It never reads, and sees only that its connection was reset.
                is_kept = not client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        except BlockingIOError:
            return True
        except OSError:
            is_kept = False
        if not is_kept:
            client.close()
        return is_kept


ATTACKS = {
    "200 that send a byte every two seconds": {"number": 200, "begins": b"G", "then": b"E"},
    "200 idle ones": {"number": 200},
    "32 idle ones that connect again": {"number": 32},
    "33 scrapes of a collector that hangs": {"number": 33, "begins": b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"},
    "33 scrapes that are never read": {
        "number": 33,
        "begins": b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n",
        "receives": 4096,
    },
    "100 that send what is no request": {"number": 100, "begins": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"},
}


def probe(port, path):
    """Return the status of a probe that a kubelet would count; 0 if it is not answered within a second."""
    begun = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=1)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()
    return answer.status if time.monotonic() - begun <= 1 else 0


def probes_under_attack(port, attack, seconds):
    """Return the status of each probe, of which there is one of liveness and one of readiness a second."""
    is_over = threading.Event()
    attacker = threading.Thread(target=attack.run, args=(is_over,))
    attacker.start()
    try:
        statuses, begun = [], time.monotonic()
        for second in range(1, seconds + 1):
            is_over.wait(max(0.0, begun + second - time.monotonic()))
            statuses += [probe(port, "/health"), probe(port, "/ready")]
    finally:
        is_over.set()
        attacker.join()
    return statuses
