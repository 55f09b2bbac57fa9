"""The id of a request: the client's if it is valid, otherwise a new one; in the line and in the response."""

from __future__ import annotations

import functools

import pytest

import scaleobs
from support.exchanges import asgi, finished, http_scope, wsgi


def ids_of(lines):
    """Return the request ids of lines."""
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
def test_valid_id_of_the_client_is_kept(app, call, given, registry, capsys):
    """The id that a client sends is in the line and in the response, for each request of a process."""
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
    """An id that is not 1 to 128 of `A-Za-z0-9._-` is neither logged nor sent: a new id replaces it."""
    app = scaleobs.instrument(functools.partial(app), registry=registry)
    seen = call(app, headers=[("X-Request-ID", given)])
    line = finished(capsys)[0]

    assert 32 == len(line["request_id"])
    assert line["request_id"] == seen.headers["x-request-id"]
    int(line["request_id"], 16)


@PROTOCOLS
def test_each_request_without_an_id_gets_one(app, call, registry, capsys):
    """A request without an id gets one, and no two are equal."""
    app = scaleobs.instrument(functools.partial(app), registry=registry)
    sent = [call(app).headers["x-request-id"] for _ in range(20)]

    assert sent == ids_of(finished(capsys))
    assert 20 == len(set(sent))


def test_two_ids_are_replaced(registry, capsys):
    """A header that is sent twice is ignored."""
    asgi(
        scaleobs.instrument(functools.partial(asgi_hello), registry=registry),
        headers=[("X-Request-ID", "a"), ("X-Request-ID", "b")],
    )

    assert finished(capsys)[0]["request_id"] not in ("a", "b", "a, b")


def test_id_of_the_application_stays(registry):
    """If the application sends an id itself, the response has that one."""

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


def test_message_that_is_sent_again(registry):
    """An application may send the same message for every request: it does not change."""
    start = {"type": "http.response.start", "status": 200, "headers": [(b"x-a", b"1")]}

    async def app(scope, receive, send):
        await send(start)
        await send({"type": "http.response.body", "body": b"hello"})

    app = scaleobs.instrument(app, registry=registry)
    sent = [asgi(app, headers=[("X-Request-ID", one)]).headers["x-request-id"] for one in ("a", "b", "c")]

    assert ["a", "b", "c"] == sent
    assert [(b"x-a", b"1")] == start["headers"]


@PROTOCOLS
def test_no_id_without_lines(app, call, registry):
    """With `log_format="off"` requests have no id, and none is sent."""
    app = scaleobs.instrument(functools.partial(app), registry=registry, log_format="off")

    assert "x-request-id" not in call(app).headers


@pytest.mark.parametrize("headers", [[(1,)], [(b"x", b"y", b"z")], 17, [None], None, iter([(b"x-a", b"1"), None])])
def test_invalid_start_reaches_the_server_once(headers, registry):
    """The server receives an invalid start of a response unchanged, and reports it."""
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
