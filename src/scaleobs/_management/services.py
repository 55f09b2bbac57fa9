"""The services that answer on a management port: when each begins and ends, and the requests."""

from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from time import monotonic
from typing import Any

from scaleobs._fork import Step, after_fork
from scaleobs._gevent import unpatched
from scaleobs._health import Checks
from scaleobs._http.answer import Answer
from scaleobs._http.endpoints import METHODS, Answers
from scaleobs._lifecycle import signals
from scaleobs._management import port
from scaleobs._management.messages import Request
from scaleobs._management.port import Address, Port, is_listening
from scaleobs._metrics import collectors
from scaleobs._metrics.runtime import runtime
from scaleobs._workers import find_root


class StallDetector:
    """
    Whether this worker makes progress, and for how long no worker of its group has.

    A worker with an event loop makes progress if the loop runs: asyncio's and trio's record that, gevent's runs a
    callback. A worker with threads makes progress unless each of them has been in the same request since the last
    poll. If the number of its threads is unknown, it always does.

    Args:
        requests: returns how many requests this process has begun, and ended.
    """

    def __init__(self, requests: Callable[[], tuple[float, float]]) -> None:
        self._requests = requests
        self._last_counts = (0.0, 0.0)
        self._hub: Any = None

    def find_hub(self) -> None:
        """Find gevent's event loop, if there is one; must be called on it."""
        if self._hub is None and "gevent.monkey" in sys.modules:
            hub = sys.modules["gevent"].get_hub()
            self._hub = hub if sys.modules["gevent.monkey"].is_module_patched("threading") else None

    def poll(self) -> None:
        """Record whether this worker makes progress."""
        if runtime.has_loops:
            return
        if self._hub is not None:
            self._hub.loop.run_callback_threadsafe(runtime.beat)
            return
        before, self._last_counts = self._last_counts, self._requests()
        begun, ended = self._last_counts
        threads = signals.threads()
        if not threads or begun - ended < threads or self._last_counts != before:
            runtime.beat()

    @staticmethod
    def stalled_seconds() -> float:
        """Return for how many seconds no worker has made progress; 0 while a worker is starting."""
        pulses = runtime.pulses().values()
        return monotonic() - max(pulses) if all(pulses) else 0.0


class PortServices:
    """
    The services of this process that answer on one port.

    If there are several, `/metrics` is that of the first one, and a probe fails if one of them fails.

    Args:
        address: of the port.
    """

    def __init__(self, address: Address) -> None:
        self._services: list[Management] = []
        self.detector: StallDetector | None = None
        self.port = Port(address, self.find, self.answer, on_tick=self._tick, on_error=self._fault)

    def add(self, service: Management) -> None:
        """Add a service."""
        self._services = [*(one for one in self._services if one is not service), service]
        self.detector = self.detector or StallDetector(service.requests)

    def remove(self, service: Management) -> bool:
        """Remove a service; return whether none is left."""
        self._services = [one for one in self._services if one is not service]
        return not self._services

    def find(self, request: Request) -> str | Answer:
        """Return the kind of a request: `live`, `ready`, `startup` or `metrics`; the answer if it is none."""
        endpoints = [service.answers.on_management_port for service in self._services]
        kind = next((kinds[request.path] for kinds in endpoints if request.path in kinds), None)
        if kind is None:
            return Answers.not_found(set().union(*endpoints))
        return kind if request.method in METHODS else Answers.not_allowed()

    def answer(self, kind: str, request: Request) -> Answer:
        """Return the answer to a request of a kind."""
        services = self._services[:1] if kind == "metrics" else self._services
        if not services:  # The port was closed while the request waited.
            return Answers.not_found(())
        stalled = StallDetector.stalled_seconds() if kind == "live" else 0.0

        def answer_of(service: Management) -> Answer:
            method = request.method
            report = service.checks.report(kind) if service.answers.needs_report(kind, method) else None
            return service.answers.answer(
                kind, method, request.header, query=request.query, report=report, details=True, stalled_seconds=stalled
            )

        answers = [answer_of(service) for service in services]
        return next((one for one in answers if one.status != HTTPStatus.OK), answers[0])

    def _tick(self) -> None:
        if self.detector is not None:
            self.detector.poll()
        collectors.report_hanging(self._fault)

    def _fault(self, error: Exception) -> None:
        for service in self._services[:1]:
            service.on_fault(error)


_ports: dict[Address, PortServices] = {}
_opening = threading.Lock()


