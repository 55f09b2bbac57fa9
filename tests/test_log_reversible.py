"""`configure_logging` is reversible, and applies levels, schemas and chains."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import warnings

import pytest
import structlog

import scaleobs
from scaleobs import logs
from scaleobs.logs._configure import ACCESS_LOGGERS, SERVER_LOGGERS, is_configured
from support.exchanges import asgi, log_lines


def state():
    """Return all state of logging."""
    loggers = [logging.getLogger(name) for name in (None, "shop", *SERVER_LOGGERS, *ACCESS_LOGGERS)]
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook, warnings.showwarning
    config = structlog.get_config() if structlog.is_configured() else None
    return [(one.handlers[:], one.level, one.propagate) for one in loggers], hooks, config, is_configured()


def run(code, **environ):
    """Run a program; return its exit code, its lines and its stderr."""
    env = {**os.environ, "SCALEOBS_LOG_FORMAT": "json", **environ}
    command = [sys.executable, "-c", "import logging, sys, threading, warnings, scaleobs\n" + code]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=False)
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


@pytest.mark.parametrize("times", [1, 3])
def test_everything_is_as_before(times, tmp_path):
    """After `restore`, loggers, structlog, hooks and warnings are as before, also after several configurations."""
    logging.getLogger("uvicorn.error").addHandler(logging.NullHandler())
    logging.getLogger("shop").setLevel(logging.ERROR)
    before = state()
    configured = [
        scaleobs.configure_logging(log_format="json", log_level="info,shop=debug", log_file=str(tmp_path / "log"))
        for _ in range(times)
    ]

    assert before != state()
    for one in reversed(configured):
        one.restore()
    assert before == state()
    configured[0].restore()
    assert before == state()


def test_off_changes_nothing():
    """`log_format="off"` leaves logging as it is."""
    before = state()
    scaleobs.configure_logging(log_format="off")

    assert before == state()


def test_as_a_context(capsys):
    """At the end of the block the application's configuration is restored."""
    events = []
    structlog.configure(processors=[lambda _, __, event: events.append(event) or "x"])
    with scaleobs.configure_logging(log_format="json"):
        structlog.get_logger().info("inside")
    structlog.get_logger().info("outside")

    assert ["inside"] == [line["event"] for line in log_lines_of(capsys)]
    assert ["outside"] == [event["event"] for event in events]


def log_lines_of(capsys):
    """Return the lines that are JSON."""
    return [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]


IN_A_TASK = """
import asyncio

async def main():
    asyncio.get_running_loop().create_task(fail())
    await asyncio.sleep(0.01)

async def fail():
    1 / 0

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("code", "level", "text", "exit_code"),
    [
        ("1 / 0", "critical", "ZeroDivisionError", 1),
        ("raise KeyboardInterrupt", "info", "KeyboardInterrupt", 1),
        ("thread = threading.Thread(target=lambda: 1 / 0, name='t'); thread.start()", "error", "ZeroDivisionError", 0),
        ("class Ugly:\n    def __del__(self): 1 / 0\nUgly()", "error", "ZeroDivisionError", 0),
        (IN_A_TASK, "error", "ZeroDivisionError", 0),
    ],
    ids=["main", "interrupt", "thread", "del", "task"],
)
def test_uncaught_exception_is_one_line(code, level, text, exit_code):
    """An exception that no code catches is one line of JSON with its stack, and stderr is empty."""
    returned, lines, err = run("scaleobs.configure_logging()\n" + code)

    assert exit_code == (1 if returned == -signal.SIGINT else returned)
    assert [level] == [line["level"] for line in lines]
    assert text in lines[0]["exception"]
    assert "" == err


def test_end_of_a_thread_is_no_exception():
    """A thread that calls `sys.exit` logs nothing."""
    assert (0, [], "") == run("scaleobs.configure_logging()\nthreading.Thread(target=sys.exit).start()")


def test_hook_of_another_library_is_called():
    """An error tracker's hook is called as well."""
    code = 'sys.excepthook = lambda *_: print(\'{"event":"tracker"}\')\nscaleobs.configure_logging()\n1 / 0'

    assert ["exception.uncaught", "tracker"] == sorted(line["event"] for line in run(code)[1])


def test_warning_is_one_line():
    """A warning has its category and its line."""
    _, lines, err = run("scaleobs.configure_logging()\nwarnings.warn('mind the gap', UserWarning)")

    assert ("warning", "mind the gap", "py.warnings", "UserWarning", 3) == tuple(
        lines[0][key] for key in ("level", "event", "logger", "category", "line")
    )
    assert "" == err


