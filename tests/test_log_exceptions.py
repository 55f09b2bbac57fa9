"""Exceptions with odd attributes, and groups: each line has the types, the messages and the root cause."""

from __future__ import annotations

import asyncio
import functools
import logging

import pytest
import structlog

import scaleobs
from support.exchanges import asgi, log_lines, wsgi


class RecursingError(Exception):
    """An exception whose attributes call themselves."""

    def __getattr__(self, name):
        return getattr(self, name + "_")


class EverythingError(Exception):
    """An exception without a readable attribute."""

    def __getattribute__(self, name):
        raise RuntimeError(name)


class NoTextError(Exception):
    """An exception whose text ends the process."""

    def __str__(self):
        raise SystemExit(3)


class NotesError(Exception):
    """An exception whose notes raise."""

    @property
    def __notes__(self):
        raise KeyboardInterrupt


class NoTruthError(Exception):
    """An exception that neither compares nor has a truth value."""

    __hash__ = None

    def __bool__(self):
        raise ValueError

    __len__ = __bool__

    def __eq__(self, other):
        raise ValueError


class NoChainError(Exception):
    """An exception whose chain and stack raise."""

    with_traceback = None
    __traceback__ = __cause__ = __context__ = __suppress_context__ = property(lambda _: 1 / 0)


class OddClass(type):
    """A class whose attributes raise."""

    def __getattribute__(cls, name):
        raise RuntimeError(name)


class OddClassError(Exception, metaclass=OddClass):
    """An exception of such a class."""


class OddGroup(ExceptionGroup):
    """A group whose members raise when they are read."""

    exceptions = message = property(lambda _: 1 / 0)


KINDS = (RecursingError, EverythingError, NoTextError, NotesError, NoTruthError, NoChainError, OddClassError)


async def raise_by_asgi(make, scope, receive, send):
    """Raise."""
    raise make()


def raise_by_wsgi(make, environ, start_response):
    """Raise."""
    raise make()


@pytest.mark.parametrize("call", [asgi, wsgi])
@pytest.mark.parametrize("is_ours", [True, False], ids=["json", "own handlers"])
@pytest.mark.parametrize("number", range(len(KINDS) + 1))
def test_line_of_a_request_that_raises_a_hostile_exception(number, is_ours, call, registry, capsys):
    """It is written, with the type and the place, and no fault is counted; the server receives the exception."""
    made = KINDS[number]("it") if number < len(KINDS) else OddGroup("it", [ValueError("in it")])
    root = logging.getLogger()
    before = list(root.handlers)
    if not is_ours:
        root.addHandler(logging.StreamHandler())
    app = functools.partial(raise_by_asgi if call is asgi else raise_by_wsgi, lambda: made)
    served = scaleobs.instrument(app, registry=registry, log_format="json" if is_ours else "auto")
    capsys.readouterr()
    try:
        seen = call(served)
        captured = capsys.readouterr()
    finally:
        root.handlers[:] = before
    text = captured.out + captured.err

    assert made is seen.error
    assert 1 == text.count("request.finished")
    assert "raise make()" in text or not is_ours
    assert "Logging error" not in text
    assert "scaleobs.fault" not in text
    assert 0 == registry.get_sample_value("scaleobs_internal_faults_total")


def failed(text, cause=None):
    """Return an exception that was raised, perhaps with a cause."""
    try:
        raise ValueError(text) from cause  # noqa: TRY301 - It is to have been raised.
    except ValueError as error:
        return error


@pytest.fixture
def exception(capsys):
    """Return a function that logs an exception, and returns its text in the line."""
    scaleobs.configure_logging(log_format="json")

    def log(error):
        structlog.get_logger("shop").error("failed", exc_info=error)
        [line] = log_lines(capsys)
        return line["exception"]

    return log


def test_long_message_in_a_task_group_keeps_its_cause(exception):
    """A member with a message of 9,000 characters: its type, the message's ends and its cause remain."""

    async def work():
        try:
            raise ConnectionError("no route to host")  # noqa: TRY301
        except ConnectionError as error:
            raise ValueError("m" * 9000) from error

    async def run():
        async with asyncio.TaskGroup() as group:
            group.create_task(work())

    with pytest.raises(ExceptionGroup) as raised:
        asyncio.run(run())
    text = exception(raised.value)

    assert "ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)" in text
    assert "ValueError: mmm" in text
    assert "ConnectionError: no route to host" in text.splitlines()[-1]
    assert "in work" in text


@pytest.mark.parametrize("count", [2, 16, 20, 50, 120])
@pytest.mark.parametrize("length", [0, 40, 9000])
def test_each_member_keeps_its_type_and_message(exception, count, length):
    """No member in the middle vanishes, and the last one has its cause."""
    kinds = [KeyError, OSError, RuntimeError]
    members = [kinds[number % 3](f"number {number}" + "m" * length) for number in range(count - 1)]
    text = exception(ExceptionGroup("several", [*members, failed("the last", ConnectionError("refused"))]))

    assert [] == [number for number in range(count - 1) if f"number {number}" not in text]
    assert count // 3 <= text.count("KeyError")
    assert "ConnectionError: refused" in text
    assert "ValueError: the last" in text


def test_members_of_members_and_causes_that_are_groups(exception):
    """Groups in groups, in causes and behind a long chain keep theirs."""
    inner = ExceptionGroup(
        "inner", [failed(f"inner {number}" + "i" * 200, OSError(f"disk {number}")) for number in range(10)]
    )
    outer = ExceptionGroup("outer", [failed("beside" + "b" * 3000), inner])
    text = exception(failed("after", outer))

    assert "ValueError: after" in text
    assert [] == [number for number in range(10) if f"inner {number}" not in text or f"disk {number}" not in text]


def test_very_many_members(exception):
    """If there is no room, the first and the last ones remain, and the types of the others are counted."""
    text = exception(ExceptionGroup("many", [failed(f"number {number}" + "x" * 100) for number in range(5000)]))

    assert "number 0" in text
    assert "more members: ValueError x" in text
    assert 8192 >= len(text)


def test_equal_members_share_a_line(exception):
    """A thousand equal members are one line with their number."""
    text = exception(ExceptionGroup("many", [TimeoutError("slow")] * 999 + [OSError("other")]))

    assert "1 and 998 more TimeoutError: slow" in text
    assert "OSError: other" in text


def test_groups_in_groups_without_end(exception):
    """The innermost one remains, however deep it is."""
    error = RuntimeError("the root")
    for _ in range(3000):
        error = ExceptionGroup("one", [error])

    assert "RuntimeError: the root" in exception(error)
