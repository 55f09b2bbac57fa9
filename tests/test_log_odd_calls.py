"""Log calls with wrong arguments, records with missing attributes, and stacks: no line loses its text or level."""

from __future__ import annotations

import json
import logging

import pytest
import structlog

import scaleobs
from support.exchanges import log_lines


class HostileError(Exception):
    """An exception whose text raises."""

    def __str__(self):
        raise RuntimeError


class Brace(logging.LogRecord):
    """A record whose message is formatted with braces."""

    def getMessage(self):  # noqa: N802 - The name of the standard library.
        """Return the message."""
        return self.msg.format(*self.args)


@pytest.fixture(autouse=True)
def _silent_pytest(monkeypatch):
    """Keep the handlers of pytest from raising what a message raises."""
    monkeypatch.setattr("_pytest.logging.LogCaptureHandler.handleError", lambda *_: None)


@pytest.fixture(params=["stdlib", "structlog"])
def log(request, capsys):
    """Return a function that logs a warning with arguments, and returns its line."""
    scaleobs.configure_logging(service="orders", log_format="json")
    logger = logging.getLogger("shop") if request.param == "stdlib" else structlog.get_logger("shop")

    def warn(*args, **named):
        logger.warning(*args, **named)
        [line] = log_lines(capsys)
        return line

    return warn


@pytest.mark.parametrize(
    ("message", "args", "field"),
    [
        ("bad %d", ("x",), ["x"]),
        ("%s and %s", ("one",), ["one"]),
        ("no placeholder", (1, 2), [1, 2]),
        ("100% yours", ("x",), ["x"]),
        ("%(name)s", ({"other": 1},), [{"other": 1}]),
        ("%(name)s", (5,), [5]),
        ("%c", ("too long",), ["too long"]),
        ("%s %", (1,), [1]),
    ],
)
def test_wrong_arguments_stay_beside_the_message(log, message, args, field):
    """The event is the message, the level stays, and `args` has the arguments."""
    line = log(message, *args)

    assert (message, "warning", "shop") == (line["event"], line["level"], line["logger"])
    assert line["args"] == field or [line["args"]] == field


def test_argument_whose_text_raises(log):
    """The message stays, and a text in place of the argument names what it raises."""
    line = log("odd: %s", HostileError())

    assert ("odd: %s", "warning") == (line["event"], line["level"])
    assert "RuntimeError" in json.dumps(line["args"])


def test_wrong_arguments_hide_no_secret(log):
    """If the message names a secret, the arguments are redacted: one of them is its value."""
    line = log("password=%s of %s", "hunter2")

    assert "hunter2" not in json.dumps(line)
    assert "warning" == line["level"]


def test_record_of_another_format(capsys):
    """A record that formats its message otherwise keeps its text, too."""
    scaleobs.configure_logging(log_format="json")
    record = Brace("shop", logging.WARNING, "", 0, "{} and {}", ("one",), None)
    logging.getLogger("shop").handle(record)
    [line] = log_lines(capsys)

    assert ("{} and {}", "warning", ["one"]) == (line["event"], line["level"], line["args"])


@pytest.mark.parametrize(
    ("odd", "level"),
    [
        ({"levelname": None, "levelno": 40}, "error"),
        ({"levelname": [], "levelno": 30}, "warning"),
        ({"levelname": None, "levelno": None}, "info"),
        ({"levelname": "ERROR", "levelno": "40"}, "error"),
        ({}, "info"),
        ({"name": None, "created": "yesterday", "levelname": None}, "info"),
    ],
)
def test_record_with_odd_attributes(odd, level, capsys):
    """A record that another process or `makeLogRecord` has made has a line, with the nearest level."""
    scaleobs.configure_logging(log_format="json")
    record = logging.makeLogRecord({"msg": "made", "order": 7, **odd})
    logging.getLogger().handlers[-1].handle(record)
    [line] = log_lines(capsys)

    assert ("made", level, 7) == (line["event"], line["level"], line["order"])
    assert isinstance(line["logger"], str)


@pytest.mark.parametrize("missing", ["exc_info", "exc_text", "stack_info", "args", "levelname", "created", "name"])
def test_record_without_an_attribute(missing, capsys):
    """A record without an attribute that all records have is written."""
    scaleobs.configure_logging(log_format="json")
    record = logging.LogRecord("shop", logging.ERROR, "", 0, "made", (), None)
    delattr(record, missing)
    logging.getLogger().handlers[-1].handle(record)
    [line] = log_lines(capsys)

    assert ("made", "error") == (line["event"], line["level"])


def test_stack_of_structlog_is_a_field(capsys):
    """`stack_info=True` adds `stack`, which ends with the call; a field of that name is kept."""
    scaleobs.configure_logging(log_format="json")
    logger = structlog.get_logger("shop")
    logger.info("where", stack_info=True)
    logger.bind(order=7).log(logging.WARNING, "log", stack_info=True)
    logger.info("mine", stack_info=True, stack="mine")
    try:
        raise KeyError("it")  # noqa: TRY301 - It is to have been raised.
    except KeyError:
        logger.exception("exception", stack_info=True)
    logger.info("none", stack_info=False)
    *lines, last = log_lines(capsys)

    assert ["where", "log", "mine", "exception"] == [line["event"] for line in lines]
    for line in lines:
        assert "stack_info" not in line
        stack = line["stack_" if line["event"] == "mine" else "stack"]
        assert stack.startswith("Stack (most recent call last):")
        assert "stack_info=True" in stack.splitlines()[-1]
    assert "mine" == lines[2]["stack"]
    assert {"stack", "stack_info"}.isdisjoint(last)


def test_stack_of_stdlib_logging_is_the_same_field(capsys):
    """As with `logging`."""
    scaleobs.configure_logging(log_format="json")
    logging.getLogger("shop").error("where", stack_info=True)
    [line] = log_lines(capsys)

    assert "stack_info=True" in line["stack"].splitlines()[-1]


class Array:
    """A value like numpy's arrays, which neither compares to a truth value nor has one."""

    def __eq__(self, other):
        return self

    __hash__ = None

    def __bool__(self):
        raise ValueError("The truth value of an array is ambiguous")

    def __len__(self):
        raise TypeError

    def __str__(self):
        return "[1 2]"


@pytest.mark.parametrize("name", ["tokens", "password", "value", "exc_info", "request_id", "event", "stack"])
def test_value_whose_comparison_has_no_truth_value(name, log):
    """An array under any name leaves its line readable."""
    if name == "exc_info" and isinstance(log, logging.Logger):
        return
    fields = {name: Array()}
    try:
        line = log("counted", extra=fields) if name not in ("exc_info", "event") else log("counted", nested=[Array()])
    except TypeError:  # The keyword of stdlib logging.
        line = log("counted", extra={"nested": [fields]})

    assert ("counted", "warning") == (line["event"], line["level"])


@pytest.mark.parametrize("name", ["tokens", "password", "value", "exc_info", "request_id", "stack", "stack_info"])
def test_such_a_value_in_a_call_of_structlog(name, capsys):
    """So does one that is a keyword of structlog."""
    scaleobs.configure_logging(log_format="json")
    structlog.get_logger("shop").warning("counted", **{name: Array()})
    [line] = log_lines(capsys)

    assert ("counted", "warning") == (line["event"], line["level"])
