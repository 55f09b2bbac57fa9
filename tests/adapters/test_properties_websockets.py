"""For any behaviour of an application of WebSockets and its server, each gets the same as without scaleobs."""

from __future__ import annotations

import functools
import types

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import scaleobs

MODES = {"plain": {"log_format": "off"}, "logged": {"log_format": "json"}}


class OddError(BaseException):
    """A `BaseException` such as `KeyboardInterrupt`."""


class Cancelled(BaseException):
    """An exception that a server throws into the task."""


class Message(dict):
    """A message whose methods raise."""

    def __getitem__(self, key):
        raise LookupError(key)


START, PART = "websocket.http.response.start", "websocket.http.response.body"
ACCEPT = {"type": "websocket.accept"}
CODES = st.sampled_from([1000, 1001, 1006, 3000, 4001, 4999, 9999, 0, None, "1000", 1.5, [1000], True])
CLOSES = st.one_of(
    st.just({"type": "websocket.close"}), CODES.map(lambda code: {"type": "websocket.close", "code": code})
)
STARTS = st.sampled_from([200, 401, 503, "429", None, "x", 10**30]).map(
    lambda status: {"type": START, "status": status}
)
PARTS = st.sampled_from([{"type": PART, "more_body": True}, {"type": PART, "body": b"end"}, {"type": PART}])
OTHERS = st.sampled_from(
    [
        {"type": "websocket.send", "text": "hello"},
        {"type": "http.response.start", "status": 200},
        {"type": ["unhashable"]},
        {"body": b"no type"},
        {"type": START},
        {"type": "websocket.accept", "headers": None},
        {"type": "websocket.accept", "headers": [(b"a", b"1")]},
        Message(type="websocket.accept"),
        None,
        "websocket.accept",
        17,
    ]
)
SENDS = st.one_of(st.just(ACCEPT), st.just(ACCEPT), CLOSES, STARTS, PARTS, OTHERS)
ERRORS = [RuntimeError, OSError, Cancelled, OddError, KeyError]
STEPS = st.one_of(
    st.tuples(st.sampled_from(["send", "try to send"]), SENDS),
    st.just(("receive", None)),
    st.just(("pause", None)),
    st.tuples(st.just("raise"), st.sampled_from(ERRORS)),
)
SERVERS = st.fixed_dictionaries(
    {
        "is_strict": st.booleans(),
        "fails": st.dictionaries(
            st.integers(0, 5), st.sampled_from([OSError, BrokenPipeError, RuntimeError]), max_size=1
        ),
        "received": st.lists(
            st.one_of(
                st.just({"type": "websocket.receive", "text": "x"}),
                CODES.map(lambda code: {"type": "websocket.disconnect", "code": code}),
                st.sampled_from([{"type": "websocket.disconnect"}, {}, None, Message(type="websocket.disconnect")]),
            ),
            max_size=3,
        ),
        "cancels": st.one_of(st.none(), st.integers(0, 8)),
        "with_": st.sampled_from([Cancelled, GeneratorExit]),
    }
)


@types.coroutine
def pause():
    """Wait for the server's loop."""
    yield


def without_id(message):
    """Return a message without the id of its request."""
    if type(message) is not dict or message.get("type") not in ("websocket.accept", START):
        return message
    headers = [one for one in message.get("headers") or () if one[0] != b"x-request-id"]
    rest = {key: value for key, value in message.items() if key != "headers"}
    return {**rest, "headers": headers} if headers or message.get("headers", ()) is None else rest


