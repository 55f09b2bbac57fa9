"""The management port in one process, without a server."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading

import pytest

import scaleobs
from scaleobs._management import port, services
from support import servers


def test_port_that_was_checked_is_free_under_gevent():
    """An arbiter of gunicorn checks the port for its workers, and may not run gevent's event loop after that."""
    number = servers.free_port()
    script = f"""
import gevent.monkey
gevent.monkey.patch_all()
gevent.sleep(0)
from scaleobs._management import port
port.check_free({number})
port.listen({number})
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)

    assert (0, "") == (done.returncode, done.stderr)


@pytest.mark.parametrize("ends_by", ["close", "drop"])
def test_port_is_not_opened_after_its_service(ends_by, registry, monkeypatch):
    """A service that is closed or dropped before the process listens leaves no thread that opens the port later."""

    def app(environ, start_response):
        start_response("200 OK", [])
        return [b""]

    threads = []

    def start_thread(function):
        threads.append(threading.Thread(target=function, daemon=True))
        threads[0].start()

    monkeypatch.setattr(services, "is_listening", lambda: False)
    monkeypatch.setattr(port, "start_thread", start_thread)
    served = scaleobs.instrument(app, registry=registry, log_format="off", management_port=servers.free_port())
    is_alive = threads[0].is_alive()
    if ends_by == "close":
        scaleobs.observer_of(served)._service._management.close()
    else:
        del app, served
        gc.collect()
    threads[0].join(servers.LIMIT)

    assert (True, False) == (is_alive, threads[0].is_alive())