def test_levels_of_loggers(capsys):
    """A logger has the level of the nearest parent that has one, in structlog and in stdlib logging."""
    scaleobs.configure_logging(log_format="json", log_level="warning,shop=debug,shop.noisy=error")
    for name in ("other", "shop", "shop.cart", "shop.noisy", "shop.noisy.x", "shopping"):
        for logger in (scaleobs.get_logger(name), logging.getLogger(name)):
            logger.debug("debug")
            logger.warning("warning")
    seen = {}
    for line in log_lines(capsys):
        seen.setdefault(line["logger"], []).append(line["event"])

    assert {
        "other": ["warning"] * 2,
        "shopping": ["warning"] * 2,
        "shop": ["debug", "warning"] * 2,
        "shop.cart": ["debug", "warning"] * 2,
    } == seen


def test_levels_by_the_environment():
    """Levels can be set by the environment."""
    code = "scaleobs.configure_logging()\nlogging.getLogger('a.b').debug('x'); logging.getLogger('c').debug('y')"

    assert ["x"] == [line["event"] for line in run(code, SCALEOBS_LOG_LEVEL="info,a=debug")[1]]


@pytest.mark.parametrize("level", ["info,debug", "a=loud", "=info", "info,=debug", "", "info,"])
def test_bad_levels_are_refused(level):
    """The error shows the value and an example."""
    with pytest.raises(scaleobs.SettingsError, match=r"log_level is .*: give "):
        scaleobs.configure_logging(log_level=level)


def test_chain_can_be_changed(capsys):
    """The list can be extended, reordered and shortened; lines of stdlib logging go through it as well."""

    def add_region(logger, method, event):
        event["region"] = "eu"
        return event

    def drop_noise(logger, method, event):
        if event["event"] == "noise":
            raise structlog.DropEvent
        return event

    chain = [add_region, drop_noise, *logs.processors("orders", "7")]
    with scaleobs.configure_logging(processors=chain):
        for logger in (scaleobs.get_logger("a"), logging.getLogger("a")):
            logger.info("noise")
            logger.info("event", extra={"x": 1}) if isinstance(logger, logging.Logger) else logger.info("event", x=1)

    assert [("event", "eu", "orders", 1)] * 2 == [
        (line["event"], line["region"], line["service"], line["x"]) for line in log_lines(capsys)
    ]


def test_chain_of_structlogs_own_processors(capsys):
    """The chain may have processors of structlog."""
    chain = logs.processors()
    chain.insert(0, structlog.processors.CallsiteParameterAdder([structlog.processors.CallsiteParameter.FUNC_NAME]))
    chain.insert(0, structlog.stdlib.PositionalArgumentsFormatter())
    with scaleobs.configure_logging(processors=chain):
        scaleobs.get_logger("a").info("event")
        logging.getLogger("a").info("event")

    assert ["test_chain_of_structlogs_own_processors"] * 2 == [line["func_name"] for line in log_lines(capsys)]


async def hello(scope, receive, send):
    """Answer."""
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"hello"})


def test_elastic_common_schema(registry, capsys):
    """Lines have the names of the schema, in its order, and a duration in nanoseconds."""
    app = scaleobs.instrument(hello, registry=registry, service="orders", version="7", log_schema="ecs")
    asgi(app, path="/x", headers=[("X-Request-ID", "r1")])
    fields = {"mine": 1, "trace.id": "t", "message_": 2}
    logging.getLogger("shop").error("failed", exc_info=ValueError("x"), extra=fields)
    request, failed = log_lines(capsys)

    assert ["@timestamp", "log.level", "message"] == list(request)[:3]
    assert {
        "message": "request.finished",
        "log.level": "info",
        "log.logger": "scaleobs",
        "service.name": "orders",
        "service.version": "7",
        "http.request.id": "r1",
        "http.request.method": "GET",
        "http.route": "unmatched",
        "url.path": "/x",
        "http.response.status_code": 200,
        "client.address": "10.0.0.7",
        "ecs.version": "8.11.0",
    }.items() <= request.items()
    assert isinstance(request["event.duration"], int)
    assert "ValueError: x" in failed["error.stack_trace"]
    assert (1, "t", 2) == (failed["mine"], failed["trace.id_"], failed["message_"])


def test_schema_by_the_environment():
    """The schema can be set by the environment."""
    code = "scaleobs.configure_logging(); scaleobs.get_logger().info('x')"

    assert "x" == run(code, SCALEOBS_LOG_SCHEMA="ECS")[1][0]["message"]
