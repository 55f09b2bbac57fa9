"""Which services of this process answer on which port, and from when on."""

from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from collections.abc import Callable
from email.message import Message
from http import HTTPStatus
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

from scaleobs._fork import Step, after_fork
from scaleobs._health import Checks
from scaleobs._http.endpoints import Answer, Answers, Header
from scaleobs._lifecycle import signals
from scaleobs._management import listening, port
from scaleobs._management.port import Port
from scaleobs._metrics.runtime import runtime
from scaleobs._workers import find_root


class StallDetector:
    """
    Whether this worker goes on, and for how long none of its group has.

    A worker with an event loop goes on as long as that runs: asyncio's tells so itself, gevent's is asked. One with
    threads does so unless each of them is in the same request as at the last look. Where it isn't known how many
    threads there are, it goes on.

    Args:
        requests: returns how many requests this process has begun, and ended.
    """

    def __init__(self, requests: Callable[[], tuple[float, float]]) -> None:
        self._requests = requests
        self._seen = (0.0, 0.0)
        self._hub: Any = None

    def note_hub(self) -> None:
        """Note gevent's event loop, where there is one; to be called by what it runs."""
        if self._hub is None and "gevent.monkey" in sys.modules:
            hub = sys.modules["gevent"].get_hub()
            self._hub = hub if sys.modules["gevent.monkey"].is_module_patched("threading") else None

    def look(self) -> None:
        """Note whether this worker goes on."""
        if runtime.has_loops:
            return
        if self._hub is not None:
            self._hub.loop.run_callback_threadsafe(runtime.beat)
            return
        before, self._seen = self._seen, self._requests()
        begun, ended = self._seen
        threads = signals.threads()
        if not threads or begun - ended < threads or self._seen != before:
            runtime.beat()

    @staticmethod
    def stalled_seconds() -> float:
        """Return for how many seconds no worker has gone on; 0 as long as one is starting."""
        pulses = runtime.pulses().values()
        return monotonic() - max(pulses) if all(pulses) else 0.0


_SOONEST, _LATEST = 0.1, 1.0
"""Seconds between two looks whether a process that has loaded an application serves it."""

_SUPERVISORS = ("uvicorn.supervisors.", "granian.server.", "hypercorn.run")

_ports: dict[int, Services] = {}
_opening = threading.Lock()


class Services:
    """
    The services of this process that answer on one port.

    Where there are several, their metrics are those of the first one, and a probe says no where one of them does.
    """

    def __init__(self, number: int) -> None:
        self._all: list[Management] = []
        self.detector: StallDetector | None = None
        self.port = Port(number, self._answer, self._tick, self._failed)

    def add(self, service: Management) -> None:
        """Answer for a service, too."""
        self._all = [*(one for one in self._all if one is not service), service]
        self.detector = self.detector or StallDetector(service.requests)

    def remove(self, service: Management) -> bool:
        """Answer for it no more, and return whether none is left."""
        self._all = [one for one in self._all if one is not service]
        return not self._all

    def _answer(self, method: str, target: str, headers: Message) -> Answer:
        path, query = urlsplit(target)[2:4]
        services = self._all
        known = {path: kind for one in reversed(services) for path, kind in one.answers.on_management_port.items()}
        kind = known.get(path)
        if kind is None:
            return Answers.not_found(known)
        if kind == "metrics":
            services = services[:1]
        stalled = StallDetector.stalled_seconds() if kind == "live" else 0.0

        def answer_of(service: Management) -> Answer:
            report = service.checks.report(kind) if service.answers.needs_report(kind, method) else None
            return service.answers.answer(
                kind, method, _reader(headers), query=query, report=report, details=True, stalled_seconds=stalled
            )

        answers = [answer_of(service) for service in services]
        return next((one for one in answers if one.status != HTTPStatus.OK), answers[0])

    def _tick(self) -> None:
        if self.detector is not None:
            self.detector.look()

    def _failed(self, error: Exception) -> None:
        for service in self._all[:1]:
            service.on_fault(error)


def _reader(headers: Message) -> Header:
    return lambda name: str(headers.get(name, ""))


class Management:
    """
    When one service begins to answer on its management port, and when it ends.

    It begins when the server starts the lifespan; in a worker that has no lifespan when the application is loaded, or
    forked where that came before; elsewhere, as nobody can know whether an application that is loaded will be served,
    when the process listens anywhere, at the latest with the first request.

    Args:
        number: its port.
        answers: its answers.
        checks: its checks.
        requests: returns how many requests this process has begun, and ended.
        on_fault: called with a fault of scaleobs itself, which it counts and logs; never raises.
    """

    def __init__(
        self,
        number: int,
        answers: Answers,
        checks: Checks,
        *,
        requests: Callable[[], tuple[float, float]],
        on_fault: Callable[[Exception], None],
    ) -> None:
        self._number = number
        self.answers = answers
        self.checks = checks
        self.requests = requests
        self.on_fault = on_fault
        self._is_open = False

    def open(self) -> None:
        """
        Answer from now on.

        Raises:
            PortError: it is this process that has to answer, and the port can't be opened.
        """
        if self._is_open:
            return
        with _opening:
            there = _ports.get(self._number) or Services(self._number)
            # First, as whoever asks as soon as the port is open has to find it.
            there.add(self)
            if self._number not in _ports:
                there.port.open()
                _ports[self._number] = there
            self._is_open = True

    def close(self) -> None:
        """Answer no more; returns at once."""
        if not self._is_open:
            return
        with _opening:
            self._is_open = False
            there = _ports[self._number]
            if there.remove(self):
                there.port.close()
                del _ports[self._number]

    def loaded(self, *, has_lifespan: bool) -> None:
        """
        Note that the application is loaded.

        Raises:
            PortError: the port can't be opened, and a server is starting that has no lifespan to say so.
        """
        if _preloads():
            if not has_lifespan:
                _preloaded.add(self)
            if not os.environ.get("GUNICORN_PID"):  # The one before this one has it until it ends.
                port.check_free(self._number)
        elif find_root() is not None and not has_lifespan:
            self.open()
        else:
            port.start_thread(self._open_when_served)

    def seen(self) -> None:
        """Note a request, and never raise."""
        if not self._is_open:
            self._try()
        there = _ports.get(self._number)
        if there is not None and there.detector is not None:
            there.detector.note_hub()

    def forked(self) -> None:
        """Begin anew in a child process, which answers where it is a worker that its parent has loaded this for."""
        self._is_open = False
        if find_root() is not None:
            self._try()

    def _try(self) -> None:
        try:
            self.open()
        except Exception as error:
            self.on_fault(error)

    def _open_when_served(self) -> None:
        every = _SOONEST
        while not self._is_open and not (listening.is_server() and not _is_supervisor()):
            time.sleep(every)
            every = min(1.5 * every, _LATEST)
        self.seen()


_preloaded: weakref.WeakSet[Management] = weakref.WeakSet()


def _preloads() -> bool:
    """Return whether this process loads the application for workers that it forks later."""
    uwsgi: Any = sys.modules.get("uwsgi")
    is_main = "gunicorn.arbiter" in sys.modules or (uwsgi is not None and not uwsgi.worker_id())
    return is_main and find_root() is None


def _is_supervisor() -> bool:
    """Return whether this process only starts those that serve: workers, or anew whenever code changes."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)  # noqa: SLF001
    while frame is not None:
        # Flask's way and Django's.
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
