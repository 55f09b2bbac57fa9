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
from support.management import exchange, status_of


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


def test_management_host(manage):
    """The port is open on the address that is given, and on no other one."""
    port, _ = manage(management_host="127.0.0.2")

    assert 200 == status_of(exchange(port, b"GET /health HTTP/1.0\r\n\r\n", host="127.0.0.2"))
    with pytest.raises(ConnectionRefusedError):
        exchange(port, b"GET /health HTTP/1.0\r\n\r\n")


def test_management_host_of_another_machine(manage, caplog):
    """The error has the host and the fix."""
    manage(management_host="192.0.2.1")
    text = str(caplog.records[0].exc_info[1])

    assert "can't be opened on '192.0.2.1': " in text
    assert text.endswith("Give an address of this machine by management_host or SCALEOBS_MANAGEMENT_HOST.")


def test_port_that_is_closed_while_its_thread_ends(registry, monkeypatch):
    """
    A service closes its port before the thread of the port may close the socket.

    The number of the socket may belong to another one by then, and an error would reach the application.
    """
    stop_listening = port._stop_listening
    ticked = threading.Event()

    def stop_late(descriptor):
        ticked.clear()
        ticked.wait(servers.LIMIT)
        stop_listening(descriptor)

    monkeypatch.setattr(port, "_stop_listening", stop_late)
    monkeypatch.setattr(port, "_POLL_SECONDS", 0.01)
    faults = []
    address = port.Address(servers.free_port(), "127.0.0.1")
    one = port.Port(address, lambda _: "live", lambda *_: None, on_tick=ticked.set, on_error=faults.append)
    one.open()
    one.close()

    assert [] == faults
