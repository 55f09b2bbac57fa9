"""
The 41 cases of the W3C trace-context suite (w3c/trace-context, test/test.py), restated.

The suite requests a service, which makes a request itself, and checks the headers of that. With a provider, these tests
do the same. Without one, they check the trace id of the request's lines and the parsed `tracestate`.

Each case runs once per parser: that of scaleobs, and that of OpenTelemetry if there is a provider. A few cases prove
that WSGI passes the same headers to it.
"""

from __future__ import annotations

import functools

import pytest
from opentelemetry import propagate, trace

import scaleobs
from scaleobs import _tracing
from scaleobs.logs._context import request_context
from support.exchanges import asgi, wsgi

TRACE, PARENT = "12345678901234567890123456789012", "1234567890123456"
VALID = f"00-{TRACE}-{PARENT}-01"
VALID_UNSAMPLED = f"00-{TRACE}-{PARENT}-00"


def propagated():
    """Return the trace, the state and the parent that the application sends on, or the trace id of its lines."""
    carrier = {}
    if _tracing.is_configured():
        with trace.get_tracer("shop").start_as_current_span("call"):
            propagate.inject(carrier)
    if not carrier:
        return request_context.get().get("trace_id"), None, None
    _, trace_id, parent, _ = carrier["traceparent"].split("-")
    return trace_id, _tracing.parse_tracestate(carrier.get("tracestate", "")), parent


@pytest.fixture(params=["scaleobs", "opentelemetry"])
def parser(request):
    """Set a provider, if OpenTelemetry is to parse."""
    if request.param == "opentelemetry":
        request.getfixturevalue("exported")


@pytest.fixture
def received(parser, registry):
    """Return a function that sends requests to an ASGI application."""
    return serving(asgi, registry)


@pytest.fixture
def received_by_wsgi(parser, registry):
    """Return a function that sends requests to a WSGI application."""
    return serving(wsgi, registry)


def serving(serve, registry):
    """Return a function that sends requests with these headers, and returns the trace and the state of each."""
    seen = []

    async def asgi_app(scope, receive, send):
        seen.append(propagated())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    def wsgi_app(environ, start_response):
        seen.append(propagated())
        start_response("200 OK", [])
        return [b""]

    app = scaleobs.instrument(functools.partial(wsgi_app if serve is wsgi else asgi_app), registry=registry)

    def serve_all(headers, count=1):
        del seen[:]
        if serve is wsgi:  # WSGI servers join headers of the same name.
            names = dict.fromkeys(name.lower() for name, _ in headers)
            headers = [(name, ",".join(v for n, v in headers if n.lower() == name)) for name in names]
        for _ in range(count):
            assert 200 == serve(app, headers=headers).status
        parents = {parent for _, _, parent in seen if parent is not None}
        assert len(parents) in (0, count)
        assert PARENT not in parents
        kept = _tracing.parse_tracestate(",".join(value for name, value in headers if name.lower() == "tracestate"))
        return [(found, (kept if found else {}) if state is None else state) for found, state, _ in seen]

    return serve_all


def case(name, *headers):
    """Return headers as a parameter with the name of its case in the suite."""
    return pytest.param([("traceparent", header) for header in headers], id=name)


NEW_TRACE = [
    case("traceparent_duplicated", f"00-{TRACE[:-1]}1-{PARENT}-01", VALID),
    pytest.param([("trace-parent", VALID)], id="traceparent_header_name"),
    pytest.param([("trace.parent", VALID)], id="traceparent_header_name, a dot"),
    case("traceparent_version_0x00", VALID + "."),
    case("traceparent_version_0x00, a field more", VALID + "-what-the-future-will-be-like"),
    case("traceparent_version_0xcc, no field", f"cc{VALID[2:]}.what-the-future-will-be-like"),
    case("traceparent_version_0xff", "ff" + VALID[2:]),
    case("traceparent_version_illegal_characters", ".0" + VALID[2:]),
    case("traceparent_version_illegal_characters, last", "0." + VALID[2:]),
    case("traceparent_version_too_long", "0" + VALID),
    case("traceparent_version_too_long, four", "00" + VALID),
    case("traceparent_version_too_short", VALID[1:]),
    case("traceparent_trace_id_all_zero", f"00-{'0' * 32}-{PARENT}-01"),
    case("traceparent_trace_id_illegal_characters", f"00-.{TRACE[1:]}-{PARENT}-01"),
    case("traceparent_trace_id_illegal_characters, last", f"00-{TRACE[:-1]}.-{PARENT}-01"),
    case("traceparent_trace_id_too_long", f"00-{TRACE}3-{PARENT}-01"),
    case("traceparent_trace_id_too_short", f"00-{TRACE[:-1]}-{PARENT}-01"),
    case("traceparent_parent_id_all_zero", f"00-{TRACE}-{'0' * 16}-01"),
    case("traceparent_parent_id_illegal_characters", f"00-{TRACE}-.{PARENT[1:]}-01"),
    case("traceparent_parent_id_illegal_characters, last", f"00-{TRACE}-{PARENT[:-1]}.-01"),
    case("traceparent_parent_id_too_long", f"00-{TRACE}-{PARENT}7-01"),
    case("traceparent_parent_id_too_short", f"00-{TRACE}-{PARENT[:-1]}-01"),
    case("traceparent_trace_flags_illegal_characters", f"00-{TRACE}-{PARENT}-.0"),
    case("traceparent_trace_flags_illegal_characters, last", f"00-{TRACE}-{PARENT}-0."),
    case("traceparent_trace_flags_too_long", f"00-{TRACE}-{PARENT}-001"),
    case("traceparent_trace_flags_too_short", f"00-{TRACE}-{PARENT}-1"),
    case("both_traceparent_and_tracestate_missing"),
    pytest.param([("tracestate", "foo=1")], id="tracestate_included_traceparent_missing"),
    pytest.param([("tracestate", "foo=1,bar=2")], id="tracestate_included_traceparent_missing, two"),
]


