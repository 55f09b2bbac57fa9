"""The management port under attack: each probe is answered within its second."""

from __future__ import annotations

import sys

import pytest

from support.attacks import ATTACKS, Attack, probes_under_attack
from support.servers import free_port, get, running, until

SERVICE = """
import threading
import wsgiref.simple_server
import prometheus_client
import scaleobs


class Hangs:
    is_asleep = False

    def collect(self):
        if Hangs.is_asleep:
            threading.Event().wait()
        return []


prometheus_client.REGISTRY.register(Hangs())
prometheus_client.Gauge("long", LENGTH * "x")


def wsgi(environ, start_response):
    Hangs.is_asleep = environ["PATH_INFO"] == "/hang"
    start_response("200 OK", [])
    return [b""]


app = scaleobs.instrument(wsgi, service="attacked", management_port=MANAGED, checks=[
    scaleobs.Check("database", lambda: True, cache=0),
])
wsgiref.simple_server.make_server("127.0.0.1", PORT, app).serve_forever()
"""


def statuses_under_attack(name, seconds, folder):
    """Return the status of each probe of a service that is attacked, and how often clients had to connect again."""
    port, managed = free_port(), free_port()
    length = 8_000_000 if "never read" in name else 10  # More than the sockets keep.
    script = SERVICE.replace("LENGTH", str(length)).replace("MANAGED", str(managed)).replace("PORT", str(port))
    attack = Attack(managed, **ATTACKS[name])
    with running([sys.executable, "-c", script], port, folder):
        until(lambda: get(managed, "/ready")[0] == 200)
        if "hangs" in name:
            get(port, "/hang")
        return probes_under_attack(managed, attack, seconds), attack.reopened


@pytest.mark.servers
@pytest.mark.parametrize("name", ATTACKS)
def test_probes_are_answered_under_attack(name, tmp_path):
    """Each probe is answered within its second."""
    statuses, _ = statuses_under_attack(name, 2, tmp_path)

    assert [200] * 4 == statuses
