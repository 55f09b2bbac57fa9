"""For any behaviour of a WSGI application and its server, each gets the same as without scaleobs."""

from __future__ import annotations

import functools
import gc
import re
from http import HTTPStatus
from wsgiref.util import FileWrapper

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import scaleobs
from support.exchanges import environ
from support.scripted_wsgi import Server, application

MODES = {
    "plain": {"log_format": "off"},
    "logged": {"log_format": "json"},
    "all": {"log_format": "json", "size_histograms": True, "native_histograms": True},
}


class OddError(BaseException):
    """A `BaseException` such as `KeyboardInterrupt`."""


# A sent status, and the status under which it is counted.
STATUSES = [
    *(("200 OK", "200"), ("404 NOT FOUND", "404"), ("599 X", "599"), ("204", "204"), ("", "000"), ("no number", "000")),
    *((" 201 padded", "201"), ("9999 X", "000"), (201, "201"), (HTTPStatus.NOT_FOUND, "404"), ([200], "000")),
    *((200.9, "200"), (b"200 OK", "000"), (None, "500"), ("-1 X", "000")),
]
ANY_STATUS = st.sampled_from(range(len(STATUSES))).map(STATUSES.__getitem__)
ERRORS = [RuntimeError, OSError, OddError, StopIteration, GeneratorExit]
HOW = ["plain", "plain", "plain", "keywords", "exc_info", "caught", "write"]
HEADERS = [[("a", "1")], [("a", "1")], [("Content-Length", "3")], [("a",)], None, [(b"a", 1)], 17]
START = st.tuples(st.sampled_from(HOW), ANY_STATUS.map(lambda one: one[0]), st.sampled_from(HEADERS))
BODIES = ["list", "tuple", "generator", "iterator", "sized", "closeable list", "file", "none", "text", "not iterable"]
APPLICATIONS = st.fixed_dictionaries(
    {
        "starts": st.one_of(st.just([("plain", "200 OK", [])]), st.lists(START, max_size=3)),
        "raises": st.sampled_from([None, None, None, *ERRORS]),
        "kind": st.sampled_from(BODIES),
        "chunks": st.lists(st.sampled_from([b"", b"a", b"bcd", b"a", None, 17]), max_size=4),
        "late_starts": st.lists(START, max_size=2),
        "fails_at": st.sampled_from([None, None, 0, 1, 3]),
        "with_": st.sampled_from(ERRORS),
        "close_raises": st.sampled_from([None, None, RuntimeError, OddError]),
    }
)
SERVERS = st.fixed_dictionaries(
    {
        "reads": st.sampled_from([None, None, 0, 1, 2]),
        "closes": st.sampled_from([1, 1, 0, 2]),
        "start_fails_at": st.sampled_from([None, None, 0, 1]),
        "start_error": st.sampled_from([RuntimeError, OSError, OddError]),
        "sends_files": st.booleans(),
    }
)


@pytest.fixture(params=MODES.values(), ids=MODES)
def observed(request, registry):
    """Return an instrumented application that has served its first request."""
    app = scaleobs.instrument(functools.partial(application), registry=registry, **request.param)
    app(environ(plan=PLAIN, story=[], **{"wsgi.file_wrapper": FileWrapper}), lambda *_: None).close()
    assert (request.param != MODES["all"]) is scaleobs.observer_of(app)._service.storage.fast_path[0]
    gc.collect()
    gc.freeze()  # So that the collections below are quick.
    yield app
    gc.unfreeze()


PLAIN = {"starts": [], "raises": None, "kind": "list", "chunks": [], "late_starts": [], "fails_at": None}


def counts(app):
    """Return how many requests were counted by labels, after checks that hold at any time."""
    gc.collect()
    now = scaleobs.observer_of(app)._service.storage.read()

    assert {"http": 0, "websocket": 0} == now.active
    assert 0 == now.faults
    return {one.labels: sum(one.slots[: len(one.bounds) + 1]) for one in (*now.children, *now.sockets)}


HANDSHAKE = {"HTTP_UPGRADE": "websocket"}


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=APPLICATIONS, server=SERVERS, more=st.sampled_from([{}, {}, HANDSHAKE, {**HANDSHAKE, "wsgi.websocket": 1}]))
def test_any_order_is_served_as_without_us(observed, plan, server, more):
    """Server and application get the same calls, bytes and errors in the same order; it is counted once."""
    bare, ours = Server(**server), Server(**server)
    before = counts(observed)

    bare.run(application, plan, **more)
    ours.run(observed, plan, **more)
    gc.collect()
    stories = list(bare.story), list(ours.story)  # Dropped objects are released at once, not at the next scrape.
    after = counts(observed)

    if any(how == "exc_info" and status == "599 X" for how, status, _ in (*plan["starts"], *plan["late_starts"])):
        # The exception of a 5xx, whose frames have the file, is kept for its line.
        stories = tuple(sorted(map(repr, story)) for story in stories)
        assert stories[0] == stories[1] == sorted(map(repr, ours.story))
    else:
        assert stories[0] == stories[1] == ours.story
    assert 1 == sum(after.values()) - sum(before.values())
    assert all(re.fullmatch(r"[0-9]{3}|unknown", status) for _, _, status in after)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    status=ANY_STATUS,
    kind=st.sampled_from(BODIES[:7]),
    fails_at=st.sampled_from([None, 1]),
    reads=st.sampled_from([None, 0, 1, 2]),
    closes=st.sampled_from([0, 1, 2]),
)
def test_any_answer_is_counted_under_what_became_of_it(observed, status, kind, fails_at, reads, closes):
    """The status is the sent one, for any part of the body that was read or closed, and 500 if the body failed."""
    given_status, code = status
    plan = {**PLAIN, "starts": [("plain", given_status, [])], "kind": kind, "chunks": [b"a", b"b", b"c"]}
    plan |= {"fails_at": fails_at, "with_": RuntimeError, "close_raises": None}
    server = {"reads": reads, "closes": closes, "start_fails_at": None, "start_error": None, "sends_files": False}
    does_fail = kind in ("generator", "sized") and fails_at is not None and reads not in (0, 1)
    before = counts(observed)

    Server(**server).run(observed, plan)
    after = counts(observed)

    assert {("GET", "unmatched", "500" if does_fail else code): 1} == {
        labels: count - before.get(labels, 0) for labels, count in after.items() if count != before.get(labels, 0)
    }
