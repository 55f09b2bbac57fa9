"""The id of a request: the client's where it is a plain one, otherwise a new one; in its line and in its answer."""

from __future__ import annotations

import functools

import pytest

import scaleobs
from support.exchanges import asgi, finished, http_scope, wsgi


def ids_of(lines):
    """Return the ids of the requests that lines name."""
    return [line.get("request_id") for line in lines]


async def asgi_hello(scope, receive, send):
    """Answer."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-a", b"1")]})
    await send({"type": "http.response.body", "body": b"hello"})


def wsgi_hello(environ, start_response):
    """Answer."""
    start_response("200 OK", [("X-A", "1")])
    return [b"hello"]


PROTOCOLS = pytest.mark.parametrize(("app", "call"), [(asgi_hello, asgi), (wsgi_hello, wsgi)], ids=["asgi", "wsgi"])


@PROTOCOLS
@pytest.mark.parametrize("given", ["r1", "A-Z.a_z-09", "x" * 128])
def test_plain_id_of_the_client_is_kept_and_echoed(app, call, given, registry, capsys):
    """The id that a client sends stands in the line and in the answer, whichever request of the process it is."""
    app = scaleobs.instrument(functools.partial(app), registry=registry)
    seen = [call(app, headers=[("X-Request-ID", given)]) for _ in range(3)]

    assert [given] * 3 == [one.headers["x-request-id"] for one in seen]
    assert [given] * 3 == ids_of(finished(capsys))
    assert ["1"] * 3 == [one.headers["x-a"] for one in seen]


@PROTOCOLS
@pytest.mark.parametrize(
    "given",
    ["", " ", "a b", "x" * 129, "x" * 10_000, "a\nb", "a\r\nSet-Cookie: x=1", "ü", "a,b", "a;b", '"', "\x00", "٣"],
)
def test_any_other_id_is_replaced(app, call, given, registry, capsys):
    """What isn't 1 to 128 of `A-Za-z0-9._-` is neither written nor sent: a new id takes its place."""
    app = scaleobs.instrument(functools.partial(app), registry=registry)
    seen = call(app, headers=[("X-Request-ID", given)])
    line = finished(capsys)[0]

    assert 32 == len(line["request_id"])
    assert line["request_id"] == seen.headers["x-request-id"]
    int(line["request_id"], 16)


@PROTOCOLS
def test_each_request_without_one_has_an_id_of_its_own(app, call, registry, capsys):
    """Ids are made for requests that bring none, and no two are the same."""
    app = scaleobs.instrument(functools.partial(app), registry=registry)
    sent = [call(app).headers["x-request-id"] for _ in range(20)]

    assert sent == ids_of(finished(capsys))
    assert 20 == len(set(sent))


def test_two_ids_are_none(registry, capsys):
    """A header that is there twice says nothing."""
    asgi(
        scaleobs.instrument(functools.partial(asgi_hello), registry=registry),
        headers=[("X-Request-ID", "a"), ("X-Request-ID", "b")],
    )

    assert finished(capsys)[0]["request_id"] not in ("a", "b", "a, b")


def test_answers_own_id_stays(registry):
    """An application that answers with an id of its own has the last word."""

    async def its_own(scope, receive, send):
        headers = [(b"X-Request-Id", b"mine")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"hello"})

    def its_own_too(environ, start_response):
        start_response("200 OK", [("x-request-ID", "mine")])
        return [b"hello"]

    for app, call in ((its_own, asgi), (its_own_too, wsgi)):
        seen = call(scaleobs.instrument(app, registry=registry))

        assert ["mine"] == [value for name, value in seen.headers.items() if name.lower() == "x-request-id"]


def test_answer_that_is_sent_again_has_each_requests_id(registry):
    """An application may send the same message for every request: it isn't written into."""
    start = {"type": "http.response.start", "status": 200, "headers": [(b"x-a", b"1")]}

    async def app(scope, receive, send):
        await send(start)
        await send({"type": "http.response.body", "body": b"hello"})

    app = scaleobs.instrument(app, registry=registry)
    sent = [asgi(app, headers=[("X-Request-ID", one)]).headers["x-request-id"] for one in ("a", "b", "c")]

    assert ["a", "b", "c"] == sent
    assert [(b"x-a", b"1")] == start["headers"]


@PROTOCOLS
def test_no_lines_no_id(app, call, registry):
    """With `log_format="off"` requests have no id, so that none is echoed."""
    app = scaleobs.instrument(functools.partial(app), registry=registry, log_format="off")

    assert "x-request-id" not in call(app).headers


@pytest.mark.parametrize("headers", [[(1,)], [(b"x", b"y", b"z")], 17, [None], None, iter([(b"x-a", b"1"), None])])
def test_start_that_is_wrong_reaches_the_server_once(headers, registry):
    """What is wrong with the start of an answer is for the server to say, whatever kind of function it sends with."""
    got = []

    def send(message):
        got.append(message)
        raise ConnectionError("by the server")

    async def app(scope, receive, send):
        for message in ({"type": "http.response.start", "status": 200, "headers": headers}, None):
            with pytest.raises(ConnectionError, match="by the server"):
                await send(message)

    coroutine = scaleobs.instrument(app, registry=registry)(http_scope(), None, send)
    with pytest.raises(StopIteration):
        coroutine.send(None)

    assert [200, None] == [message and message["status"] for message in got]
