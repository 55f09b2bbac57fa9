"""
The exporter that OpenTelemetry's own variables ask for, where the application has set no provider.

It is made in each process that serves, when that begins, and never in one that only forks others: its thread wouldn't
come along. Without an endpoint nothing of this is loaded.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import os
import threading
from collections.abc import Callable, Mapping
from typing import Any

from scaleobs._fork import Step, after_fork
from scaleobs.settings import Settings
from scaleobs.tracing.current import is_configured

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_EXPORTERS = {"grpc": "opentelemetry.exporter.otlp.proto.grpc.trace_exporter"}
_BY_HTTP = "opentelemetry.exporter.otlp.proto.http.trace_exporter"

_LIMIT_SECONDS = 2.0
"""For how long the end of a process waits for a collector that doesn't answer."""

_setting_up = threading.Lock()
_looked_in = 0
_processor: Any = None
_last: _Last | None = None


class Export:
    """
    Exports the traces of one service, where that is wanted and the application doesn't.

    What it needs is loaded now, which takes a third of a second where an endpoint is named; what runs begins later.

    Args:
        settings: say who this is.
        write: writes a log line; takes its level, its event and what it is about.
        on_fault: called with what went wrong.
    """

    def __init__(self, settings: Settings, write: Callable[..., None], on_fault: Callable[[Exception], None]) -> None:
        self._on_fault = on_fault
        self._resource = {
            "service.name": settings.service,
            "service.version": settings.version,
            "deployment.environment.name": settings.environment,
        }
        if is_wanted():
            try:
                _load()
            except ImportError as error:
                fix = "pip install 'scaleobs[otel]', or take OTEL_EXPORTER_OTLP_ENDPOINT out of the environment"
                write("warning", "traces.not_exported", reason=str(error), fix=fix)

    def begin(self) -> None:
        """Set a provider that exports in batches, once in a process, unless the application has; never raises."""
        global _looked_in  # noqa: PLW0603 - A process has one provider.
        if _looked_in == os.getpid():
            return
        with _setting_up:
            if _looked_in != os.getpid():
                _looked_in = os.getpid()
                try:
                    if is_wanted() and not is_configured():
                        _set_provider(self._resource)
                except ImportError:  # It was logged.
                    return
                except Exception as error:
                    self._on_fault(error)

    @staticmethod
    def flush() -> None:
        """Send what is waiting, if that takes no more than two seconds; for the end of a process."""
        if _processor is not None:
            _within_limit(_processor.force_flush)


def is_wanted() -> bool:
    """Return whether the environment names an endpoint for traces, and nothing there turns them off."""
    return (
        any(os.environ.get(name) for name in _ENDPOINTS)
        and os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() != "true"
        and "otlp" in os.environ.get("OTEL_TRACES_EXPORTER", "otlp")
    )


def _load() -> None:
    # The first one first, or a child that the application forks may hang: hooks of fork run in the order of their
    # registration, and one of OpenTelemetry's submits to a pool whose lock this module's sets free.
    for name in ("concurrent.futures.thread", "opentelemetry.sdk.trace.export", _exporter()):
        importlib.import_module(name)


def _set_provider(resource: Mapping[str, str]) -> None:
    global _processor, _last  # noqa: PLW0603
    _load()
    from opentelemetry import trace
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create(dict(resource)), shutdown_on_exit=False)
    exporter = importlib.import_module(_exporter()).OTLPSpanExporter()
    processor = BatchSpanProcessor(exporter)
    provider.add_span_processor(processor)
    trace.set_tracer_provider(provider)
    if trace.get_tracer_provider() is provider:
        _processor = processor
        _last = _Last(processor.shutdown)
        atexit.register(_at_exit)
    else:  # The application has set one meanwhile.
        _within_limit(processor.shutdown)


def _exporter() -> str:
    protocol = next((os.environ[name] for name in _PROTOCOLS if os.environ.get(name)), "")
    return _EXPORTERS.get(protocol.strip(), _BY_HTTP)


class _Last:
    """A thread that waits for the end of the process, at which Python 3.12 begins no new one (cpython#104690)."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function
        self._is_wanted, self._is_done = threading.Event(), threading.Event()
        threading.Thread(target=self._wait, name="scaleobs-traces", daemon=True).start()

    def _wait(self) -> None:
        self._is_wanted.wait()
        self.function()
        self._is_done.set()

    def run(self) -> None:
        """Have the thread do what it is for, and wait for that, if it takes no more than two seconds."""
        self._is_wanted.set()
        self._is_done.wait(_LIMIT_SECONDS)


def _at_exit() -> None:
    if _last is not None:
        _last.run()


def _within_limit(function: Callable[[], Any]) -> None:
    thread = threading.Thread(target=function, name="scaleobs-flush", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # No more threads: a span or two aren't worth a process that doesn't end.
        return
    thread.join(_LIMIT_SECONDS)


def _forked() -> None:
    global _setting_up, _last  # noqa: PLW0603
    # Another thread of the parent may have held it.
    _setting_up = threading.Lock()
    if _last is not None:
        last, _last = _last.function, None
        with contextlib.suppress(RuntimeError):  # No more threads.
            _last = _Last(last)


after_fork(Step.TRACES, _forked)
