"""
Exports traces if OpenTelemetry's variables name an endpoint and the application has set no provider.

Each process that serves has an exporter of its own. A process that only forks others has none, since its thread does
not exist in them. Without an endpoint nothing of OpenTelemetry is loaded.
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
from scaleobs._tracing.context import is_configured
from scaleobs.settings import Settings

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_EXPORTERS = {"grpc": "opentelemetry.exporter.otlp.proto.grpc.trace_exporter"}
_BY_HTTP = "opentelemetry.exporter.otlp.proto.http.trace_exporter"

_LIMIT_SECONDS = 2.0
"""How long the end of a process waits for a collector that does not answer."""

_setting_up = threading.Lock()
_set_up_in = 0
_processor: Any = None
_shutdown: _LimitedCall | None = None


class Export:
    """
    Exports the traces of one service unless the application has a provider.

    The modules that it needs are loaded now, which takes a third of a second. Its thread starts with `begin`.

    Args:
        settings: the names of the service.
        write: writes a log line; takes the level, the event and fields by name.
        on_fault: called with an error of scaleobs itself.
    """

    def __init__(self, settings: Settings, write: Callable[..., None], on_fault: Callable[[Exception], None]) -> None:
        self._on_fault = on_fault
        self._resource = {
            "service.name": settings.service,
            "service.version": settings.version,
            "deployment.environment.name": settings.environment,
        }
        try:
            _load()
        except ImportError as error:
            fix = f"pip install {_package()}, or take OTEL_EXPORTER_OTLP_ENDPOINT out of the environment"
            write("warning", "traces.not_exported", reason=str(error), fix=fix)

    def begin(self) -> None:
        """Set a provider that exports in batches, once in a process; never raises. Thread-safe."""
        global _set_up_in  # noqa: PLW0603 - A process has one provider.
        if _set_up_in == os.getpid():
            return
        with _setting_up:
            if _set_up_in != os.getpid():
                _set_up_in = os.getpid()
                try:
                    if not is_configured():
                        _set_provider(self._resource)
                except ImportError:  # It was logged.
                    return
                except Exception as error:
                    self._on_fault(error)

    @staticmethod
    def flush() -> None:
        """Export the spans that are still in memory, and wait for that for two seconds at most."""
        if _processor is not None:
            _call_limited(_processor.force_flush)


def is_requested() -> bool:
    """Return whether the environment names an endpoint for traces and does not disable them."""
    return (
        any(os.environ.get(name) for name in _ENDPOINTS)
        and os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() != "true"
        and "otlp" in os.environ.get("OTEL_TRACES_EXPORTER", "otlp")
    )


def _load() -> None:
    # The first module must be loaded first, or a forked process may hang: fork hooks run in the order of their
    # registration. A hook of OpenTelemetry submits to a pool, whose lock a hook of the first module releases.
    for name in ("concurrent.futures.thread", "opentelemetry.sdk.trace.export", _exporter()):
        importlib.import_module(name)


def _set_provider(resource: Mapping[str, str]) -> None:
    global _processor, _shutdown  # noqa: PLW0603
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
        _shutdown = _LimitedCall(processor.shutdown)
        atexit.register(_at_exit)
    else:  # The application has set a provider in the meantime.
        _call_limited(processor.shutdown)


def _exporter() -> str:
    return _EXPORTERS.get(_protocol(), _BY_HTTP)


def _package() -> str:
    """Return what to install for the protocol that the environment names."""
    return "opentelemetry-exporter-otlp-proto-grpc" if _protocol() in _EXPORTERS else "'scaleobs[otel]'"


def _protocol() -> str:
    return next((os.environ[name] for name in _PROTOCOLS if os.environ.get(name)), "").strip()


class _LimitedCall:
    """
    A later call of a function, on a thread of its own, for which the caller waits for two seconds at most.

    The thread starts at once, since Python 3.12 starts none at the end of a process (cpython#104690).

    Raises:
        RuntimeError: there are too many threads.
    """

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function
        self._is_requested = threading.Event()
        self._thread = threading.Thread(target=self._wait, name="scaleobs-traces", daemon=True)
        self._thread.start()

    def _wait(self) -> None:
        self._is_requested.wait()
        self.function()

    def run(self) -> None:
        """Call the function, and wait for its end."""
        self._is_requested.set()
        self._thread.join(_LIMIT_SECONDS)


def _call_limited(function: Callable[[], Any]) -> None:
    # Without a thread, a few spans are lost, but the process ends.
    with contextlib.suppress(RuntimeError):
        _LimitedCall(function).run()


def _at_exit() -> None:
    if _shutdown is not None:
        _shutdown.run()


def _forked() -> None:
    global _setting_up, _shutdown  # noqa: PLW0603
    # Another thread of the parent may have held the lock.
    _setting_up = threading.Lock()
    if _shutdown is not None:
        function, _shutdown = _shutdown.function, None
        with contextlib.suppress(RuntimeError):  # There are too many threads.
            _shutdown = _LimitedCall(function)


after_fork(Step.TRACES, _forked)
