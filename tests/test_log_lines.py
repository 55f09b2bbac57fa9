"""Long, hostile and colliding values: a line has a bounded length and keeps the important parts."""

from __future__ import annotations

import json
import logging

import pytest
import structlog

import scaleobs
from support import hostile_records
from support.exchanges import log_lines

MAX_LINE_BYTES = 16_384


@pytest.fixture(autouse=True)
def _configured():
    """Configure logging as `instrument` does for a service."""
    scaleobs.configure_logging(service="orders", version="1.2", log_format="json")


@pytest.fixture
def logged(capfdbinary):
    """Return a function that logs, and returns the one line that was written."""

    def log(event="event", **fields):
        structlog.get_logger("shop").error(event, **fields)
        captured = capfdbinary.readouterr()
        assert b"" == captured.err
        assert 1 == captured.out.count(b"\n")
        assert MAX_LINE_BYTES >= len(captured.out)
        return json.loads(captured.out)

    return log


def test_long_text_is_cut_in_the_middle(logged):
    """Its beginning and its end remain, with its length between them; `truncated` is true."""
    line = logged(body="a" * 500_000 + "z" * 500_000, order=7)

    assert line["body"].startswith("aaa")
    assert line["body"].endswith("zzz")
    assert "[1000000 characters]" in line["body"]
    assert (True, 7, "orders") == (line["truncated"], line["order"], line["service"])


def test_short_line_is_not_marked(logged):
    """Only a line of which a part is missing has `truncated`."""
    assert "truncated" not in logged(body="a" * 10_000)


@pytest.mark.parametrize("number", range(len(hostile_records.VALUES)))
def test_hostile_value(number, logged):
    """Any value, as a field, a nested value, a key or the event, results in one valid line of bounded length."""
    value = hostile_records.VALUES[number]

    assert "event" == logged(value=value)["event"]
    assert "event" == logged(value=[{"a": (value, 1)}])["event"]
    assert "orders" == logged(value)["service"]


def test_very_many_keys(logged):
    """If the names alone are too long, the standard keys remain, and the number of keys."""
    line = logged(**{f"{number:0100}": "v" for number in range(5000)})

    assert ("event", "orders", True) == (line["event"], line["service"], line["truncated"])
    assert line["keys"] > 5000


def test_long_exception_keeps_what_matters(logged):
    """Its type, its message, the innermost frames and the root cause remain."""
    error = hostile_records.chained(40, message="m" * 5000)
    error.__cause__.__cause__ = hostile_records.failing(depth=0, message="the root cause")
    line = logged(exc_info=hostile_records.chained(300, message="m" * 3000))

    assert "KeyError: 'the root cause'" in line["exception"]
    assert "RuntimeError: mmm" in line["exception"]
    assert line["exception"].rstrip().endswith("m 299")
    assert "[301 exceptions in this chain]" in line["exception"]
    assert line["truncated"]
    assert "direct cause" in line["exception"]


def test_deep_stack_keeps_its_innermost_frames(logged):
    """Of a recursion of many functions the innermost ones remain."""
    scope = {}
    functions = "\n".join(f"def f{n}():\n    return f{n + 1}()\n" for n in range(400))
    exec(compile(functions + "def f400():\n    return 1 / 0\n", "a" * 200 + ".py", "exec"), scope)
    try:
        scope["f0"]()
    except ZeroDivisionError as error:
        line = logged(exc_info=error)

    assert line["exception"].endswith("ZeroDivisionError: division by zero")
    assert "in f400" in line["exception"]
    assert "in f399" in line["exception"]
    assert line["truncated"]


def test_short_exception_is_as_python_prints_it(logged):
    """In full, also chains and groups."""
    line = logged(exc_info=ExceptionGroup("several", [hostile_records.chained(2), ValueError("x")]))

    assert "ExceptionGroup: several (2 sub-exceptions)" in line["exception"]
    assert "RuntimeError: link 1" in line["exception"]
    assert "KeyError: 'the root cause'" in line["exception"]
    assert "truncated" not in line


def test_chain_with_a_circle(logged):
    """An exception that is its own cause is printed once."""
    one, two = ValueError("one"), ValueError("two")
    one.__context__, two.__context__ = two, one

    assert "ValueError: one" in logged(exc_info=one)["exception"]


class Textless(Exception):  # noqa: N818
    """Has no text."""

    def __str__(self):
        raise RuntimeError

    __repr__ = __str__


def test_exception_without_text(logged):
    """Its type is in the line."""
    assert "Textless" in logged(exc_info=Textless())["exception"]


def test_keys_that_collide_with_ours(logged):
    """A field with the name of a standard key is kept with an underscore after its name."""
    fields = {"timestamp": 1, "level": "gold", "logger": "own", "service": "other", "version": [2], "timestamp_": 3}
    line = logged(**fields)

    assert ("error", "shop", "orders", "1.2") == tuple(line[key] for key in ("level", "logger", "service", "version"))
    assert ("gold", "own", "other", [2]) == tuple(line[f"{key}_"] for key in ("level", "logger", "service", "version"))
    assert {1, 3} == {line["timestamp_"], line["timestamp__"]}


def test_extra_that_collides_with_ours(capsys):
    """The same for `extra` of stdlib logging, which may contain an event."""
    logging.getLogger("shop").warning("event", extra={"level": "gold", "event": "mine", "exception": "own", "stack": 1})
    line = log_lines(capsys)[0]

    assert ("warning", "event", "gold", "mine", "own") == (
        *(line["level"], line["event"]),
        *(line["level_"], line["event_"], line["exception"]),
    )


def test_exception_beside_a_key_of_that_name(logged):
    """Both are in the line."""
    line = logged(exception="own", exc_info=ValueError("raised"))

    assert ("own", True) == (line["exception_"], line["exception"].endswith("ValueError: raised"))


def test_wrong_format_is_logged(capfd):
    """A record whose arguments don't match its message keeps its message and its level."""
    logger = logging.getLogger("odd")
    logger.propagate = False
    logger.handlers[:] = [one for one in logging.getLogger().handlers if type(one).__name__ == "StdoutHandler"]
    logger.info("%s %s", 1)  # noqa: PLE1206
    captured = capfd.readouterr()
    logger.handlers.clear()
    logger.propagate = True
    line = json.loads(captured.out)

    assert ("%s %s", [1], "odd", "info") == tuple(line[k] for k in ("event", "args", "logger", "level"))
    assert "" == captured.err
