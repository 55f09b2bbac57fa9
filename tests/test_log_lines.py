"""What becomes of long, hostile and colliding content: a line of bounded length in which what matters is left."""

from __future__ import annotations

import json
import logging

import pytest
import structlog

import scaleobs
from support import hostile_records
from support.exchanges import log_lines

LONGEST = 16_384


@pytest.fixture(autouse=True)
def _configured():
    """Configure logging as `instrument` does for a service."""
    scaleobs.configure_logging(service="orders", version="1.2", log_format="json")


@pytest.fixture
def said(capfdbinary):
    """Return a function that logs, and returns the one line that was written."""

    def say(event="said", **fields):
        structlog.get_logger("shop").error(event, **fields)
        captured = capfdbinary.readouterr()
        assert b"" == captured.err
        assert 1 == captured.out.count(b"\n")
        assert LONGEST >= len(captured.out)
        return json.loads(captured.out)

    return say


def test_long_text_is_cut_in_the_middle(said):
    """Its beginning and its end are there, and its length between them; the line says that something is missing."""
    line = said(body="a" * 500_000 + "z" * 500_000, order=7)

    assert line["body"].startswith("aaa")
    assert line["body"].endswith("zzz")
    assert "[1000000 characters]" in line["body"]
    assert (True, 7, "orders") == (line["truncated"], line["order"], line["service"])


def test_short_line_is_not_said_to_be_cut(said):
    """`truncated` is there only where something is missing."""
    assert "truncated" not in said(body="a" * 10_000)


@pytest.mark.parametrize("number", range(len(hostile_records.VALUES)))
def test_hostile_value(number, said):
    """No value makes the line long, invalid or several, whether it is a field, nested, a key or the event."""
    value = hostile_records.VALUES[number]

    assert "said" == said(value=value)["event"]
    assert "said" == said(value=[{"a": (value, 1)}])["event"]
    assert "orders" == said(value)["service"]


def test_very_many_keys(said):
    """Where the names alone are too long, ours are left, and how many there were."""
    line = said(**{f"{number:0100}": "v" for number in range(5000)})

    assert ("said", "orders", True) == (line["event"], line["service"], line["truncated"])
    assert line["keys"] > 5000


def test_long_exception_keeps_what_matters(said):
    """Its type, its message, the innermost frames and the root cause are there."""
    error = hostile_records.chained(40, message="m" * 5000)
    error.__cause__.__cause__ = hostile_records.failing(depth=0, message="the root cause")
    line = said(exc_info=hostile_records.chained(300, message="m" * 3000))

    assert "KeyError: 'the root cause'" in line["exception"]
    assert "RuntimeError: mmm" in line["exception"]
    assert line["exception"].rstrip().endswith("m 299")
    assert "[301 exceptions in this chain]" in line["exception"]
    assert line["truncated"]
    assert "direct cause" in line["exception"]


def test_deep_stack_keeps_its_innermost_frames(said):
    """Of a recursion of many functions the place where it happened is left."""
    scope = {}
    functions = "\n".join(f"def f{n}():\n    return f{n + 1}()\n" for n in range(400))
    exec(compile(functions + "def f400():\n    return 1 / 0\n", "a" * 200 + ".py", "exec"), scope)
    try:
        scope["f0"]()
    except ZeroDivisionError as error:
        line = said(exc_info=error)

    assert line["exception"].endswith("ZeroDivisionError: division by zero")
    assert "in f400" in line["exception"]
    assert "in f399" in line["exception"]
    assert line["truncated"]


def test_short_exception_is_as_python_prints_it(said):
    """Chains and groups with them, in full."""
    line = said(exc_info=ExceptionGroup("several", [hostile_records.chained(2), ValueError("x")]))

    assert "ExceptionGroup: several (2 sub-exceptions)" in line["exception"]
    assert "RuntimeError: link 1" in line["exception"]
    assert "KeyError: 'the root cause'" in line["exception"]
    assert "truncated" not in line


def test_chain_with_a_circle(said):
    """An exception that led to itself is told once."""
    one, two = ValueError("one"), ValueError("two")
    one.__context__, two.__context__ = two, one

    assert "ValueError: one" in said(exc_info=one)["exception"]


class Rude(Exception):  # noqa: N818
    """Can't be told."""

    def __str__(self):
        raise RuntimeError

    __repr__ = __str__


def test_exception_without_text(said):
    """Its type is told."""
    assert "Rude" in said(exc_info=Rude())["exception"]


def test_keys_that_collide_with_ours(said):
    """What the application calls by a name of ours is kept with an underscore behind it; nothing is lost."""
    theirs = {"timestamp": 1, "level": "gold", "logger": "theirs", "service": "other", "version": [2], "timestamp_": 3}
    line = said(**theirs)

    assert ("error", "shop", "orders", "1.2") == tuple(line[key] for key in ("level", "logger", "service", "version"))
    assert ("gold", "theirs", "other", [2]) == tuple(
        line[f"{key}_"] for key in ("level", "logger", "service", "version")
    )
    assert {1, 3} == {line["timestamp_"], line["timestamp__"]}


def test_extra_that_collides_with_ours(capsys):
    """The same for the standard library's `extra`, where an event may be among them."""
    logging.getLogger("shop").warning(
        "said", extra={"level": "gold", "event": "mine", "exception": "theirs", "stack": 1}
    )
    line = log_lines(capsys)[0]

    assert ("warning", "said", "gold", "mine", "theirs") == (
        *(line["level"], line["event"]),
        *(line["level_"], line["event_"], line["exception"]),
    )


def test_exception_beside_a_key_of_that_name(said):
    """Both are there."""
    line = said(exception="theirs", exc_info=ValueError("ours"))

    assert ("theirs", True) == (line["exception_"], line["exception"].endswith("ValueError: ours"))


def test_format_that_is_wrong_is_told(capfd):
    """A record whose arguments don't fit is told with its message, on stdout alone."""
    logger = logging.getLogger("odd")
    logger.propagate = False
    logger.handlers[:] = [one for one in logging.getLogger().handlers if type(one).__name__ == "StdoutHandler"]
    logger.info("%s %s", 1)  # noqa: PLE1206
    captured = capfd.readouterr()
    logger.handlers.clear()
    logger.propagate = True
    line = json.loads(captured.out)

    assert ("log.unreadable", "%s %s", "odd", "error") == tuple(
        line[k] for k in ("event", "message", "logger", "level")
    )
    assert "" == captured.err
