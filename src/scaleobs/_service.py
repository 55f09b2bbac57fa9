"""One instrumented service: its parts, and its four events."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from functools import partial
from typing import Any, Literal

import structlog

from scaleobs import _tracing, logs
from scaleobs._health import Checks
from scaleobs._health.check import LastRun, write_event
from scaleobs._http.endpoints import Answers
from scaleobs._http.exchange import SLOW_SECONDS, AccessLog
from scaleobs._http.recorder import Recorder
from scaleobs._http.reports import Reports
from scaleobs._http.request_ids import reads_request_ids
from scaleobs._http.shadowed import fix_of, shadowed
from scaleobs._lifecycle import ServiceDrain
from scaleobs._lifecycle import Stage as DrainStage
from scaleobs._lifecycle.state import Lifecycle, StartupTasks
from scaleobs._management import Address, Management
from scaleobs._metrics import families
from scaleobs._metrics.child import Source
from scaleobs._routes import dispatched, routes_of
from scaleobs._tracing.export import Export, is_requested
from scaleobs.logs._configure import configure_for, is_configured, leave_alone, own_logger, take_loggers
from scaleobs.logs._context import RequestIds
from scaleobs.objectives import Latency
from scaleobs.settings import Settings

LifespanStage = Literal["opened", "started", "failed", "stopping", "stopped", "left"]


class _Service:
    """
    The composition root of one instrumented service.

    Its parts do not refer to each other: four events, `on_loaded`, `on_lifespan`, `on_first_traffic` and `on_drain`,
    call them in order. `choose_path` is called for single requests.

    Args:
        settings: how the service is observed.

    Attributes:
        app: the application that was instrumented, if it is known: its routes may not be in the callable that a
            middleware wraps.
        served: the return value of `instrument`.

    Raises:
        ValueError: the registry holds another library's metric of the same name.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.app: Any = None
        self.served: Any = None
        self._info: tuple[str, ...] = ()
        self._processors: Any = None
        self._recorders: list[Recorder] = []
        self._dispatched: set[str] = set()
        latencies = [one.under for one in settings.objectives if isinstance(one, Latency)]
        metrics, self.storage = families.attach(settings.registry)
        self.storage.merge_options(
            bounds=latencies,
            limit=settings.max_label_sets,
            is_native=settings.native_histograms,
            has_sizes=settings.size_histograms,
        )
        if settings.log_format == "auto" and is_configured():
            leave_alone()
        elif settings.log_format != "off":
            configure_for(settings)
        self._traces = Export(settings, _write, self.fault) if is_requested() else None
        logger = own_logger()
        self.log = AccessLog(
            logger,
            writes_lines=settings.log_format != "off",
            levels=settings.access_levels,
            sample=settings.access_sample,
            slow_seconds=min(latencies, default=SLOW_SECONDS),
        )
        self.reports = Reports(logger)
        self.ids = RequestIds(
            settings.request_id_header, settings.request_id_generator, settings.request_id_validator, self.fault
        )
        self.checks = Checks(partial(write_event, logger), logs.Redact(settings.log_redact))
        for check in settings.checks:
            self.checks.add(check)
        self.drain = ServiceDrain(settings.drain_seconds, _write, self.on_drain)
        self.lifecycle = Lifecycle(manual_start=settings.manual_start, is_draining=self.drain.is_group_draining)
        self.startup_tasks = StartupTasks(self.lifecycle, _write_task_failed)
        self.answers = Answers(settings, self.lifecycle, self.checks, metrics, warn=logger.warning, on_fault=self.fault)
        # The storage refers to it weakly: the page omits a service that was dropped.
        self._source = Source(
            info=self._read_info,
            is_served=self.is_served,
            is_ready=self.is_ready,
            last_runs=self._last_runs,
            known_routes=self._refresh_routes,
            on_fault=self.fault,
            on_memory_changed=self._switch_memory,
            is_over=lambda: self.lifecycle.is_over,
        )
        self.storage.sources.add(self._source)
        self.storage.disable_fast_path()
        self._process = os.getpid(), os.geteuid()
        families.follow_forks()
        families.join_workers()
        self._management: Management | None = None
        if settings.management_port is not None:
            self._management = Management(
                Address(settings.management_port, settings.management_host),
                self.answers,
                self.checks,
                requests=self.storage.begun_and_ended,
                on_fault=self.fault,
            )

    def on_loaded(self, *, has_lifespan: bool) -> None:
        """
        Handle that the application is loaded, maybe in a process that only forks workers.

        Args:
            has_lifespan: whether the protocol has one, by which the server reports the start.

        Raises:
            PortError: the management port can't be opened.
        """
        if not has_lifespan:  # Its import was its start, unless `started()` must be called.
            self.lifecycle.lifespan_started()
            self.drain.loaded()
        if self._management is not None:
            self._management.loaded(has_lifespan=has_lifespan)

    def on_lifespan(self, stage: LifespanStage) -> None:
        """
        Handle a stage of the ASGI lifespan. Test clients open it several times.

        Args:
            stage: `opened` before the application is called; `started` or `failed`, its answer; `stopping`, the
                server's request to shut down; `stopped`, the application's answer; `left` when the application has
                returned or raised, which one without a lifespan does at once.

        Raises:
            PortError: the stage is `opened`, and the management port can't be opened.
        """
        if stage == "opened":
            families.join_workers()
            self.lifecycle.lifespan_begun()
            self.checks.note_loop()
            take_loggers()  # The server may have configured them after `instrument` did.
            self.ids.is_passed_on |= reads_request_ids(self.app)  # Middlewares may have been added.
            self.drain.serving()
            if self._management is not None:
                self._management.open()
        elif stage == "started":
            families.join_workers()  # The application may have changed the user of the process since.
            self.lifecycle.lifespan_started()
            self.drain.serving()  # The application may have installed signal handlers since.
            self._report_shadowed()
            self.startup_tasks.begin()
            if self._traces is not None:
                self._traces.begin()
            self.storage.disable_fast_path()  # The application may have set a tracer provider since.
        elif stage == "failed":
            self.lifecycle.lifespan_failed()
        elif stage == "stopping":
            self.lifecycle.lifespan_stopping()
            self.drain.stopping()
        elif stage == "stopped":
            if self._traces is not None:
                self._traces.flush()  # Some servers end their process by a signal right after.
        else:
            self.lifecycle.lifespan_exited()
            # Not if the application has no lifespan.
            if self.lifecycle.state == "stopping" and self._management is not None:
                self._management.close()

    def on_first_traffic(self) -> None:
        """
        Handle a request or probe that does not take the fast path; never raises.

        The first one shows that this process serves, and replaces a missing lifespan. The others cost comparisons.
        """
        if not self.checks.is_serving:
            self.checks.serve()
            take_loggers()  # A module may have configured one after `instrument`.
        if self._traces is not None:
            self._traces.begin()
        if self.storage.fast_path[0] and self._is_configuration_changed():
            self.storage.disable_fast_path()
        if self._process != (os.getpid(), os.geteuid()):
            # Not noticed by a hook: uWSGI forks in C, and the application may change its user at any time.
            self._process = os.getpid(), os.geteuid()
            families.follow_process()
            self.drain.serving()  # Its slot is in the ledger.
        if self.lifecycle.state == "new":
            families.join_workers()
            self.lifecycle.request_received()
        if self._management is not None:
            self._management.request_received()
        if not self.drain.is_installed:
            self.drain.serving()
        if self.lifecycle.state == "ready" and not self.startup_tasks.is_begun:
            self._report_shadowed()
            self.startup_tasks.begin()

    def on_drain(self, stage: DrainStage) -> None:
        """
        Handle a stage of the drain of this process, on a thread of its own.

        Args:
            stage: `begun` before the hooks of the drain are run; `ended` before the server receives the signal.
        """
        if stage == "begun":
            self.storage.fast_path[0] = False  # From here on responses close their connection.
        elif self._traces is not None:
            self._traces.flush()

    def choose_path(self, traceparent: str) -> None:
        """
        Decide by one request to the application whether the next ones take the fast path; never raises.

        Args:
            traceparent: the `traceparent` header of the request.
        """
        self._processors = structlog.get_config()["processors"]
        self.log.renew_writer()
        storage = self.storage
        is_traced = False
        try:
            is_traced = _tracing.is_configured()
            if storage.awaits_trace and (
                storage.traces_seen or is_traced or _tracing.parse_traceparent(traceparent) is not None
            ):
                storage.enable_exemplars()
        except Exception as error:  # OpenTelemetry can't load the provider of its settings.
            self.fault(error)
        # The next requests are like this one, unless another middleware counts in the same storage.
        storage.fast_path[0] = (
            not is_traced
            and len(storage.sources) == 1
            and len(self._recorders) == 1
            and not self.drain.is_begun
            and self.drain.is_installed
            and not storage.needs_observe
        )
        if storage.awaits_trace:
            storage.examine_next_requests()

    def _is_configuration_changed(self) -> bool:
        """Return whether the application has configured logging or OpenTelemetry since a path was chosen."""
        if structlog.get_config()["processors"] is not self._processors:
            return True
        with contextlib.suppress(Exception):  # `choose_path` finds and logs the same.
            return _tracing.is_configured()
        return False

    def recorder_for(self, app: Any, *, method: str) -> Recorder:
        """
        Return a recorder of the requests to an application.

        Args:
            app: the callable that the middleware wraps; routes are those of the instrumented application, if it is
                known.
            method: the key of a request's method in the scope or environ.
        """
        whole = app if self.app is None else self.app
        self.ids.is_passed_on |= reads_request_ids(whole)
        routes = routes_of(whole, self.settings.route, served=app, is_asgi=method == "method")
        recorder = Recorder(
            self.storage,
            routes,
            log=self.log,
            reports=self.reports,
            ids=self.ids,
            method=method,
            spans=_tracing.Spans(app),
        )
        self._recorders.append(recorder)
        self._dispatched.update(dispatched(app))
        self.storage.has_iterables = self.storage.has_iterables or method == "REQUEST_METHOD"
        self.storage.disable_fast_path()
        return recorder

    def fault(self, error: Exception) -> None:
        """Count a fault of scaleobs itself, and log it once; never raises."""
        self.storage.fault()
        self.reports.fault(error)

    def is_served(self) -> bool:
        """Return whether a server has begun to serve the application: a lifespan or a request has come."""
        return self.lifecycle.state != "new"

    def is_ready(self) -> bool:
        """Return whether the readiness probe would answer 200, by the last results of its checks; runs none."""
        return self.lifecycle.is_ready and self.checks.all_up("startup") and self.checks.all_up("ready")

    def _last_runs(self) -> Iterator[LastRun]:
        """Yield the result of the last run of each check, and whether start-up is over, as in `/startup`; runs none."""
        # With `manual_start`, only the checks show that requests come before `started()` is called.
        if self.is_served() or self.checks.is_serving:
            yield LastRun("startup", "lifecycle", is_up=self.lifecycle.is_started, seconds=0.0)
        yield from self.checks.last_runs()

    def _read_info(self) -> tuple[str, ...]:
        """Return the label values of `service_info`."""
        if not self._info:
            # Not in `__init__`: it takes a tenth of the time of the first `instrument`.
            from importlib.metadata import version

            settings = self.settings
            self._info = (settings.service, settings.version, settings.environment, version("scaleobs"))
        return self._info

    def _refresh_routes(self) -> Iterator[tuple[str, str]]:
        """Yield each method and route template of the application."""
        for recorder in self._recorders:
            try:
                yield from recorder.refresh_routes()
            except Exception as error:
                self.fault(error)

    def _report_shadowed(self) -> None:
        """Log, once, which routes of the application receive no requests, since an endpoint has their path."""
        try:
            own = {template for _, template in self._refresh_routes()} | self._dispatched
            paths = shadowed(self.answers.endpoints, own) if own else []
            if paths:
                self.reports.routes_shadowed(paths, fix_of(paths, self.settings))
        except Exception as error:
            self.fault(error)

    def _switch_memory(self) -> None:
        for recorder in self._recorders:
            recorder.on_memory_changed()


def _write(level: str, event: str, **fields: Any) -> None:
    """Write a log line; never raises."""
    with contextlib.suppress(Exception):
        getattr(own_logger(), level)(event, **fields)


def _write_task_failed(name: str, error: BaseException) -> None:
    _write("warning", "startup.task_failed", task=name, exc_info=error)
