"""Every line on stdout is one JSON object, from any logger."""

from __future__ import annotations

import functools
import json
import logging
import threading

import pytest
import structlog

import scaleobs
from scaleobs.logs._logger import StdoutHandler
from support.exchanges import asgi, counted, finished, log_lines


class Silent:
    """Has no text."""

    def __str__(self):
        raise RuntimeError

    __repr__ = __str__


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


def shop():
    """Return a logger with our handler only: those of pytest raise if they can't format a record."""
    logger = logging.getLogger("shop")
    logger.handlers[:] = [one for one in logging.getLogger().handlers if isinstance(one, StdoutHandler)]
    logger.propagate = False
    return logger


@pytest.fixture(autouse=True)
def _no_shop():
    """Reset the logger."""
    yield
    logging.getLogger("shop").handlers.clear()
    logging.getLogger("shop").propagate = True


def boom(_=None):
    """Raise."""
    msg = "line one\nline two"
    raise ValueError(msg)


def test_line_of_each_logger(configured, capsys):
    """Lines of structlog and of stdlib logging have the same keys in the same order."""
    scaleobs.get_logger("shop").warning("order.placed", order=7)
    logging.getLogger("shop").warning("order %s placed", 7, extra={"order": 7})
    structlog.get_logger().info("plain")
    one, two, three = log_lines(capsys)

    assert ["timestamp", "level", "event", "logger", "service", "version", "order"] == list(one) == list(two)
    assert ("warning", "order.placed", "shop", "orders", "1.2", 7) == tuple(one.values())[1:]
    assert "order 7 placed" == two["event"]
    assert "root" == three["logger"]
    assert one["timestamp"].endswith("Z")


def log_exception(logger):
    """Log an exception."""
    try:
        boom()
    except ValueError:
        logger.exception("it failed")


ODDITIES = {
    "an exception": log_exception,
    "line breaks": lambda logger: logger.info("a\nb\r\n\x00\u2028"),
    "no string": lambda logger: logger.info({"a": [1, Silent()]}),
    "silent": lambda logger: logger.info(Silent()),
    "silent as argument": lambda logger: logger.info("x %s", Silent()),
    "too few arguments": lambda logger: logger.info("%s %s", 1),  # noqa: PLE1206
    "too many arguments": lambda logger: logger.info("none", 1, 2),  # noqa: PLE1205
    "a wrong format": lambda logger: logger.info("%d", "x"),
    "silent and wrong": lambda logger: logger.info(Silent(), 1),
    "percent": lambda logger: logger.info("100%"),
    "surrogates": lambda logger: logger.info("\udc80"),
    "extra": lambda logger: logger.info("event", extra={"level": "mine", "event": "mine", "timestamp": 1, "logger": 2}),
    "extra of ours": lambda logger: logger.info("event", extra={"_record": 1, "_from_structlog": 2, "stack": 3}),
    "exc_info without one": lambda logger: logger.info("event", exc_info=True),  # noqa: LOG014
    "stack": lambda logger: logger.info("event", stack_info=True),
}


@pytest.mark.parametrize("name", ODDITIES)
def test_stdlib_line_with_any_value_is_one_object(name, configured, capsys):
    """A record that can't be formatted is logged on stdout; nothing is raised, and stderr stays empty."""
    ODDITIES[name](shop())
    captured = capsys.readouterr()
    lines = [json.loads(line) for line in captured.out.split("\n") if line]

    assert 1 == len(lines)
    assert "" == captured.err
    assert {"timestamp", "level", "event", "logger"} <= set(lines[0])
    assert "shop" == lines[0]["logger"]
    if name == "extra":
        assert ("info", "event") == (lines[0]["level"], lines[0]["event"])
    if name == "an exception":
        assert "ValueError: line one\nline two" in lines[0]["exception"]


@pytest.mark.parametrize("value", ["a\nb", float("nan"), b"\xff", Silent(), {1, 2}, 10**5000, "\udc80"], ids=type)
def test_structlog_line_with_any_value_is_one_object(value, configured, capsys):
    """The same for structlog."""
    structlog.get_logger("shop").info("event", value=value, exc_info=ValueError("x"))

    assert ["event"] == [line["event"] for line in log_lines(capsys)]


def test_lines_of_a_request_carry_its_id(registry, capsys):
    """Lines of structlog, of stdlib logging and of threads have the request's id; lines outside have none."""

    async def app(scope, receive, send):
        import asyncio

        scaleobs.get_logger().info("by structlog")
        logging.getLogger("x").info("by stdlib")
        await asyncio.to_thread(logging.getLogger("x").info, "in a thread")
        await hello(scope, receive, send)

    app = scaleobs.instrument(app, registry=registry)
    for number in (1, 2):
        asgi(app, headers=[("X-Request-ID", f"r{number}")])
    logging.getLogger("x").info("outside")
    lines = log_lines(capsys)

    assert ["r1"] * 4 + ["r2"] * 4 + [None] == [line.get("request_id") for line in lines]


def test_exception_is_logged_once(registry, capsys):
    """If the server logs the same exception again, as uvicorn does, its line has no stack."""

    async def app(scope, receive, send):
        boom()

    error = asgi(scaleobs.instrument(app, registry=registry)).error
    logging.getLogger("uvicorn.error").error("Exception in ASGI application\n", exc_info=error)
    access, server = log_lines(capsys)

    assert "ValueError: line one" in access["exception"]
    assert "Exception in ASGI application" == server["event"]
    assert "exception" not in server


def test_lines_of_threads_are_not_torn(configured, capfd):
    """Long lines of eight threads are whole."""

    def write():
        for number in range(100):
            logging.getLogger("x").info("%s", "x" * 3000 + str(number))

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 800 == len([json.loads(line) for line in capfd.readouterr().out.splitlines()])


def test_processor_that_raises_fails_no_request(registry):
    """If a processor of the application raises, a fault is counted, and the request is served."""
    structlog.configure(processors=[lambda *_: boom()])
    app = service(registry)
    scaleobs.observer_of(app).check("bad")(lambda: False)

    assert (200, None) == ((seen := asgi(app)).status, seen.error)
    assert 503 == asgi(app, path="/ready").status
    assert {("GET", "unmatched", "200"): 1} == counted(registry)
    assert 1 == registry.get_sample_value("scaleobs_internal_faults_total")


def test_request_line_has_every_key(registry, capsys):
    """The access line has all documented keys."""
    asgi(service(registry, service="orders", version="7"), path="/x")
    line = finished(capsys)[0]

    assert {
        *("timestamp", "level", "event", "logger", "service", "version", "request_id"),
        *("method", "route", "path", "status_code", "duration_seconds", "client"),
    } == set(line)


def test_stdout_that_is_none_for_a_while(monkeypatch, capsys):
    """The line in between is lost; the same stream gets the later lines, and the number of lost ones."""
    scaleobs.configure_logging(log_format="json")
    log = scaleobs.get_logger("shop")
    log.info("before")
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdout", None)
        log.info("lost")
    log.info("after")

    assert ["before", "after", "log.lines_lost"] == [line["event"] for line in log_lines(capsys)]
