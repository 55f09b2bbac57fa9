"""For any behaviour of an ASGI application and its server, each gets the same as without scaleobs."""

from __future__ import annotations

import functools
import re
import types
from http import HTTPStatus

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

import scaleobs
from support.exchanges import http_scope, without_id

MODES = {
    "plain": {"log_format": "off"},
    "logged": {"log_format": "json"},
    "all": {"log_format": "json", "size_histograms": True, "native_histograms": True},
}


class OddError(BaseException):
    """A `BaseException` such as `KeyboardInterrupt`."""


class Cancelled(BaseException):
    """An exception that a server throws into the task."""


class Unlike:
    """A status without a hash and without a number."""

    def __int__(self):
        raise ValueError

    def __hash__(self):
        raise ValueError


class Message(dict):
    """A message whose methods raise."""

    def __getitem__(self, key):
        raise LookupError(key)


# A sent status, and the status under which it is counted.
STATUSES = [
    *((200, "200"), (204, "204"), (404, "404"), (599, "599"), (HTTPStatus.NOT_FOUND, "404"), ("201", "201")),
    *((202.0, "202"), ("OK", "000"), (10**30, "000"), (-1, "000"), ([200], "000"), (Unlike(), "000"), (7, "007")),
    *((float("nan"), "000"), (b"200", "200"), (None, "500")),
]

ANY_STATUS = st.integers(0, len(STATUSES) - 1).map(STATUSES.__getitem__)


def starts():
    """Return messages that start a response, some without a status."""
    whole = ANY_STATUS.map(lambda one: {"type": "http.response.start", "status": one[0], "headers": [(b"a", b"1")]})
    return st.one_of(whole, whole, st.just({"type": "http.response.start"}))


BODY = {"type": "http.response.body", "body": b"x", "more_body": True}
OTHERS = [
    {"type": "http.response.trailers", "headers": []},
    {"type": "http.response.early_hint", "links": [b"x"]},
    {"type": "http.response.push", "path": "/x"},
    {"type": "http.response.zerocopysend", "file": 3, "more_body": True},
    {"type": ["unhashable"]},
    {"body": b"no type"},
    {"type": "http.response.body", "body": None, "more_body": "yes"},
    Message(type="http.response.body"),
    None,
    "http.response.start",
    17,
]
ENDS = [
    {"type": "http.response.body", "body": b"end"},
    {"type": "http.response.pathsend", "path": "/etc/hostname"},
    {"type": "http.response.zerocopysend", "file": 3},
]
ERRORS = [RuntimeError, OSError, Cancelled, OddError, KeyError, StopAsyncIteration]
SENDS = st.one_of(starts(), st.just(BODY), st.sampled_from(ENDS), st.sampled_from(OTHERS))
STEPS = st.one_of(
    st.tuples(st.sampled_from(["send", "send", "try to send", "race"]), SENDS),
    st.just(("receive", None)),
    st.just(("pause", None)),
    st.tuples(st.just("raise"), st.sampled_from(ERRORS)),
)
SCRIPTS = st.one_of(
    st.lists(STEPS, max_size=8),
    # Mostly in order, with other messages between.
    st.tuples(st.lists(STEPS, max_size=1), starts(), st.lists(STEPS, max_size=2), st.lists(STEPS, max_size=2)).map(
        lambda parts: [*parts[0], ("send", parts[1]), *parts[2], ("send", ENDS[0]), *parts[3]]
    ),
)
SERVERS = st.fixed_dictionaries(
    {
        "is_strict": st.booleans(),
        "fails": st.dictionaries(
            st.integers(0, 6), st.sampled_from([OSError, BrokenPipeError, RuntimeError]), max_size=1
        ),
        "goes": st.sampled_from([1, 2, 99]),
        "cancels": st.one_of(st.none(), st.integers(0, 8)),
        "with_": st.sampled_from([Cancelled, GeneratorExit]),
    }
)


@types.coroutine
def pause():
    """Wait for the server's loop."""
    yield


class Run:
    """One request to an application, driven without an event loop, so that each run is the same."""

    def __init__(self, *, is_strict, fails, goes, cancels, with_):
        self.is_strict, self.fails, self.goes = is_strict, fails, goes
        self.cancels, self.with_ = cancels, with_
        self.story = []  # All events in order, of the application and of the server.
        self.sends = self.receives = 0
        self.is_started = False

    async def receive(self):
        """Send the request, and then a disconnect."""
        self.receives += 1
        await pause()
        return {"type": "http.request"} if self.receives <= self.goes else {"type": "http.disconnect"}

    async def send(self, message):
        """Accept or refuse a message, as a server does."""
        self.sends += 1
        plain_message = without_id(message)
        self.story.append(("server got", 0 if plain_message is not message else id(message), repr(plain_message)))
        await pause()
        if self.sends - 1 in self.fails:
            raise self.fails[self.sends - 1]("by the server")
        if self.is_strict:
            kind = message["type"]
            if kind == "http.response.start":
                if self.is_started:
                    raise RuntimeError("started twice")
                self.is_started = True
            elif not self.is_started:
                raise RuntimeError("not started")
        self.story.append(("server took", repr(plain_message)))

    def serve(self, app, script):
        """Serve the request, and return all events."""
        coroutine = app({**http_scope(), "script": script, "story": self.story}, self.receive, self.send)
        pauses = 0
        try:
            coroutine.send(None)
            while True:
                pauses += 1
                if pauses == self.cancels:
                    coroutine.throw(self.with_("by the server"))
                else:
                    coroutine.send(None)
        except StopIteration as stopped:
            return ("returned", stopped.value)
        except BaseException as error:
            return (type(error), str(error), type(error.__cause__), type(error.__context__))


