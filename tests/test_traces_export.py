"""An exporter is set up only if the environment names an endpoint and no other provider is set."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from support.otlp_collector import collecting

SERVICE = """
import os, sys, threading
sys.path.insert(0, "tests")
{before}
import scaleobs
from support.exchanges import asgi, wsgi

def app(environ, start_response):
    start_response("200 OK", [])
    return [b""]

app = scaleobs.instrument(app, service="shop")
{after}
for _ in range(3):
    assert 200 == wsgi(app).status
{last}
"""

OWN_PROVIDER = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
mine = TracerProvider()
trace.set_tracer_provider(mine)
"""


def run(endpoint, before="", after="", last="", **environ):
    """Run a service in a process of its own, and return the lines that it wrote."""
    code = SERVICE.format(before=before, after=after, last=last)
    environ = {"PATH": "/usr/bin:/bin", "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, **environ}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, timeout=60, check=False
    )

    assert (0, "") == (done.returncode, done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_endpoint_is_enough():
    """With only the variable, spans are exported, the last ones at the end of the process; lines have their ids."""
    with collecting() as (endpoint, received):
        lines = run(endpoint)

    assert ["GET"] * 3 == [span.name for span in received]
    assert {"shop"} == {span.resource["service.name"] for span in received}
    assert [span.span_id for span in received] == [line["span_id"] for line in lines]


@pytest.mark.parametrize("when", ["before", "after"])
def test_provider_of_the_application_is_used(when):
    """If the application sets a provider, before or after `instrument`, it is used, and scaleobs exports nothing."""
    last = "from opentelemetry import trace; assert trace.get_tracer_provider() is mine"
    with collecting() as (endpoint, received):
        lines = run(endpoint, **{when: OWN_PROVIDER}, last=last + "; assert threading.active_count() == 1")

    assert [] == received
    assert all("span_id" in line for line in lines)


@pytest.mark.parametrize(
    "environ",
    [
        {"OTEL_SDK_DISABLED": "true"},
        {"OTEL_SDK_DISABLED": "TRUE"},
        {"OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_TRACES_EXPORTER": "console"},
        {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
    ],
)
def test_variables_that_disable_it(environ):
    """If a variable of OpenTelemetry disables the export, nothing is loaded, and no thread starts."""
    last = """
assert 1 == threading.active_count()
assert not any(name.startswith("opentelemetry") for name in sys.modules)
"""
    with collecting() as (endpoint, received):
        lines = run(endpoint, last=last, **environ)

    assert [] == received
    assert not any("span_id" in line for line in lines)


def test_sampler_of_the_environment():
    """`OTEL_TRACES_SAMPLER` applies."""
    with collecting() as (endpoint, received):
        lines = run(endpoint, OTEL_TRACES_SAMPLER="always_off")

    assert [] == received
    assert all("trace_id" in line for line in lines)


def test_endpoint_for_traces_alone():
    """The variable for traces works as the one for all signals does."""
    with collecting() as (endpoint, received):
        run("", OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{endpoint}/v1/traces")

    assert 3 == len(received)


def test_missing_exporter_is_logged_with_the_fix():
    """If an endpoint is set without `scaleobs[otel]`, one line at the start has the fix, and requests are served."""
    lines = run("http://127.0.0.1:9", before='sys.modules["opentelemetry.sdk"] = None')

    assert ["traces.not_exported", *["request.finished"] * 3] == [line["event"] for line in lines]
    assert "pip install 'scaleobs[otel]'" in lines[0]["fix"]


@pytest.mark.parametrize("variable", ["OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"])
def test_missing_exporter_of_grpc_is_named(variable):
    """`scaleobs[otel]` has the exporter for HTTP; the one for gRPC is a package of its own."""
    lines = run("http://127.0.0.1:9", **{variable: "grpc"})

    assert "pip install opentelemetry-exporter-otlp-proto-grpc" in lines[0]["fix"]


def test_child_of_a_process_that_exports_ends():
    """
    A process that exports may fork, as one that uses multiprocessing does.

    The hook of OpenTelemetry hung in the child if a module that it needs was loaded after it.
    """
    last = """
child = os.fork()
if child == 0:
    assert 200 == wsgi(app, path="/child").status
    os._exit(7)
assert 7 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""
    with collecting() as (endpoint, received):
        run(endpoint, last=last)

    assert 3 == len(received)