@pytest.mark.parametrize("headers", NEW_TRACE)
def test_no_valid_parent(headers, received):
    """Without a valid `traceparent` the request has a new trace, and the state is discarded."""
    [(found, state)] = received(headers)
    ids = [part for _, header in headers for part in header.split("-")]

    assert found not in (TRACE, "0" * 32, *ids)
    assert {} == state


SAME_TRACE = [
    case("traceparent_included_tracestate_missing", VALID),
    *[
        pytest.param([(name, VALID)], id=f"traceparent_header_name_valid_casing, {name}")
        for name in ("TraceParent", "TrAcEpArEnT", "TRACEPARENT")
    ],
    case("traceparent_version_0xcc", "cc" + VALID[2:]),
    case("traceparent_version_0xcc, a field more", f"cc{VALID[2:]}-what-the-future-will-be-like"),
    *[
        case(f"traceparent_ows_handling, {number}", header)
        for number, header in enumerate([f" {VALID}", f"\t{VALID}", f"{VALID} ", f"{VALID}\t", f"\t {VALID} \t"])
    ],
    case("propagates_random_flag", f"00-{TRACE}-{PARENT}-02"),
]


@pytest.mark.parametrize("headers", SAME_TRACE)
def test_valid_parent(headers, received):
    """With a valid one it belongs to that trace, for any case of the name and with blanks around the value."""
    assert [(TRACE, {})] == received(headers)


KEY = "abcdefghijklmnopqrstuvwxyz0123456789_-*/"
VALUE = "".join(map(chr, (*range(0x20, 0x2C), *range(0x2D, 0x3D), *range(0x3E, 0x7F))))
NUMBERS = [f"bar{number:02}={number:02}" for number in range(1, 34)]
IN_FOUR = [",".join(NUMBERS[first:last]) for first, last in ((0, 10), (10, 20), (20, 30), (30, 32))]

STATES = {
    "tracestate_included_traceparent_included": (["foo=1,bar=2"], {"foo": "1", "bar": "2"}),
    "tracestate_empty_header": ([""], {}),
    "tracestate_empty_header, after one": (["foo=1", ""], {"foo": "1"}),
    "tracestate_empty_header, before one": (["", "foo=1"], {"foo": "1"}),
    "tracestate_multiple_headers_different_keys": (
        ["foo=1,bar=2", "rojo=1,congo=2", "baz=3"],
        {"foo": "1", "bar": "2", "rojo": "1", "congo": "2", "baz": "3"},
    ),
    "tracestate_duplicated_keys": (["foo=1,foo=1"], {"foo": "1"}),
    "tracestate_duplicated_keys, two values": (["foo=1,foo=2"], {"foo": "1"}),
    "tracestate_duplicated_keys, two headers": (["foo=1", "foo=1"], {"foo": "1"}),
    "tracestate_duplicated_keys, two of both": (["foo=1", "foo=2"], {"foo": "1"}),
    "tracestate_all_allowed_characters": ([f"{KEY}={VALUE}"], {KEY: VALUE}),
    "tracestate_ows_handling": (["foo=1 \t , \t bar=2, \t baz=3"], {"foo": "1", "bar": "2", "baz": "3"}),
    "tracestate_ows_handling, tabs": (["foo=1\t \t,\t \tbar=2,\t \tbaz=3"], {"foo": "1", "bar": "2", "baz": "3"}),
    **{
        f"tracestate_ows_handling, {number}": ([header], {"foo": "1"})
        for number, header in enumerate([" foo=1", "\tfoo=1", "foo=1 ", "foo=1\t", "\t foo=1 \t"])
    },
    "tracestate_key_illegal_characters": (["foo =1"], {}),
    "tracestate_key_illegal_characters, capitals": (["FOO=1"], {}),
    "tracestate_key_illegal_characters, a dot": (["foo.bar=1"], {}),
    "tracestate_key_illegal_vendor_format": (["@foo=1,bar=2"], {}),
    "tracestate_member_count_limit": (IN_FOUR, dict(one.split("=") for one in NUMBERS[:32])),
    "tracestate_member_count_limit, one more": ([*IN_FOUR[:3], ",".join(NUMBERS[30:])], {}),
    "tracestate_key_length_limit": (["foo=1", "z" * 256 + "=1"], {"foo": "1", "z" * 256: "1"}),
    "tracestate_key_length_limit, one more": (["foo=1", "z" * 257 + "=1"], {}),
    "tracestate_value_illegal_characters": (["foo=bar=baz"], {}),
    "tracestate_value_illegal_characters, empty": (["foo=,bar=3"], {}),
}


