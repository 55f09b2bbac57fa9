"""The steps in a forked process: all of them, in one order, regardless of the order of imports."""

from __future__ import annotations

import gc
import importlib
import json
import random
import re
import subprocess
import sys
import weakref
from pathlib import Path

import pytest

import scaleobs
from scaleobs import _fork
from scaleobs._fork import Step

SOURCE = Path(__file__).parent.parent / "src" / "scaleobs"
MODULES = {
    Step.REQUEST_IDS: "scaleobs.logs._context",
    Step.LOG_COUNTS: "scaleobs.logs._sink",
    Step.STDOUT: "scaleobs.logs._sink",
    Step.HEALTH: "scaleobs._health.checks",
    Step.METRICS: "scaleobs._metrics.families",
    Step.DRAIN: "scaleobs._lifecycle.drain",
    Step.TRACES: "scaleobs._tracing.export",
    Step.MANAGEMENT: "scaleobs._management.services",
}

# Imports modules in an order, forks, and prints which steps were done in the child.
ORDER = """
import importlib, json, os, sys
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
from scaleobs import _fork

def noting(step, function):
    def noted():
        done.append(step.name)
        function()
    return noted

done = []
for step, function in list(_fork._functions.items()):
    _fork.after_fork(step, noting(step, function))
if os.fork() == 0:
    print(json.dumps(done), flush=True)
    os._exit(0)
_, status = os.wait()
sys.exit(os.waitstatus_to_exitcode(status) or len(done))
"""

# Holds the locks of the parent in a thread while it forks; the child runs code that takes them.
HELD = """
import io, os, sys, threading, warnings
import scaleobs
from prometheus_client import CollectorRegistry
from scaleobs.logs import _context, _sink
from scaleobs._management import services
from scaleobs._metrics import families as registry
from scaleobs._tracing import export

def app(environ, start_response):
    start_response("200 OK", [])
    return [b""]

app = scaleobs.instrument(app, service="held")
locks = [_sink.count_lock, registry._attaching, services._opening, export._setting_up]
held, is_over = threading.Event(), threading.Event()

def hold():
    for lock in locks:
        lock.acquire()
    held.set()
    is_over.wait()

threading.Thread(target=hold, daemon=True).start()
held.wait()
warnings.simplefilter("ignore")  # From 3.12 on the parent logs that it has threads, for which it needs a lock.
ids = _context._ids.getstate()
pid = os.fork()
if pid == 0:
    is_seeded = _context._ids.getstate() != ids
    scaleobs.get_logger().info("child.line")
    scaleobs.instrument(lambda environ, start_response: app(environ, start_response), registry=CollectorRegistry())
    app({"REQUEST_METHOD": "GET", "PATH_INFO": "/child"}, lambda *_: None).close()
    export.Export(scaleobs.observer_of(app).settings, print, print).begin()
    with services._opening:
        print("other ids", is_seeded, flush=True)
    os._exit(0)
_, status = os.waitpid(pid, 0)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def output_of(source, *arguments):
    """Return the output of a program."""
    command = [sys.executable, "-c", source, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout


@pytest.fixture
def functions(monkeypatch):
    """Replace the functions of all steps by an empty table, and return it."""
    functions = {}
    monkeypatch.setattr(_fork, "_functions", functions)
    return functions


@pytest.mark.parametrize("seed", range(6))
def test_order_does_not_depend_on_imports(seed):
    """The steps run in the order of the list, regardless of the order of imports."""
    names = sorted(MODULES.values())
    random.Random(seed).shuffle(names)

    assert [step.name for step in Step] == json.loads(output_of(ORDER, json.dumps(names)))


def test_each_step_is_registered_by_its_module():
    """Every step of the list has a function, and no module has a hook of its own."""
    for name in MODULES.values():
        importlib.import_module(name)
    registered = {step: function.__module__ for step, function in _fork._functions.items()}
    sources = {path: path.read_text() for path in SOURCE.rglob("*.py")}
    hooks = [path.name for path, source in sources.items() if "register_at_fork(" in source]

    assert {**MODULES, Step.REQUEST_IDS: "random"} == registered  # The method of a generator.
    assert ["_fork.py"] == hooks


def test_no_import_has_its_side_effects_ordered():
    """No module is imported only for its side effects."""
    unused = re.compile(r"noqa:[^#]*\bF401\b")

    assert [] == [path.name for path in SOURCE.rglob("*.py") if unused.search(path.read_text())]


def test_locks_of_the_parent():
    """A child of a process whose threads hold locks writes lines, serves requests and instruments applications."""
    lines = output_of(HELD).splitlines()

    assert "other ids True" == lines[-1]
    assert ["child.line", "request.finished"] == [json.loads(line)["event"] for line in lines[:-1]]


def test_step_that_raises(functions):
    """The later steps run; the interpreter reports the error, as for any hook."""
    done = []

    def fail():
        done.append("fail")
        raise RuntimeError

    _fork.after_fork(Step.MANAGEMENT, lambda: done.append("last"))
    _fork.after_fork(Step.METRICS, fail)
    _fork.after_fork(Step.STDOUT, lambda: done.append("first"))
    with pytest.raises(RuntimeError):
        _fork._forked()

    assert ["first", "fail", "last"] == done


def test_step_has_one_function(functions):
    """A later function replaces the previous one."""
    done = []
    _fork.after_fork(Step.HEALTH, lambda: done.append("before"))
    _fork.after_fork(Step.HEALTH, lambda: done.append("after"))
    _fork._forked()

    assert ["after"] == done


def test_services_are_not_kept(registry):
    """An observer without references is deleted, although a forked process resets all services."""

    def app(environ, start_response):
        start_response("200 OK", [])
        return [b""]

    served = scaleobs.instrument(app, registry=registry, management_port=None, log_format="off")
    observer = scaleobs.observer_of(served)
    service = observer._service
    parts = [weakref.ref(part) for part in (observer, service, service.checks, service.drain)]
    del app, served, observer, service
    gc.collect()

    assert [None] * 4 == [part() for part in parts]
