"""Importing scaleobs costs next to nothing."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys

import pytest

import scaleobs

HEAVY = {
    *("starlette", "fastapi", "flask", "werkzeug", "django", "uvicorn", "gunicorn", "asyncio", "logging"),
    *("yaml", "click", "rich", "opentelemetry", "orjson", "prometheus_client", "structlog", "promql_parser"),
}


def loaded_by(code):
    """Return the top-level modules that a new process has loaded after this."""
    code += "\nimport sys, json; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return set(json.loads(done.stdout))


def test_import_loads_nothing_heavy():
    """`import scaleobs` loads no framework, no extra, and not even its own dependencies."""
    assert set() == loaded_by("import scaleobs") & HEAVY


def test_import_of_everything_loads_no_framework():
    """The use of every public name loads no framework and no extra."""
    code = "import scaleobs\nfor name in scaleobs.__all__: getattr(scaleobs, name)"
    allowed = {
        "prometheus_client",
        "structlog",
        "asyncio",
        "logging",
        "orjson",
        "rich",
    }  # structlog imports rich if it is installed.

    assert set() == loaded_by(code) & HEAVY - allowed


def test_instrument_loads_no_framework():
    """An application without a framework is observed without one."""
    code = "import scaleobs\nscaleobs.instrument(lambda environ, start_response: [])"
    allowed = {"prometheus_client", "structlog", "asyncio", "logging", "orjson", "rich"}

    assert set() == loaded_by(code) & HEAVY - allowed


def test_every_public_name_resolves():
    """`__all__` is sorted, each name exists under its own name, and `dir` shows it."""
    assert sorted(scaleobs.__all__) == scaleobs.__all__
    for name in scaleobs.__all__:
        assert name == getattr(scaleobs, name).__name__
    assert {*scaleobs.__all__, "__version__"} == set(dir(scaleobs))


@pytest.mark.parametrize(
    "before", ["gc.enable()", "gc.disable()", "gc.freeze()"], ids=["enabled", "disabled", "with frozen objects"]
)
def test_loading_a_name_keeps_the_state_of_garbage_collection(before):
    """It is disabled while modules are loaded; afterwards it is as before, and what was frozen is frozen."""
    state = "(gc.isenabled(), gc.get_freeze_count() > 0)"
    code = f"import gc, scaleobs; {before}; state = {state}; scaleobs.instrument; print(state == {state})"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True, timeout=60)

    assert "True\n" == done.stdout


def test_unknown_name_is_an_attribute_error():
    """A missing name is Python's usual error."""
    with pytest.raises(AttributeError, match="module 'scaleobs' has no attribute 'instrment'"):
        _ = scaleobs.instrment


def test_version_is_that_of_the_distribution():
    """There is one version."""
    assert importlib.metadata.version("scaleobs") == scaleobs.__version__
