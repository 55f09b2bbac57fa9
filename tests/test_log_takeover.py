"""Each record has one line, for each configuration of logging that scaleobs finds."""

from __future__ import annotations

import collections
import functools
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import structlog

import scaleobs
from scaleobs.logs import _configure, _handlers
from scaleobs.logs._configure import take_loggers
from support import servers
from support.exchanges import asgi, log_lines

TESTS = Path(__file__).parent
FRAMEWORKS = ["asgi", "django", "falcon", "fastapi", "flask", "litestar", "mcp", "quart"]
PATH = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
RECORDS = ("by the application", "by the framework", "by the server", "request.finished")
DISABLED = {"fastapi": {"by the framework"}, "falcon": {"by the framework"}}
"""Loggers that exist before `dictConfig`, which disables them; scaleobs enables the servers' again."""


def counted(text):
    """Return how many lines have each of the records."""
    return collections.Counter(name for line in text.splitlines() for name in RECORDS if name in line)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_each_record_has_one_line(framework):
    """In JSON, unless the user configured a console and no format is given; exporters receive every record."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("SCALEOBS_", "OTEL_"))}
    command = [sys.executable, str(TESTS / "support" / "log_cells.py"), framework]
    env = {**own, "PYTHONPATH": PATH}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    cells = json.loads(done.stdout)

    assert 10 == len(cells)
    for cell, (out, err, exported) in cells.items():
        configuration, log_format = cell.split(",")
        is_left = log_format == "auto" and configuration in ("dictConfig", "basicConfig")
        missing = DISABLED.get(framework, set()) if configuration == "dictConfig" else set()
        if is_left and configuration == "dictConfig" and framework != "django":
            missing = missing | {"by the server"}
        lines = [line for line in out.splitlines() if line]
        errors = [line for line in err.splitlines() if "early" not in line]

        assert dict.fromkeys(set(RECORDS) - missing, 1) == counted(out + "\n".join(errors)), cell
        if is_left:
            (hint,) = [line for line in lines + errors if "logging.left_alone" in line]
            (finished,) = [line for line in lines + errors if "request.finished" in line]
            assert "log_format='json'" in hint
            assert "route=/hello path=/hello status_code=200" in finished
        else:
            assert [] == errors, cell
            assert {"shop"} == {json.loads(line)["service"] for line in lines}, cell
        assert (list(RECORDS) if configuration == "opentelemetry" else []) == json.loads(exported), cell


UVICORN, GUNICORN = ("uvicorn", "support.log_cells:app", "--port"), ("gunicorn", "support.log_cells:app", "-b")


@pytest.mark.servers
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_each_record_has_one_line_under_a_server(framework, tmp_path):
    """The same for the framework's own configuration, under `scaleobs run`."""
    port = servers.free_port()
    is_wsgi = framework in ("django", "falcon", "flask")
    arguments = (*GUNICORN, f"127.0.0.1:{port}") if is_wsgi else (*UVICORN, str(port))
    command = [str(servers.BIN / "scaleobs"), "run", "--", *arguments]
    with servers.running(command, port, tmp_path, LOG_CELL=f"{framework},default,auto", PYTHONPATH=PATH) as end:
        servers.get(port, "/hello")
        out, err = end()
    lines = [json.loads(line) for line in out.splitlines() if "early" not in line]

    assert dict.fromkeys(RECORDS, 1) == counted(out)
    assert {"shop"} == {line["service"] for line in lines if line["event"] in RECORDS}
    assert "" == "".join(line for line in err.splitlines() if "early" not in line)


@pytest.mark.servers
@pytest.mark.parametrize("starter", [["uvicorn"], ["scaleobs", "run", "--", "uvicorn"]], ids=["bare", "run"])
def test_configuration_of_the_user_stays_under_both(starter, tmp_path):
    """`scaleobs run` and `instrument` end in the same state: `basicConfig` of the application has effect."""
    port = servers.free_port()
    command = [str(servers.BIN / starter[0]), *starter[1:], "support.log_cells:app", "--port", str(port)]
    with servers.running(command, port, tmp_path, LOG_CELL="asgi,basicConfig,auto", PYTHONPATH=PATH) as end:
        servers.get(port, "/hello")
        out, err = end()

    assert dict.fromkeys(("by the application", "request.finished"), 1).items() <= counted(err).items()
    assert err.count("logging.left_alone") == 1
    assert "request.finished" not in out


