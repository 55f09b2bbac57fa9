"""Observer: what one service is observed by, built once from its settings."""

from __future__ import annotations

import contextlib
import importlib.metadata
import re
import secrets
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, TypeVar, Unpack

from scaleobs import logs, tracing
from scaleobs.answers import Answer, Answers
from scaleobs.exchange import Recorder
from scaleobs.health import Check, CheckFunction, Checks, Probe, Report, Result
from scaleobs.lifecycle import Lifecycle
from scaleobs.metrics import registry
from scaleobs.objectives import Latency
from scaleobs.settings import Arguments, Settings

_Function = TypeVar("_Function", bound=CheckFunction)
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)


class Observer:
    """
    What one service is observed by: its checks, its state, its metrics and its log.

    `instrument` builds one; `observer_of(app)` returns it.

    Args:
        settings: the arguments of `instrument`; see `scaleobs.settings.Settings`.

    Raises:
        SettingsError: a setting is unknown or has a value that can't be used.
        ValueError: the registry holds another library's metric of the same name.
    """

    def __init__(self, **settings: Unpack[Arguments]) -> None:
        self.settings = Settings.read(settings)
        self.lifecycle = Lifecycle(manual_start=self.settings.manual_start)
        self._registry, self.storage = registry.attach(self.settings.registry)
        self.storage.add_bounds(
            objective.under for objective in self.settings.objectives if isinstance(objective, Latency)
        )
        self.answers = Answers(self.settings, self.lifecycle, self._registry)
        self._configure_logging()
        self._logger = logs.own_logger()
        self.recorder = Recorder(self.storage, self._logger)
        self.checks = Checks(self._check_changed)
        self.storage.sources.add(self)
        self.app: Any = None
        self.served: Any = None

    def check(self, name: str, *, probe: Probe = "ready", timeout: float = 1.0) -> Callable[[_Function], _Function]:
        """
        Register the decorated function, sync or async, as a check of a probe.

        The check passes by returning `None`, `True`, or a mapping that the probe then shows as its data. It
        fails by raising (`CheckFailed` where a reason is enough), by returning `False`, or by taking longer
        than its timeout. All checks of a probe run side by side; a check has one run at a time, so one that
        hangs costs one thread, however often it is asked. Async checks run on the application's event loop
        under ASGI.

        Args:
            name: what the probe calls it.
            probe: `ready` or `startup`. Liveness has no checks: failing it restarts the container, which
                heals no dependency.
            timeout: in seconds.

        Raises:
            ValueError: the name is taken, or a value can't be used.
        """

        def register(function: _Function) -> _Function:
            self.checks.add(Check(name, probe, function, timeout))
            return function

        return register

    def started(self) -> None:
        """End start-up, for an application that was instrumented with `manual_start=True`."""
        self.lifecycle.started()

    def is_ready(self) -> bool:
        """Return whether the readiness probe would answer 200, by the last results of its checks; asks none."""
        return self.lifecycle.is_ready and self.checks.all_up("ready")

    def is_served(self) -> bool:
        """Return whether a server has begun to serve the application, as far as it shows."""
        return self.lifecycle.state != "new"

    def info(self) -> tuple[str, ...]:
        """Return the label values of `service_info`."""
        mine = self.settings
        return (mine.service, mine.version, mine.environment, importlib.metadata.version("scaleobs"))

    def request_context(self, request_id: str, traceparent: str) -> dict[str, str]:
        """Return what identifies a request in the log: the client's id where it is a plain one, otherwise a new one."""
        context = {"request_id": request_id if _REQUEST_ID.fullmatch(request_id) else secrets.token_hex(16)}
        parent = tracing.parse_traceparent(traceparent) if traceparent else None
        if parent is not None:
            context["trace_id"], context["span_id"] = parent
        return context

    def begin_starting(self) -> None:
        """Take the server's loggers again: it may have configured them after `instrument` did."""
        self.lifecycle.lifespan_begun()
        logs.take_server_loggers()

    def request_seen(self) -> None:
        """Note a request; where the server opened no lifespan, the first one does what that would have done."""
        if self.lifecycle.state == "new":
            logs.take_server_loggers()
            self.lifecycle.request_seen()

    def metrics(self, *, accept: str, accept_encoding: str, query: str) -> Answer:
        """Return what a scrape reads; a 500 and a fault in the log where a metric of the user's raises."""
        try:
            return self.answers.metrics(accept=accept, accept_encoding=accept_encoding, query=query)
        except Exception as error:
            self.recorder.fault(error)
            return self.answers.broken()

    def probe(self, kind: str, report: Report) -> Answer:
        """Return what a probe answers, and log it where it says no."""
        try:
            answer = self.answers.probe(kind, report)
        except Exception as error:
            self.recorder.fault(error)
            return self.answers.broken()
        if answer.status != HTTPStatus.OK:
            down = [name for name, result in report.checks if not result.is_up]
            with contextlib.suppress(Exception):
                self._logger.warning(
                    "probe.failed",
                    probe=kind,
                    status_code=answer.status,
                    state=self.lifecycle.state,
                    checks_down=down,
                )
        return answer

    def _configure_logging(self) -> None:
        mine = self.settings
        if mine.log_format == "auto" and logs.is_configured():
            return
        logs.configure_logging(
            service=mine.service, version=mine.version, log_format=mine.log_format, log_level=mine.log_level
        )

    def _check_changed(self, check: Check, result: Result) -> None:
        with contextlib.suppress(Exception):
            if result.is_up:
                self._logger.info("check.recovered", check=check.name, probe=check.probe)
            else:
                self._logger.warning("check.failed", check=check.name, probe=check.probe, reason=result.reason)