async def race(sending, receive):
    """Receive while a message is on its way; a disconnect cancels the message, as Starlette's listener does."""
    try:
        sending.send(None)
    except StopIteration:
        return "sent at once"
    except Exception as error:
        return type(error), str(error)
    if (await receive())["type"] == "http.disconnect":
        try:
            sending.throw(Cancelled("by the listener"))
        except Cancelled:
            return "cancelled"
    try:
        await finish(sending)
    except Exception as error:
        return type(error), str(error)
    return "sent"


@types.coroutine
def finish(coroutine):
    """Await a coroutine that has begun."""
    while True:
        try:
            coroutine.send(None)
        except StopIteration:
            return
        yield


async def application(scope, receive, send):
    """Run the steps of the scope."""
    story = scope["story"]
    for verb, what in scope["script"]:
        if verb == "receive":
            story.append(("application got", await receive()))
        elif verb == "pause":
            await pause()
        elif verb == "raise":
            raise what("by the application")
        elif verb == "send":
            await send(what)
        elif verb == "race":
            story.append(("race", await race(send(what), receive)))
        else:
            try:
                await send(what)
            except Exception as error:
                story.append(("application caught", type(error), str(error)))


def instrumented(registry, mode):
    """Return an instrumented application that has served its first request."""
    app = scaleobs.instrument(functools.partial(application), registry=registry, **MODES[mode])
    Run(is_strict=False, fails={}, goes=9, cancels=None, with_=Cancelled).serve(app, [("send", BODY)])
    assert (mode != "all") is scaleobs.observer_of(app)._service.storage.fast_path[0]
    return app


@pytest.fixture(params=MODES)
def observed(request, registry):
    """Return an instrumented application that has served its first request."""
    return instrumented(registry, request.param)


@pytest.fixture
def every_mode():
    """Return the same for every mode, each with its own registry."""
    return [instrumented(CollectorRegistry(), mode) for mode in MODES]


def counts(app):
    """Return how many requests were counted by labels, after checks that hold at any time."""
    now = scaleobs.observer_of(app)._service.storage.read()

    assert 0 == now.active["http"]
    assert 0 == now.faults
    return {one.labels: sum(one.slots[: len(one.bounds) + 1]) for one in now.children}


@settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=SCRIPTS, server=SERVERS)
def test_any_script_is_served_as_without_us(observed, script, server):
    """Server and application get the same messages, objects and errors in the same order; one request is counted."""
    bare, ours = Run(**server), Run(**server)
    before = counts(observed)

    expected = bare.serve(application, script)
    seen = ours.serve(observed, script)
    after = counts(observed)

    assert expected == seen
    assert bare.story == ours.story
    assert 1 == sum(after.values()) - sum(before.values())
    assert all(re.fullmatch(r"[0-9]{3}", status) for _, _, status in after)


def difference(before, after):
    """Return the counts that have changed."""
    return {labels: count - before.get(labels, 0) for labels, count in after.items() if count != before.get(labels, 0)}


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=SCRIPTS, server=SERVERS)
def test_any_script_is_counted_alike_in_every_mode(every_mode, script, server):
    """The count does not depend on whether logs or more are on."""
    found = []
    for app in every_mode:
        before = counts(app)
        Run(**server).serve(app, script)
        found.append(difference(before, counts(app)))

    assert [found[0]] * len(found) == found


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    status=ANY_STATUS,
    chunks=st.integers(0, 3),
    reads=st.integers(0, 3),
    end=st.sampled_from([*ENDS, None]),
    verb=st.sampled_from(["send", "race"]),
    last=st.sampled_from([None, RuntimeError, OSError, OddError]),
)
def test_any_answer_is_counted_under_what_became_of_it(observed, status, chunks, reads, end, verb, last):
    """
    The status is the sent one if the last byte was sent or the client disconnected, and 500 for a cut response.

    The client goes when the application has read twice, perhaps while the last message is on its way.
    """
    value, code = status
    script = [("send", {"type": "http.response.start", "status": value}), *[("send", BODY)] * chunks]
    script += [("receive", None)] * reads
    script += [(verb, end)] if end is not None else []
    script += [("raise", last)] if last is not None else []
    is_whole = end is not None or reads > 1
    before = counts(observed)

    Run(is_strict=False, fails={}, goes=1, cancels=None, with_=Cancelled).serve(observed, script)
    after = counts(observed)
    gone = "499" if value is None and reads > 1 else code

    assert {("GET", "unmatched", gone if is_whole else "500"): 1} == difference(before, after)