async def hello(scope, receive, send):
    """Answer."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


def served(registry, **settings):
    """Return an instrumented application."""
    return scaleobs.instrument(functools.partial(hello), registry=registry, route=lambda _: "/hello", **settings)


def test_files_stay(registry, tmp_path, capsys):
    """A file is no console: its handler receives every line, and JSON is written beside it."""
    logging.basicConfig(filename=tmp_path / "log", level=logging.INFO, format="%(message)s", force=True)
    app = served(registry)
    logging.getLogger("shop").warning("line")
    asgi(app)
    events = [line["event"] for line in log_lines(capsys)]
    logging.getLogger().handlers[0].close()

    assert ["line", "request.finished"] == events
    assert events == (tmp_path / "log").read_text().splitlines()


def test_handlers_that_write_twice(registry, capsys):
    """A stream handler of a logger that propagates is removed, also one that is added before the start."""
    echo, late = logging.getLogger("sqlalchemy"), logging.getLogger("late.module")
    echo.addHandler(logging.StreamHandler(sys.stdout))
    app = served(registry, log_format="json")
    late.addHandler(logging.StreamHandler())
    kept = logging.NullHandler()
    late.addHandler(kept)
    asgi(app)
    for logger in (echo, late):
        logger.warning("from %s", logger.name)
    captured = capsys.readouterr()

    assert "" == captured.err
    assert 1 == captured.out.count("from sqlalchemy") == captured.out.count("from late.module")
    assert [kept] == late.handlers


def test_own_logger_that_does_not_propagate_stays(registry, capsys):
    """A console that the user gave to a single logger writes as before."""
    own = logging.getLogger("own")
    handler = logging.StreamHandler(sys.stdout)
    own.addHandler(handler)
    own.propagate = False
    served(registry, log_format="json")
    own.warning("plain")

    assert ([handler], "plain\n") == (own.handlers, capsys.readouterr().out)


def test_disabled_server_loggers_are_enabled(registry, capsys):
    """`dictConfig` disables what exists by default; a server that fails to start must be able to log why."""
    server = logging.getLogger("uvicorn.error")
    server.disabled = True
    state = scaleobs.configure_logging(log_format="json")
    server.error("no port")
    is_disabled = server.disabled
    state.restore()

    assert (False, True) == (is_disabled, server.disabled)
    assert ["no port"] == [line["event"] for line in log_lines(capsys)]


def test_hint_is_logged_once(registry, capsys):
    """It names what configured logging, and the lowest level that is logged."""
    logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.WARNING, force=True)
    for _ in range(3):
        asgi(served(registry))
    (hint,) = capsys.readouterr().out.splitlines()

    assert hint.startswith('logging.left_alone configured_by="StreamHandler of the root logger" lowest_level=warning')


def test_fields_of_json_formatters_are_not_in_the_message(registry, capsys):
    """A formatter that reads `extra` has the fields once."""

    class Formatter(logging.Formatter):
        def format(self, record):
            return json.dumps({key: str(value) for key, value in record.__dict__.items()})

    logging.basicConfig(stream=sys.stdout, level=logging.INFO, force=True)
    logging.getLogger().handlers[0].setFormatter(Formatter())
    asgi(served(registry))
    line = json.loads(capsys.readouterr().out.splitlines()[-1])

    assert ("request.finished", "/hello", "200") == (line["msg"], line["route"], line["status_code"])


def test_secrets_are_not_in_the_message(registry, capsys):
    """Bound fields are shown without secrets; names that stdlib logging refuses have an underscore after them."""

    async def app(scope, receive, send):
        scaleobs.bind_context(password="hunter2", name="x y", module="m")
        await hello(scope, receive, send)

    logging.basicConfig(stream=sys.stdout, format="%(message)s", level=logging.INFO, force=True)
    asgi(scaleobs.instrument(app, registry=registry, route=lambda _: "/hello"))
    line = capsys.readouterr().out.splitlines()[-1]

    assert "hunter2" not in line
    assert ' password=[redacted] name_="x y" module_=m ' in line


def test_bridge_to_loguru_stays(registry, capsys):
    """With loguru's documented handler on the root logger, its lines have the fields, and each record has one line."""
    loguru = pytest.importorskip("loguru")
    source = "class Handler(logging.Handler):\n    def emit(self, record):\n        logger.info(record.getMessage())\n"
    names = {"logging": logging, "logger": loguru.logger, "__name__": "shop"}
    exec(source, names)
    loguru.logger.remove()
    sink = loguru.logger.add(sys.stdout, format="{message}")
    try:
        logging.basicConfig(level=logging.INFO, handlers=[names["Handler"]()], force=True)
        asgi(served(registry))
        left = capsys.readouterr().out.splitlines()
        asgi(served(registry, log_format="json"))
        taken = capsys.readouterr().out.splitlines()
    finally:
        loguru.logger.remove(sink)

    assert ["logging.left_alone", "request.finished"] == [line.split()[0] for line in left]
    assert "route=/hello" in left[1]
    assert ["request.finished"] == [json.loads(line)["event"] for line in taken]


