"""Raw requests to a management port."""

from __future__ import annotations

import socket
import time

from support import servers


def exchange(port, *pieces, host="127.0.0.1"):
    """Return all bytes of the answer to these, of which each but the first is sent a moment later."""
    with socket.create_connection((host, port), timeout=servers.LIMIT) as client:
        for position, piece in enumerate(pieces):
            if position:
                time.sleep(0.01)
            client.sendall(piece)
        return client.makefile("rb").read()


def status_of(answer):
    """Return the status of an answer."""
    return int(answer.split(b" ", 2)[1])
