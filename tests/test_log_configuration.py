"""Where lines are written, and which configuration applies."""

from __future__ import annotations

import functools
import io
import json
import logging
import os
import pty
import subprocess
import sys

import pytest
import structlog

import scaleobs
from scaleobs.logs._configure import ACCESS_LOGGERS, SERVER_LOGGERS, take_loggers
from support.exchanges import asgi, log_lines


async def hello(scope, receive, send):
    """Answer."""
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"hello"})


def service(registry, **settings):
    """Return a new instrumented application."""
    return scaleobs.instrument(functools.partial(hello), registry=registry, **settings)


@pytest.fixture
def configured():
    """Configure logging as `instrument` does for a service."""
    scaleobs.configure_logging(service="orders", version="1.2", log_format="json")


class Closed(io.StringIO):
    """A stdout whose reader is gone."""

    def write(self, text):
        """Fail."""
        raise BrokenPipeError


def closed():
    """Return a closed stdout."""
    out = io.StringIO()
    out.close()
    return out


@pytest.mark.parametrize("make", [lambda: None, Closed, closed])
def test_requests_are_served_without_stdout(make, registry, monkeypatch):
    """If stdout is None, closed or broken, lines are lost and requests are served."""
    app = service(registry)
    monkeypatch.setattr(sys, "stdout", make())
    logging.getLogger("x").warning("lost")
    seen = asgi(app)
    monkeypatch.undo()

    assert (200, None) == (seen.status, seen.error)


def test_ascii_stdout_loses_no_line(configured, monkeypatch):
    """Under a C locale, characters that stdout can't write are escaped."""
    raw = io.BytesIO()
    ascii_only = io.TextIOWrapper(raw, encoding="ascii")
    monkeypatch.setattr(sys, "stdout", ascii_only)
    structlog.get_logger().info("ü 🎉")
    logging.getLogger("x").info("ü 🎉")
    monkeypatch.undo()

    assert ["ü 🎉"] * 2 == [json.loads(line)["event"] for line in raw.getvalue().splitlines()]


def test_logging_of_the_application_is_left_alone(registry, capsys):
    """If the application has configured logging, it stays, and `request.finished` goes through it, after a hint."""
    records = []

    class Keeping(logging.Handler):
        def emit(self, record):
            records.append(record)

    handler = Keeping()
    logging.getLogger().handlers[:] = [handler]
    logging.getLogger().setLevel(logging.INFO)
    asgi(service(registry))

    assert [handler] == logging.getLogger().handlers
    assert not structlog.is_configured()
    assert [("request.finished", "scaleobs", 200)] == [(r.getMessage(), r.name, r.status_code) for r in records[1:]]
    assert ["logging.left_alone"] == [r.getMessage() for r in records[:1]]
    assert "" == capsys.readouterr().out


def test_structlog_of_the_application_is_left_alone(registry):
    """The same for an application that has configured structlog."""
    events = []

    def keep(logger, method, event):
        events.append((method, event["event"], event["status_code"]))
        raise structlog.DropEvent

    structlog.configure(processors=[keep])
    asgi(service(registry))

    assert [("info", "request.finished", 200)] == events
    assert [keep] == structlog.get_config()["processors"]


def test_lines_of_servers_are_json(configured, capsys):
    """Lines of uvicorn and gunicorn are JSON, once, without colours; their access lines are dropped."""
    for name in (*SERVER_LOGGERS, *ACCESS_LOGGERS):
        logging.getLogger(name).addHandler(logging.StreamHandler(sys.stderr))
        logging.getLogger(name).setLevel(logging.INFO)
    take_loggers()
    for name in (*SERVER_LOGGERS, *ACCESS_LOGGERS):
        logging.getLogger(name).info("from %s", name, extra={"color_message": "\x1b[1m"})
    captured = capsys.readouterr()
    lines = [json.loads(line) for line in captured.out.splitlines()]

    assert [f"from {name}" for name in SERVER_LOGGERS] == [line["event"] for line in lines]
    assert "color_message" not in lines[0]
    assert "" == captured.err


@pytest.mark.parametrize(("level", "shown"), [("debug", 3), ("info", 2), ("error", 1)])
def test_level_is_that_of_both(level, shown, capsys):
    """The level applies to structlog and to stdlib logging."""
    scaleobs.configure_logging(log_level=level, log_format="json")
    for logger in (scaleobs.get_logger("a"), logging.getLogger("a")):
        logger.debug("1")
        logger.info("2")
        logger.error("3")

    # A background check of an earlier test may start an event loop, which asyncio logs.
    assert 2 * shown == len([line for line in log_lines(capsys) if line["logger"] == "a"])


def test_configuring_again_replaces(capsys):
    """The last call applies, and no line is written twice."""
    for service in ("one", "two"):
        scaleobs.configure_logging(service=service, log_format="json")
    logging.getLogger("a").info("x")
    scaleobs.get_logger("a").info("y")

    assert ["two", "two"] == [line["service"] for line in log_lines(capsys)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"log_level": "loud"}, "log_level is 'loud'"), ({"log_format": "xml"}, "log_format is 'xml'")],
)
def test_bad_configuration_is_refused(arguments, message):
    """The error names the value, as that of `instrument` does."""
    with pytest.raises(scaleobs.SettingsError, match=message):
        scaleobs.configure_logging(**arguments)


@pytest.mark.parametrize(("variable", "is_json"), [("auto", False), ("json", True)])
def test_terminal_has_coloured_lines(variable, is_json):
    """On a terminal the lines are coloured text, unless `log_format` is `json`."""
    reader, terminal = pty.openpty()
    code = "import scaleobs, logging; scaleobs.configure_logging(log_format='%s'); scaleobs.get_logger().info('x', a=1)"
    code += "; logging.getLogger('y').info('z')"
    done = subprocess.run(
        [sys.executable, "-c", code % variable], stdout=terminal, stderr=terminal, timeout=30, check=True
    )
    os.close(terminal)
    text = os.read(reader, 10_000).decode()
    os.close(reader)

    assert 0 == done.returncode
    assert 2 == len(text.splitlines())
    assert is_json is text.startswith("{")
    assert is_json is ("\x1b[" not in text)
