"""What every test starts with."""

from __future__ import annotations

import functools
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import hypothesis
import pytest
import structlog
from flask import Flask
from prometheus_client import CollectorRegistry

import scaleobs
from scaleobs._cli.demo import processes
from scaleobs._management import services as management_services
from scaleobs._metrics import families as registry_module
from scaleobs._metrics import runtime as loops
from scaleobs.logs import _configure as log_configuration
from scaleobs.logs._context import request_context
from scaleobs.logs._sink import stdout
from support import servers
from support.exchanges import asgi, wsgi

# The same examples in each run; HYPOTHESIS_PROFILE=random looks for new ones.
hypothesis.settings.register_profile("same", derandomize=True, deadline=None, database=None)
hypothesis.settings.register_profile("random", deadline=None, database=None, print_blob=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

# A shell has what it starts in the background ignore SIGINT, and so would every process of these tests.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# promtool and Prometheus spend a fifth of their time in the garbage collector by default.
os.environ.setdefault("GOGC", "400")

# All programs get their ports from one place, so that no port is used twice.
processes.free_port = servers.free_port

_start = subprocess.Popen.__init__


@functools.wraps(_start)
def _start_checked(self, args, *more, **named):
    servers.assert_server_is_marked(args)
    _start(self, args, *more, **named)


subprocess.Popen.__init__ = _start_checked


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Record which test runs."""
    servers.running_test = item
    return (yield)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Distribute the tests to processes, unless the command line has another way."""
    from support.scheduling import Scheduling

    return Scheduling(config, log) if config.getvalue("dist") == "load" else None


LOCAL_TOOLS = Path(__file__).parent.parent / ".tools" / "bin"


@pytest.fixture(autouse=True)
def _fresh_process(monkeypatch):
    """Every test starts with a fresh default registry, no event loop, unconfigured logging and no settings."""
    monkeypatch.setattr(registry_module, "REGISTRY", CollectorRegistry())
    # A test listens for other reasons than to serve the applications of tests before it.
    monkeypatch.setattr(management_services, "is_listening", lambda: False)
    loops.forked()
    for name in [name for name in os.environ if name.startswith(("SCALEOBS_", "OTEL_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(log_configuration, "_process", log_configuration._Process())
    before = {one: (list(one.handlers), one.level, one.propagate, one.disabled) for one in _loggers()}
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook, warnings.showwarning
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    token = request_context.set(None)
    stdout.reset()
    yield
    request_context.reset(token)
    structlog.contextvars.clear_contextvars()
    structlog.reset_defaults()
    sys.excepthook, threading.excepthook, sys.unraisablehook, warnings.showwarning = hooks
    for logger in _loggers():
        logger.handlers[:], logger.level, logger.propagate, logger.disabled = before.get(logger, ([], 0, True, False))
    logging.getLogger().manager._clear_cache()


def _loggers():
    root = logging.getLogger()
    return [root, *(one for one in root.manager.loggerDict.values() if isinstance(one, logging.Logger))]


@pytest.fixture
def often(monkeypatch):
    """Look at each event loop a hundred times a second."""
    monkeypatch.setattr(loops, "LAG_INTERVAL", 0.01)


@pytest.fixture
def registry():
    """Return a registry of the test's own."""
    return CollectorRegistry()


@pytest.fixture
def manage(registry):
    """Return a function that opens the management port of a service, and returns the port and the observer."""
    opened = []

    def start(**settings):
        port = servers.free_port()
        app = scaleobs.instrument(
            lambda environ, start: [],
            **{"registry": registry, "log_format": "off", "drain_seconds": 0, "management_port": port, **settings},
        )
        obs = scaleobs.observer_of(app)
        opened.append(obs._service._management)
        wsgi(app, path="/health")
        return port, obs

    yield start
    for one in opened:
        one.close()


@pytest.fixture
def exported(monkeypatch):
    """Set a TracerProvider for this test, and return a function that returns the spans that have ended since."""
    trace = pytest.importorskip("opentelemetry.trace")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)

    def ended():
        spans = exporter.get_finished_spans()
        exporter.clear()
        return spans

    return ended


@pytest.fixture(params=[{"log_format": "off"}, {"log_format": "json"}], ids=["plain", "logged"])
def observe(request, registry):
    """
    Return a function that instruments an application, and has it serve a first request that isn't counted.

    Without log lines, the following requests take the fast path.
    """

    def observed(app, **settings):
        app = scaleobs.instrument(app, **{"registry": registry, **request.param, **settings})
        (wsgi if isinstance(app, Flask | scaleobs.WSGIMiddleware) else asgi)(app, path="/health")
        return app

    return observed


@pytest.fixture(scope="session")
def tool():
    """
    Return a function that finds a program such as `promtool`.

    If it is missing, the test is skipped, except in CI, where it fails.
    """

    def find(name: str) -> str:
        found = shutil.which(name, path=os.pathsep.join([os.environ.get("PATH", ""), str(LOCAL_TOOLS)]))
        if found is not None:
            return found
        msg = f"{name} is not on the PATH: `make tools` brings it."
        if os.environ.get("CI") == "true":
            pytest.fail(msg)
        return pytest.skip(msg)

    return find
