"""docs/log-events.md lists the events that scaleobs logs: their names and levels, and the fields of real lines."""

from __future__ import annotations

import ast
import asyncio
import functools
import json
import logging
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

import scaleobs
from scaleobs import logs
from support import servers
from support.exchanges import asgi, http_scope, log_lines, serve_asgi

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "scaleobs"
PAGE = (ROOT / "docs" / "log-events.md").read_text()

LEVELS = ("debug", "info", "warning", "error", "critical")
EVENT = re.compile(r"[a-z_]+\.[a-z_]+")
COMMON = {"timestamp", "level", "event", "logger", "service", "version", "request_id", "trace_id", "span_id"}
TYPES = {
    "string": lambda value: isinstance(value, str),
    "integer": lambda value: type(value) is int,
    "number": lambda value: type(value) in (int, float),
    "boolean": lambda value: isinstance(value, bool),
    "list of strings": lambda value: isinstance(value, list) and all(isinstance(one, str) for one in value),
}


def sections():
    """Return the sections of the page by event: levels, loggers, and the fields with their types."""
    found = {}
    for name, text in re.findall(r"^### `([^`]+)`\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL):
        head = text.strip().partition(". ")[0]
        levels, _, loggers = head.partition(", logger ")
        fields = dict(re.findall(r"^\| `(\w+)` \| ([\w, ]+) \|", text, re.MULTILINE))
        found[name] = re.findall(r"`(\w+)`", levels), re.findall(r"`(\w+)`", loggers), fields
    return found


SECTIONS = sections()


def test_sections_are_complete():
    """Each event has a level, a field, known types, and what to do."""
    for name, (levels, _, fields) in SECTIONS.items():
        assert levels, name
        assert fields, name
        assert set(levels) <= {*LEVELS}
        assert {kind.removesuffix(", optional") for kind in fields.values()} <= TYPES.keys(), name
    assert len(SECTIONS) == PAGE.count("**What to do**: ") == PAGE.count("\n### ")


def texts(node):
    """Return the possible values of an expression that is a text, or a choice between texts."""
    if isinstance(node, ast.IfExp):
        return texts(node.body) | texts(node.orelse)
    return {node.value} if isinstance(node, ast.Constant) and isinstance(node.value, str) else set()


def levels_of(call, assigned):
    """Return the levels of a call: its method's name, or an argument that is one or is a variable for one."""
    methods = [call.func.body, call.func.orelse] if isinstance(call.func, ast.IfExp) else [call.func]
    names = {getattr(method, "attr", getattr(method, "id", "")).lstrip("_") for method in methods}
    found = {{"warn": "warning"}.get(name, name) for name in names} & {*LEVELS}
    for argument in call.args:
        found |= (assigned.get(argument.id, set()) if isinstance(argument, ast.Name) else texts(argument)) & {*LEVELS}
    return found


def events_in(tree):
    """Yield the events in a syntax tree and their levels; in a computed name, such as `check.*`, `*` is any text."""
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        nodes = list(ast.walk(function))
        assigned = {
            target.id: texts(node.value)
            for node in nodes
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in nodes:
            if isinstance(node, ast.Dict):
                for key, value in zip(node.keys, node.values, strict=True):
                    if key is not None and texts(key) == {"event"}:
                        yield from ((name, set()) for name in texts(value) if EVENT.fullmatch(name))
            if isinstance(node, ast.Call) and (levels := levels_of(node, assigned)):
                event = node.args[-1] if node.args else None
                if isinstance(event, ast.JoinedStr):
                    parts = [part.value if isinstance(part, ast.Constant) else "*" for part in event.values]
                    yield "".join(parts), levels
                yield from ((name, levels) for name in texts(event) if EVENT.fullmatch(name))


def logged():
    """Return the levels of each event in the sources; the commands and their demo log nothing of scaleobs's."""
    found = {}
    for path in SOURCE.rglob("*.py"):
        if path.relative_to(SOURCE).parts[0] != "_cli":
            for name, levels in events_in(ast.parse(path.read_text())):
                found.setdefault(name, set()).update(levels)
    return found


def test_events_of_the_sources_are_those_of_the_page():
    """A new event needs a section, a section needs an event, and both have the same levels."""
    documented = {name: {*levels} for name, (levels, _, _) in SECTIONS.items()}
    computed = {name for name in logged() if "*" in name}
    families = {name: {one for one in documented if one.startswith(name.removesuffix("*"))} for name in computed}
    expected = {name: set().union(*(documented[one] for one in families[name])) for name in computed}
    expected |= {name: levels for name, levels in documented.items() if name not in set().union(*families.values())}
    found = {name: levels or expected.get(name) for name, levels in logged().items()}

    assert all(families.values())
    assert expected == found


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("log.warning('a.b', x=1)", ("a.b", {"warning"})),
        ("self._warn('a.b')", ("a.b", {"warning"})),
        ("_write('error', 'a.b')", ("a.b", {"error"})),
        ("self._write(parts, 'info', 'a.b')", ("a.b", {"info"})),
        ("level = 'info' if x else 'error'; write(level, 'a.b')", ("a.b", {"info", "error"})),
        ("(log.info if x else log.error)(f'a.{x}')", ("a.*", {"info", "error"})),
        ("line = {'event': 'a.b'}", ("a.b", set())),
    ],
)
def test_each_way_to_log_is_found(code, found):
    """The test above reads each way in which the sources log."""
    assert [found] == list(events_in(ast.parse(f"def f():\n {code}")))