class Management:
    """
    The part of one service in its management port: when it begins to answer there, and when it ends.

    It begins when the server starts the lifespan. Without a lifespan, a worker of a recognised server begins when the
    application is loaded, or when the worker is forked from a process that has loaded it. Any other process that has
    loaded an application may never serve it, so it begins when the process listens, and at the latest with the first
    request. Any thread may call any method.

    Args:
        address: of the port.
        answers: of the service.
        checks: of the service.
        requests: returns how many requests this process has begun, and ended.
        on_fault: called with a fault of scaleobs itself, which it counts and logs; never raises.

    Attributes:
        is_awaited: whether a thread waits until the process listens, and will then open the port.
    """

    def __init__(
        self,
        address: Address,
        answers: Answers,
        checks: Checks,
        *,
        requests: Callable[[], tuple[float, float]],
        on_fault: Callable[[Exception], None],
    ) -> None:
        self._address = address
        self.answers = answers
        self.checks = checks
        self.requests = requests
        self.on_fault = on_fault
        self.is_awaited = False
        self._is_open = False

    def open(self) -> None:
        """
        Answer from now on.

        Raises:
            PortError: this process has to answer, and the port can't be opened.
        """
        self.is_awaited = False
        if self._is_open:
            return
        with _opening:
            services = _ports.get(self._address) or PortServices(self._address)
            # First, since a request may come as soon as the port is open.
            services.add(self)
            if self._address not in _ports:
                services.port.open()
                _ports[self._address] = services
            self._is_open = True

    def open_safely(self) -> None:
        """Answer from now on; report an error as a fault, and never raise."""
        try:
            self.open()
        except Exception as error:
            self.on_fault(error)

    def close(self) -> None:
        """Stop; returns at once."""
        self.is_awaited = False
        if not self._is_open:
            return
        with _opening:
            self._is_open = False
            services = _ports[self._address]
            if services.remove(self):
                services.port.close()
                del _ports[self._address]

    def loaded(self, *, has_lifespan: bool) -> None:
        """
        Handle that the application is loaded.

        Raises:
            PortError: the port can't be opened, and a server without a lifespan is starting.
        """
        if _preloads():
            if not has_lifespan:
                _preloaded.add(self)
            if not os.environ.get("GUNICORN_PID"):  # After a re-exec, the old process has the port until it ends.
                port.check_free(*self._address)
        elif find_root() is not None and not has_lifespan:
            self.open()
        else:
            self.is_awaited = True
            port.start_thread(partial(_open_when_listening, weakref.ref(self)))

    def request_received(self) -> None:
        """Handle a request; never raises."""
        if not self._is_open:
            self.open_safely()
        services = _ports.get(self._address)
        if services is not None and services.detector is not None:
            services.detector.find_hub()

    def forked(self) -> None:
        """Reset in a child process, which answers if it is a worker for which its parent has loaded the application."""
        self._is_open = False
        if find_root() is not None:
            self.open_safely()


_MIN_POLL_SECONDS, _MAX_POLL_SECONDS = 0.1, 1.0


def _open_when_listening(reference: weakref.ref[Management]) -> None:
    """Open a management port once this process listens, unless the service is opened, closed or dropped before."""
    seconds = _MIN_POLL_SECONDS
    while (management := reference()) is not None and management.is_awaited:
        if is_listening() and not _is_supervisor():
            management.open_safely()
            return
        del management  # Otherwise this thread would keep the service alive.
        unpatched(time, "sleep")(seconds)
        seconds = min(1.5 * seconds, _MAX_POLL_SECONDS)


_preloaded: weakref.WeakSet[Management] = weakref.WeakSet()


def _preloads() -> bool:
    """Return whether this process loads the application for workers that it forks later."""
    uwsgi: Any = sys.modules.get("uwsgi")
    is_main = "gunicorn.arbiter" in sys.modules or (uwsgi is not None and not uwsgi.worker_id())
    return is_main and find_root() is None


_SUPERVISORS = ("uvicorn.supervisors.", "granian.server.", "hypercorn.run")


def _is_supervisor() -> bool:
    """Return whether this process only starts other processes that serve: workers, or a reloaded server."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)  # noqa: SLF001
    while frame is not None:
        # Flask's and Django's reloaders.
        if frame.f_code.co_name == "restart_with_reloader":
            return True
        if str(frame.f_globals.get("__name__", "")).startswith(_SUPERVISORS):
            return True
        frame = frame.f_back
    return False


def _forked() -> None:
    global _opening  # noqa: PLW0603 - Another thread of the parent may have held it.
    _opening = threading.Lock()
    for services in _ports.values():
        services.port.forked()
    _ports.clear()
    port.forked()
    for management in list(_preloaded):
        management.forked()


after_fork(Step.MANAGEMENT, _forked)
