"""Observer: what one service is observed by, built once from its settings."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar, Unpack

from scaleobs import logs, tracing
from scaleobs.accesslog import SLOW_SECONDS, AccessLog
from scaleobs.answers import Answers
from scaleobs.health import Check, CheckFunction, Checks, Options, events
from scaleobs.health.results import LastRun
from scaleobs.life import Life
from scaleobs.management import Management
from scaleobs.metrics import registry
from scaleobs.objectives import Latency
from scaleobs.recorder import Recorder
from scaleobs.routes import routes_of
from scaleobs.settings import Arguments, Settings
from scaleobs.tracing.export import Export

_Function = TypeVar("_Function", bound=CheckFunction)


class Observer(Life):
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
        mine = self.settings
        self._info: tuple[str, ...] = ()
        super().__init__(mine)
        self._registry, self.storage = registry.attach(self.settings.registry)
        self.storage.widen(
            bounds=[one.under for one in self.settings.objectives if isinstance(one, Latency)],
            limit=self.settings.max_label_sets,
            is_native=self.settings.native_histograms,
            has_sizes=self.settings.size_histograms,
        )
        self._configure_logging()
        self._traces = Export(mine, self._tell, self.fault)
        self._logger = logs.own_logger()
        self._log = AccessLog(
            self._logger,
            writes_lines=mine.log_format != "off",
            levels=mine.access_levels,
            sample=mine.access_sample,
            slow_seconds=min((one.under for one in mine.objectives if isinstance(one, Latency)), default=SLOW_SECONDS),
        )
        self._recorders: list[Recorder] = []
        self.checks = Checks(partial(events.write, self._logger))
        for check in mine.checks:
            self.checks.add(check)
        self.answers = Answers(
            mine, self.lifecycle, self.checks, self._registry, warn=self._logger.warning, on_fault=self.fault
        )
        self.drain.on_begin = self._drain_begun
        self.drain.on_end = self._traces.flush
        self.storage.sources.add(self)
        self.storage.look_again()
        registry.join_workers()
        self.management = Management(self, mine.management_port)
        self.app: Any = None
        self.served: Any = None

    def check(self, name: str, **options: Unpack[Options]) -> Callable[[_Function], _Function]:
        """
        Register the decorated function, sync or async, as a check of a probe.

        Args:
            name: what the probe calls it.
            options: when it is run and what its failure means; see `scaleobs.Check`.

        Raises:
            ValueError: the name is taken, or a value can't be used.
        """

        def register(function: _Function) -> _Function:
            self.checks.add(Check(name, function, **options))
            return function

        return register

    def is_ready(self) -> bool:
        """Return whether the readiness probe would answer 200, by the last results of its checks; asks none."""
        return self.lifecycle.is_ready and self.checks.all_up("startup") and self.checks.all_up("ready")

    def last_runs(self) -> Iterator[LastRun]:
        """Yield how the last run of each check went, and whether start-up is over, as /startup shows it; runs none."""
        # Before `started()` has been called, where that is awaited, only the checks know that requests come.
        if self.is_served() or self.checks.is_serving:
            yield LastRun("startup", "lifecycle", is_up=self.lifecycle.is_started, seconds=0.0)
        yield from self.checks.last_runs()

    def requests(self) -> tuple[float, float]:
        """Return how many requests this process has begun, and ended."""
        return self.storage.progress()

    def info(self) -> tuple[str, ...]:
        """Return the label values of `service_info`."""
        if not self._info:
            # It takes a tenth of the time of the first `instrument`, and a scrape is the first to ask.
            from importlib.metadata import version

            mine = self.settings
            self._info = (mine.service, mine.version, mine.environment, version("scaleobs"))
        return self._info

    def recorder_for(self, app: Any, *, method: str) -> Recorder:
        """
        Return what hears of every request to an application.

        Args:
            app: what the middleware was put around; the application that was instrumented tells more, where known.
            method: the key of a request's method in the scope or environ.
        """
        routes = routes_of(app if self.app is None else self.app, self.settings.route)
        recorder = Recorder(self.storage, routes, self._log, method, tracing.Spans(app))
        self._recorders.append(recorder)
        self.storage.look_again()
        return recorder

    def moved(self) -> None:
        """Hear that the storage counts in other memory than before."""
        for recorder in self._recorders:
            recorder.on_moved()

    def known_routes(self) -> Iterator[tuple[str, str]]:
        """Yield every method and route template that the application can answer."""
        for recorder in self._recorders:
            try:
                yield from recorder.known_routes()
            except Exception as error:
                self.fault(error)

    def fault(self, error: Exception) -> None:
        """Count a fault of scaleobs itself and write it once, and never raise."""
        self.storage.fault()
        self._log.fault(error)

    def begin_starting(self) -> None:
        """
        Note that the server opens a lifespan. It may have configured its loggers after `instrument` did.

        Raises:
            PortError: the management port can't be opened.
        """
        registry.join_workers()
        self.lifecycle.lifespan_begun()
        self.checks.note_loop()
        logs.take_server_loggers()
        self.drain.serving()
        self.management.open()

    def lifespan_started(self) -> None:
        """Note that the application's lifespan has completed its start-up, in which it may have set a provider."""
        super().lifespan_started()
        self._traces.begin()
        self.storage.look_again()

    def lifespan_stopped(self) -> None:
        """Note that the application's lifespan is over: some servers end their process by a signal right after."""
        self._traces.flush()

    def served_seen(self) -> None:
        """Note that a server serves; where it opened no lifespan, do what that would have done."""
        self._log.look()
        if not self.checks.is_serving:
            self.checks.serve()
        self._traces.begin()
        with contextlib.suppress(Exception):  # Requests find the same, and say so.
            if self.storage.plain[0] and tracing.is_configured():
                self.storage.look_again()
        if self.lifecycle.state == "new":
            registry.join_workers()
            logs.take_server_loggers()
            self.lifecycle.request_seen()
        self.management.seen()
        self._request_served()

    def request_seen(self, traceparent: str) -> None:
        """
        Find out from a request to the application what others like it want, and never raise.

        Args:
            traceparent: what the client sent of it.
        """
        storage = self.storage
        is_traced = False
        try:
            is_traced = tracing.is_configured()
            if storage.wants_exemplars and (is_traced or tracing.parse_traceparent(traceparent)):
                storage.keep_exemplars()
        except Exception as error:  # OpenTelemetry can't load the provider that its settings name.
            self.fault(error)
        # From here on a request is one like this, unless another middleware counts in the same place.
        storage.plain[0] = (
            not is_traced
            and len(storage.sources) == 1
            and len(self._recorders) == 1
            and not self.drain.is_begun
            and self.drain.is_noted
            and storage.has_looked()
        )

    def _configure_logging(self) -> None:
        mine = self.settings
        if mine.log_format == "off" or (mine.log_format == "auto" and logs.is_configured()):
            return
        logs.configure_for(mine)

    def _drain_begun(self) -> None:
        # From here on answers say that their connection closes.
        self.storage.plain[0] = False