def test_structlog_of_the_user_has_a_hint(registry):
    """It is named, and its processors stay."""
    events = []

    def keep(logger, method, event):
        events.append((event["event"], event.get("configured_by")))
        raise structlog.DropEvent

    structlog.configure(processors=[keep])
    asgi(served(registry))

    assert [("logging.left_alone", "structlog.configure"), ("request.finished", None)] == events


@pytest.mark.parametrize("log_format", ["json", "auto"])
def test_taking_over_is_reversible(log_format, capsys):
    """Everything that was removed is there again after `restore`."""
    echo = logging.getLogger("sqlalchemy")
    echo.addHandler(logging.StreamHandler(sys.stdout))
    before = [*echo.handlers], [*logging.getLogger().handlers]
    state = scaleobs.configure_logging(log_format=log_format)
    late = logging.getLogger("late.module")
    late.addHandler(logging.StreamHandler())
    take_loggers()
    taken = echo.handlers + late.handlers
    state.restore()

    assert [] == taken
    assert before == ([*echo.handlers], [*logging.getLogger().handlers])
    assert 1 == len(late.handlers)
    assert _configure._process.state in (None, state)


def stream(format_=None, **attributes):
    """Return a handler of stdout."""
    handler = type("Handler", (logging.StreamHandler,), {"__module__": attributes.pop("module", "shop")})(sys.stdout)
    handler.setFormatter(logging.Formatter(format_, **attributes) if format_ else None)
    return handler


def rich(**named):
    """Return a handler of rich, formatted as the MCP SDK does."""
    from rich.logging import RichHandler

    handler = RichHandler(rich_tracebacks=True)
    handler.setFormatter(logging.Formatter("%(message)s", **named))
    return handler


DAPHNE = "%(asctime)-15s %(levelname)-8s %(message)s"


@pytest.mark.parametrize(
    ("loaded", "name", "make", "is_default"),
    [
        ("daphne.cli", "root", lambda: stream(DAPHNE), True),
        ("none", "root", lambda: stream(DAPHNE), False),
        ("daphne.cli", "root", lambda: stream("%(message)s"), False),
        ("prefect", "root", lambda: stream(module="prefect.logging.handlers"), True),
        ("mcp.server.mcpserver", "root", rich, True),
        ("mcp.server.mcpserver", "root", lambda: rich(datefmt="[%X]"), False),
        ("quart.logging", "shop", lambda: stream(module="quart.logging"), True),
        ("none", "root", stream, False),
    ],
)
def test_console_of_a_framework(loaded, name, make, is_default, monkeypatch):
    """A framework's own console is recognised; one that a user has made in a similar way is not."""
    for module in [one for one in sys.modules if one.partition(".")[0] in ("daphne", "prefect", "mcp")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, loaded, logging)

    assert is_default == _handlers.is_default(name, make())


def test_formatter_that_is_replaced_later(registry, capsys):
    """Whether lines show the fields of `extra` is found again for another formatter."""
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s", force=True)
    app = served(registry)
    asgi(app)
    logging.getLogger().handlers[0].setFormatter(logging.Formatter("%(message)s at %(route)s"))
    asgi(app)
    *_, before, after = capsys.readouterr().out.splitlines()

    assert before.startswith("request.finished request_id=")
    assert "request.finished at /hello" == after