def assert_as_documented(lines):
    """The logger, the level and the fields of lines are those of the page; optional fields may be missing."""
    for line in lines:
        levels, loggers, fields = SECTIONS[line["event"]]
        found = {key: value for key, value in line.items() if key not in COMMON}

        assert line["level"] in levels, line
        assert line["logger"] in loggers or not loggers, line
        assert found.keys() <= fields.keys(), line
        assert {key for key, kind in fields.items() if not kind.endswith("optional")} <= found.keys(), line
        for key, value in found.items():
            assert TYPES[fields[key].removesuffix(", optional")](value), (line["event"], key, value)


async def app(scope, receive, send):
    """Answer, fail, fail in the background, or break off."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        raise ValueError("closed")
    if scope["path"] == "/raise":
        raise ValueError("raised")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/break":
        await send({"type": "http.response.body", "body": b"a", "more_body": True})
        raise ValueError("broke off")
    await send({"type": "http.response.body", "body": b""})
    if scope["path"] == "/background":
        raise ValueError("in the background")


def names_of(lines):
    """Return the events of lines, without their number."""
    return {line["event"] for line in lines}


def test_lines_of_requests(registry, capsys):
    """Requests, background tasks, WebSockets, the limit of label sets and faults of scaleobs."""

    def route(scope):
        if scope["path"] == "/fault":
            raise ValueError("no route")
        return scope["path"]

    served = scaleobs.instrument(functools.partial(app), registry=registry, route=route, max_label_sets=2)
    for path in ("/a", "/raise", "/break", "/background", "/fault"):
        asgi(served, path=path)
    scope = {**http_scope(path="/socket"), "type": "websocket"}
    asyncio.run(serve_asgi(served, scope, [{"type": "websocket.connect"}]))
    lines = log_lines(capsys)

    assert {
        *("request.finished", "background.failed", "websocket.closed"),
        *("label_sets.limit_reached", "scaleobs.fault"),
    } == names_of(lines)
    assert_as_documented(lines)


def test_line_of_missing_routes(registry, capsys):
    """Twenty successful requests in a row without a template have one warning."""
    served = scaleobs.instrument(functools.partial(app), registry=registry)
    for _ in range(50):
        asgi(served, path="/a")
    lines = log_lines(capsys)

    assert 1 == sum(line["event"] == "route.missing" for line in lines)
    assert_as_documented(lines)


def test_line_of_a_configuration_that_stays(registry, capsys):
    """It is logged by the application's own configuration."""
    logging.basicConfig(stream=sys.stdout, force=True)
    logging.getLogger().handlers[0].setFormatter(logs.JSONFormatter())
    scaleobs.instrument(functools.partial(app), registry=registry)
    lines = log_lines(capsys)

    assert ["logging.left_alone"] == [line["event"] for line in lines]
    assert_as_documented(lines)


def test_lines_of_checks(registry, capsys):
    """Each stage of a check, a probe that fails, and a start-up task that fails."""
    served = scaleobs.instrument(functools.partial(app), registry=registry, log_format="json")
    observer, states = scaleobs.observer_of(served), iter([False, True])

    @observer.startup_task
    async def load():
        raise ValueError("no")

    observer.check("critical", cache=0)(lambda: next(states, True))
    observer.check("optional", critical=False)(lambda: False)
    observer.check("slow", timeout=0.4)(lambda: time.sleep(0.3))

    async def probe():
        for _ in range(3):
            await serve_asgi(served, http_scope(path="/ready"))
            await asyncio.sleep(0.05)

    asyncio.run(probe())
    lines = log_lines(capsys)

    checks = {name for name in SECTIONS if name.startswith("check.")}
    assert {*checks, "probe.failed", "startup.task_failed"} == names_of(lines)
    assert_as_documented(lines)


# Emits what ends a process or belongs to it.
PROCESS = """
import logging, os, signal, sys, threading, time
import scaleobs
from scaleobs.logs import StdoutHandler

def app(environ, start_response):
    start_response("200 OK", [])
    return [b""]

signal.signal(signal.SIGTERM, lambda number, frame: None)
app = scaleobs.instrument(app, log_format="json", drain_seconds=0.3)

@scaleobs.observer_of(app).on_drain
def leave():
    raise ValueError("no")

list(app({"REQUEST_METHOD": "GET", "PATH_INFO": "/ready"}, lambda *_: None))
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(0.8)

class Unreadable:
    def __del__(self):
        raise ValueError("ignored")

Unreadable()
StdoutHandler([lambda *_: 1 / 0]).handle(logging.LogRecord("shop", 20, "", 0, "unreadable", (), None))
stdout, sys.stdout = sys.stdout, None
logging.getLogger("shop").info("lost")
sys.stdout = stdout
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
raise ValueError("uncaught")
"""


def test_lines_of_a_process():
    """The drain, exceptions that no code catches, lost and unreadable lines, and traces without OpenTelemetry."""
    code = "import sys; sys.modules['opentelemetry'] = None\n" + PROCESS
    environment = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=servers.LIMIT,
        check=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]

    assert 1 == done.returncode
    assert {
        *("drain.begun", "drain.ended", "drain.hook_failed", "traces.not_exported"),
        *("exception.uncaught", "exception.ignored", "log.lines_lost", "log.unreadable"),
    } == names_of(lines) - {"request.finished", "probe.failed"}
    assert_as_documented(lines)


def test_unreadable_line_of_structlog(capsys):
    """A processor that raises has the same line as a record that can't be read."""

    def fail(_logger, _method, _event):
        raise ValueError("no")

    with scaleobs.configure_logging(processors=[fail]):
        scaleobs.get_logger("shop").info("order.placed")
        logging.getLogger("shop").info("order.placed")
    lines = log_lines(capsys)

    assert ["log.unreadable"] * 2 == [line["event"] for line in lines]
    assert_as_documented(lines)