@pytest.mark.parametrize("name", STATES)
def test_state(name, received):
    """Members of all headers are kept in their order; an invalid one discards all."""
    sent, expected = STATES[name]
    [(found, state)] = received([("traceparent", VALID_UNSAMPLED), *[("tracestate", one) for one in sent]])

    assert TRACE == found
    assert list(expected.items()) == list(state.items())


@pytest.mark.parametrize(
    "key",
    [
        "foo@",
        "foo@@bar",
        "foo@bar@baz",
        KEY + "@a-z0-9_-*/",
        "t" * 241 + "@" + "v" * 14,
        "t" * 242 + "@v",
        "t@" + "v" * 15,
    ],
)
def test_state_of_level_2(key):
    """
    Keys with at signs are valid in level 2: all_allowed_characters, illegal_vendor_format and length_limit.

    OpenTelemetry itself supports level 1 only.
    """
    assert {key: "1", "bar": "2"} == _tracing.parse_tracestate(f"{key}=1,bar=2")


@pytest.mark.parametrize("name", ["trace-state", "trace.state"])
def test_state_of_another_name(name, received):
    """tracestate_header_name: a header of another name is ignored."""
    assert [(TRACE, {})] == received([("traceparent", VALID_UNSAMPLED), (name, "foo=1")])


@pytest.mark.parametrize("name", ["TraceState", "TrAcEsTaTe", "TRACESTATE"])
def test_state_in_any_case(name, received):
    """tracestate_header_name_valid_casing: a header has the same name in any case."""
    assert [(TRACE, {"foo": "1"})] == received([("traceparent", VALID_UNSAMPLED), (name, "foo=1")])


def test_several_requests_with_a_parent(received):
    """multiple_requests_with_valid_traceparent: all belong to its trace."""
    assert [(TRACE, {})] * 3 == received([("traceparent", VALID)], 3)


@pytest.mark.parametrize("headers", [[], [("traceparent", f"00-{'0' * 32}-{PARENT}-01")]])
def test_several_requests_without_a_parent(headers, received):
    """multiple_requests_without_traceparent, and with an illegal one: none belongs to the client's trace."""
    found = received(headers, 3)

    assert 3 == len(found)
    assert all(one != "0" * 32 and state == {} for one, state in found)


def state(*headers):
    """Return these headers of `tracestate`, after a valid parent."""
    return [("traceparent", VALID), *(("tracestate", header) for header in headers)]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([("TrAcEpArEnT", VALID)], (TRACE, {})),
        ([("traceparent", f"\t {VALID} \t")], (TRACE, {})),
        ([("trace-parent", VALID)], None),
        ([("traceparent", VALID), ("traceparent", VALID)], None),
        ([("tracestate", "foo=1")], None),
        (state("foo=1,bar=2", "rojo=1"), (TRACE, {"foo": "1", "bar": "2", "rojo": "1"})),
        (state("foo=1", ""), (TRACE, {"foo": "1"})),
        (state("foo =1"), (TRACE, {})),
    ],
)
def test_wsgi(headers, expected, received_by_wsgi):
    """A WSGI server's headers, of which those of the same name are joined, are parsed as those of ASGI."""
    [(found, found_state)] = received_by_wsgi(headers)

    if expected is None:
        assert TRACE != found
        assert {} == found_state
    else:
        assert expected == (found, found_state)