class Run:
    """One WebSocket, driven without an event loop, so that each run is the same."""

    def __init__(self, *, is_strict, fails, received, cancels, with_):
        self.is_strict, self.fails = is_strict, fails
        self.pending = [{"type": "websocket.connect"}, *received]
        self.cancels, self.with_ = cancels, with_
        self.story = []
        self.sends = 0
        self.state = "connecting"

    async def receive(self):
        """Send what the client sends, and then a disconnect."""
        await pause()
        return self.pending.pop(0) if self.pending else {"type": "websocket.disconnect", "code": 1005}

    async def send(self, message):
        """Accept or refuse a message, as a server does."""
        self.sends += 1
        self.story.append(("server got", repr(without_id(message))))
        await pause()
        if self.sends - 1 in self.fails:
            raise self.fails[self.sends - 1]("by the server")
        if self.is_strict:
            self.take(message["type"])

    def take(self, kind):
        """Refuse a message that the state does not allow."""
        after = {
            ("connecting", "websocket.accept"): "open",
            ("connecting", "websocket.close"): "closed",
            ("connecting", START): "denying",
            ("denying", PART): "denying",
            ("open", "websocket.send"): "open",
            ("open", "websocket.close"): "closed",
        }.get((self.state, kind) if isinstance(kind, str) else None)
        if after is None:
            raise RuntimeError("not now")
        self.state = after

    def serve(self, app, script):
        """Serve the WebSocket, and return how it ended."""
        scope = {"type": "websocket", "path": "/", "headers": [], "script": script, "story": self.story}
        coroutine = app(scope, self.receive, self.send)
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
        else:
            try:
                await send(what)
            except Exception as error:
                story.append(("application caught", type(error), str(error)))


@pytest.fixture(params=MODES.values(), ids=MODES)
def observed(request, registry):
    """Return an instrumented application."""
    return scaleobs.instrument(functools.partial(application), registry=registry, **request.param)


def counts(app):
    """Return the HTTP answers by status and the closed WebSockets by code, after checks that hold at any time."""
    now = scaleobs.observer_of(app)._service.storage.read()

    assert {"http": 0, "websocket": 0} == now.active
    assert 0 == now.faults
    assert {"GET"} >= {one.labels[0] for one in now.children}
    return {one.labels[2]: sum(one.slots[:-1]) for one in (*now.children, *now.sockets)}


def added(after, before):
    """Return what was counted between."""
    return {label: count - before.get(label, 0) for label, count in after.items() if count != before.get(label, 0)}


@settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(script=st.lists(STEPS, max_size=8), server=SERVERS)
def test_any_script_of_a_websocket_is_served_as_without_us(observed, script, server):
    """Server and application get the same messages and errors in the same order; it is counted once."""
    bare, ours = Run(**server), Run(**server)
    before = counts(observed)

    expected = bare.serve(application, script)
    seen = ours.serve(observed, script)
    after = counts(observed)

    assert expected == seen
    assert bare.story == ours.story
    assert [1] == list(added(after, before).values())
    assert len(after) <= 80


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    answer=st.sampled_from(["accept", "close", "deny", None]),
    status=st.sampled_from([401, 503]),
    chunks=st.integers(0, 2),
    is_whole=st.booleans(),
    reads=st.integers(0, 3),
    closes=st.sampled_from([None, 1000, 4001]),
    last=st.sampled_from([None, RuntimeError, OddError]),
)
def test_any_websocket_is_counted_under_what_became_of_it(
    observed, answer, status, chunks, is_whole, reads, closes, last
):
    """
    The first of these decides: the answer by HTTP, the close of either side, the end of the application.

    The client goes with the code 1001 when the application has read twice.
    """
    script, code = [], "500"
    if answer == "accept":
        script, code = [("send", ACCEPT)], "1006"
    elif answer == "close":
        script, code = [("send", {"type": "websocket.close"})], "403"
    elif answer == "deny":
        body = [("send", {"type": PART, "more_body": True})] * chunks
        script = [("send", {"type": START, "status": status}), *body]
        if is_whole:
            script, code = [*script, ("send", {"type": PART})], str(status)
    is_ended = code in {"403", "401", "503"}
    script += [("receive", None)] * reads
    if reads > 1 and not is_ended:
        code, is_ended = {"accept": "1001", "deny": str(status), None: "499"}[answer], True
    if answer == "accept" and closes is not None:
        script.append(("send", {"type": "websocket.close", "code": closes}))
        code = code if is_ended else str(closes)
    script += [("raise", last)] if last is not None else []
    gone = [{"type": "websocket.disconnect", "code": 1001}]
    before = counts(observed)

    Run(is_strict=False, fails={}, received=gone, cancels=None, with_=Cancelled).serve(observed, script)

    assert {code: 1} == added(counts(observed), before)
