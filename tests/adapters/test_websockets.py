"""WebSockets: a gauge while they are open, counts and one line when they close; refused ones are HTTP answers."""

from __future__ import annotations

import asyncio
import functools

import pytest

import scaleobs
from support.exchanges import active, counted, environ, finished, log_lines, serve_asgi, wsgi
from support.expositions import FORMATS, page, samples

CONNECT, ACCEPT = {"type": "websocket.connect"}, {"type": "websocket.accept"}
SCOPE = {"type": "websocket", "path": "/chat/7", "headers": [], "client": ("10.0.0.7", 1), "query_string": b""}


def serve(app, *received):
    """Serve one WebSocket with these messages of the client."""
    return asyncio.run(serve_asgi(app, dict(SCOPE), [CONNECT, *received]))


def sockets(registry):
    """Return how many WebSockets closed, by route and code; their durations are as many."""
    found, timed = {}, {}
    for family in registry.collect():
        for sample in family.samples:
            if sample.name == "websocket_connections_total":
                found[sample.labels["route"], sample.labels["code"]] = sample.value
            elif sample.name == "websocket_duration_seconds_count":
                timed[sample.labels["route"]] = sample.value
    assert timed == {one: sum(count for (route, _), count in found.items() if route == one) for one in timed}
    assert set(timed) == {route for route, _ in found}
    return found


def test_websocket_is_active_until_the_application_closes_it(registry, capsys):
    """The gauge rises at accept and falls at close; a WebSocket is no HTTP request."""

    async def app(scope, receive, send):
        await receive()
        assert 0 == active(registry, "websocket")
        await send(ACCEPT)
        assert 1 == active(registry, "websocket")
        await send({"type": "websocket.close", "code": 4001})
        assert 0 == active(registry, "websocket")

    seen = serve(scaleobs.instrument(app, registry=registry))
    lines = log_lines(capsys)

    assert seen.error is None
    assert {} == counted(registry)
    assert {("unmatched", "4001"): 1} == sockets(registry)
    assert [("websocket.closed", 4001, "/chat/7", "unmatched")] == [
        (line["event"], line["code"], line["path"], line["route"]) for line in lines
    ]


def test_line_has_the_duration_of_the_metric(registry, capsys):
    """Both begin at the accept and end at the close."""

    async def app(scope, receive, send):
        await asyncio.sleep(0.05)
        await send(ACCEPT)
        await asyncio.sleep(0.01)
        await send({"type": "websocket.close"})
        await asyncio.sleep(0.05)

    serve(scaleobs.instrument(app, registry=registry))
    [line] = log_lines(capsys)
    seconds = registry.get_sample_value("websocket_duration_seconds_sum", {"route": "unmatched"})

    assert seconds == pytest.approx(line["duration_seconds"], abs=1e-6)
    assert line["duration_seconds"] >= 0.01


def test_websocket_that_the_client_closes(registry, capsys):
    """The client's code is in the line, and a following close writes no second line."""

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        await receive()
        assert 0 == active(registry, "websocket")
        await send({"type": "websocket.close"})

    seen = serve(scaleobs.instrument(app, registry=registry), {"type": "websocket.disconnect", "code": 1001})

    assert seen.error is None
    assert [1001] == [line["code"] for line in log_lines(capsys)]
    assert 0 == active(registry, "websocket")


@pytest.mark.parametrize("error", [RuntimeError("boom"), asyncio.CancelledError(), None])
def test_websocket_that_ends_abnormally(error, registry, capsys):
    """An application that raises, is cancelled or returns leaves the gauge at 0, with 1006 in the line."""

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        if error is not None:
            raise error

    seen = serve(scaleobs.instrument(app, registry=registry))

    assert error is seen.error
    assert [1006] == [line["code"] for line in log_lines(capsys)]
    assert 0 == active(registry, "websocket")


def test_websocket_shows_that_the_service_is_served(registry):
    """Without a lifespan the first request does; a service may have only WebSockets."""
    app = scaleobs.instrument(functools.partial(until_closed), registry=registry, log_format="off")
    before = registry.get_sample_value("service_ready")
    closed_by_client(app, [1000])

    assert (0, 1) == (before, registry.get_sample_value("service_ready"))


def test_refused_websocket_is_an_answer_of_403(registry, capsys):
    """A handshake that is closed is a GET with 403, in the line too, and was never open."""

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.close", "code": 4403})
        assert 0 == active(registry, "websocket")
        await receive()

    serve(scaleobs.instrument(app, registry=registry, route=lambda scope: "/chat/{room}"))
    [line] = finished(capsys)

    assert {("GET", "/chat/{room}", "403"): 1} == counted(registry)
    assert {} == sockets(registry)
    assert 0 == active(registry)
    assert ("GET", "/chat/{room}", "/chat/7", 403) == (
        line["method"],
        line["route"],
        line["path"],
        line["status_code"],
    )


def denial(status, *, chunks=0):
    """Return the messages of a response that denies a WebSocket."""
    part = {"type": "websocket.http.response.body", "body": b"x", "more_body": True}
    start = {"type": "websocket.http.response.start", "status": status, "headers": []}
    return [start, *[part] * chunks, {"type": "websocket.http.response.body", "body": b"end"}]


@pytest.mark.parametrize("log_format", ["off", "json"])
@pytest.mark.parametrize("chunks", [0, 2])
@pytest.mark.parametrize("status", [401, 429, 503])
def test_denied_websocket_is_an_answer_with_its_status(status, chunks, log_format, registry, capsys):
    """A response instead of an accept is counted like any other one; the server gets it with the id of the line."""

    async def app(scope, receive, send):
        await receive()
        for message in denial(status, chunks=chunks):
            await send(message)

    seen = serve(scaleobs.instrument(app, registry=registry, log_format=log_format))
    lines = finished(capsys)

    assert {("GET", "unmatched", str(status)): 1} == counted(registry)
    assert {} == sockets(registry)
    assert denial(status, chunks=chunks)[1:] == seen.messages[1:]
    assert ([(status, "error" if status == 503 else "info")] if log_format == "json" else []) == [
        (line["status_code"], line["level"]) for line in lines
    ]
    assert [line["request_id"].encode() for line in lines] == [
        value for name, value in seen.messages[0]["headers"] if name == b"x-request-id"
    ]


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError, None])
@pytest.mark.parametrize("sent", [0, 1, 2])
def test_handshake_that_fails_is_an_answer_of_500(error, sent, registry, capsys):
    """An application that raises, is cancelled or returns before its answer is complete is a failure, as with HTTP."""

    async def app(scope, receive, send):
        await receive()
        for message in denial(401, chunks=1)[:sent]:
            await send(message)
        if error is not None:
            raise error("no such room")

    seen = serve(scaleobs.instrument(app, registry=registry))
    [line] = finished(capsys)

    assert type(error and error()) is type(seen.error)
    assert {("GET", "unmatched", "500"): 1} == counted(registry)
    assert ("error", 500, 401 if sent else None) == (line["level"], line["status_code"], line.get("sent_status"))
    assert (error is ValueError) is ("ValueError: no such room" in line.get("exception", ""))
    assert {"http": 0, "websocket": 0} == {kind: active(registry, kind) for kind in ("http", "websocket")}


@pytest.mark.parametrize(("sent", "status"), [(0, 499), (1, 401), (2, 401)])
@pytest.mark.parametrize("how", ["receives", "cannot send"])
def test_client_that_goes_before_the_answer(how, sent, status, registry, capsys):
    """It is 499 before the answer began, and what was sent while it was sent, without an error in the line."""
    pending = [CONNECT, {"type": "websocket.disconnect", "code": 1006}]
    messages = denial(401, chunks=1)

    async def receive():
        return pending.pop(0)

    async def send(message):
        if how == "cannot send" and message["type"] == messages[sent]["type"] and len(taken) == sent:
            raise OSError("client gone")
        taken.append(message)

    async def app(scope, receive, send):
        await receive()
        for message in messages[:sent]:
            await send(message)
        if how == "receives":
            await receive()
            raise ConnectionError("client gone")
        await send(messages[sent])

    taken = []
    app = scaleobs.instrument(app, registry=registry)
    with pytest.raises(OSError, match="client gone"):
        asyncio.run(app(dict(SCOPE), receive, send))
    [line] = log_lines(capsys)

    assert {("GET", "unmatched", str(status)): 1} == counted(registry)
    assert (status, "info", sent > 0) == (line["status_code"], line["level"], line.get("truncated", False))
    assert "exception" not in line


def test_client_that_goes_while_the_accept_is_sent(registry, capsys):
    """The WebSocket was accepted: it is counted once, with the code of the client."""

    async def run():
        gone = asyncio.Event()

        async def send(message):
            await gone.wait()

        async def receive():
            gone.set()
            return {"type": "websocket.disconnect", "code": 1001}

        async def app(scope, receive, send):
            sending = asyncio.create_task(send(ACCEPT))
            await asyncio.sleep(0)
            await receive()
            await sending

        await scaleobs.instrument(app, registry=registry)(dict(SCOPE), receive, send)

    asyncio.run(run())

    assert {} == counted(registry)
    assert {("unmatched", "1001"): 1} == sockets(registry)
    assert [1001] == [line["code"] for line in log_lines(capsys)]
    assert 0 == active(registry, "websocket")


def test_client_that_cannot_be_reached_is_no_error(registry, capsys):
    """A server that raises `OSError` for a message lost its client: code 1006, and no error in the line."""

    async def send(message):
        if message["type"] == "websocket.send":
            raise OSError("client gone")

    async def receive():
        return CONNECT

    async def app(scope, receive, send):
        await send(ACCEPT)
        await send({"type": "websocket.send", "text": "hello"})

    with pytest.raises(OSError, match="client gone"):
        asyncio.run(scaleobs.instrument(app, registry=registry)(dict(SCOPE), receive, send))
    [line] = log_lines(capsys)

    assert (1006, "info") == (line["code"], line["level"])
    assert {("unmatched", "1006"): 1} == sockets(registry)


async def until_closed(scope, receive, send):
    """Accept, and close with the code of the scope if there is one; else wait for the client."""
    await receive()
    await send(ACCEPT)
    if scope.get("closes") is not None:
        await send({"type": "websocket.close", "code": scope["closes"]})
    await receive()


def closed_by_client(app, codes):
    """Serve a WebSocket for each code, which the client sends."""

    async def run():
        for code in codes:
            await serve_asgi(app, dict(SCOPE), [CONNECT, {"type": "websocket.disconnect", "code": code}])

    asyncio.run(run())


def test_client_with_2000_codes_adds_at_most_40_series(registry):
    """Codes of the protocol have series of their own, ranges that applications define have one each, the rest one."""
    app = scaleobs.instrument(functools.partial(until_closed), registry=registry, log_format="off")
    odd = [0, -1, 999, 1016, 2999, 5000, 10**30, 65_535]
    closed_by_client(app, [*range(1000, 1016), *range(3000, 4000), *range(4000, 4976), *odd])
    found = sockets(registry)

    assert 2000 == sum(found.values())
    assert len(found) <= 40
    assert {*map(str, range(1000, 1016)), "3xxx", "4xxx", "_OTHER"} == {code for _, code in found}
    assert (1000, 976, 8) == tuple(found["unmatched", code] for code in ("3xxx", "4xxx", "_OTHER"))


@pytest.mark.parametrize("code", [None, "1001", 4000.5])
def test_code_that_is_no_number(code, registry, capsys):
    """A disconnect without a code is 1005."""
    closed_by_client(scaleobs.instrument(functools.partial(until_closed), registry=registry), [code])

    assert {("unmatched", "1005"): 1} == sockets(registry)
    assert [1005] == [line["code"] for line in log_lines(capsys)]


def test_codes_that_the_application_sends(registry):
    """Twenty of its codes from 4000 on have series of their own, those of the client do not; 3000 to 3999 are one."""
    app = scaleobs.instrument(functools.partial(until_closed), registry=registry, log_format="off")

    async def run():
        for code in (*range(4000, 4100), 4000, 3001, 3002, 1008):
            await serve_asgi(app, {**SCOPE, "closes": code}, [CONNECT])

    asyncio.run(run())
    closed_by_client(app, [4000, 4001])
    found = {code: count for (_, code), count in sockets(registry).items()}

    assert {str(code): 1 for code in range(4001, 4020)} | {"4000": 2, "4xxx": 82, "3xxx": 2, "1008": 1} == found


@pytest.mark.parametrize(
    ("code", "sent"), [("4001", 4001), (4001.0, 4001), ("x", 1000), ([], 1000), ("9" * 9999, 1000)]
)
def test_code_that_a_server_converts(code, sent, registry, capsys):
    """Hypercorn sends the number of a text: the client has received it."""
    app = scaleobs.instrument(functools.partial(until_closed), registry=registry)
    asyncio.run(serve_asgi(app, {**SCOPE, "closes": code}, [CONNECT]))

    assert {("unmatched", str(sent)): 1} == sockets(registry)
    assert [sent] == [line["code"] for line in log_lines(capsys)]


@pytest.mark.parametrize("error", [ValueError, asyncio.CancelledError, None])
@pytest.mark.parametrize("closed_by", ["application", "client"])
def test_application_that_fails_after_the_close(closed_by, error, registry, capsys):
    """It failed in the background if it closed the WebSocket; if the client did, frameworks raise an exception."""

    async def app(scope, receive, send):
        await send(ACCEPT)
        if closed_by == "application":
            await send({"type": "websocket.close", "code": 4001})
        else:
            await receive()
        if error is not None:
            raise error("too late")

    async def run():
        return await serve_asgi(app, dict(SCOPE), [{"type": "websocket.disconnect", "code": 4001}])

    app = scaleobs.instrument(app, registry=registry)
    seen = asyncio.run(run())
    lines = log_lines(capsys)
    is_logged = closed_by == "application" and error is ValueError

    assert error is (seen.error and type(seen.error))
    assert 1 == sum(sockets(registry).values())
    assert ["websocket.closed", *["background.failed"] * is_logged] == [line["event"] for line in lines]
    assert ["info", *["error"] * is_logged] == [line["level"] for line in lines]
    assert 1 == len({line["request_id"] for line in lines})
    assert all((line["method"], line["route"]) == ("GET", "unmatched") for line in lines[1:])
    assert all("too late" in line["exception"] for line in lines[1:])


def test_denial_has_its_sizes(registry):
    """It is an HTTP answer: the sizes of both bodies are measured, and those of a refusal are 0."""

    async def app(scope, receive, send):
        for message in denial(401, chunks=1) if scope["path"] == "/chat/7" else [{"type": "websocket.close"}]:
            await send(message)

    app = scaleobs.instrument(app, registry=registry, size_histograms=True)
    serve(app)
    asyncio.run(serve_asgi(app, {**SCOPE, "path": "/other"}, [CONNECT]))
    sums = {
        (name, status): registry.get_sample_value(
            f"http_{name}_size_bytes_sum", {"method": "GET", "route": "unmatched", "status_code": status}
        )
        for name in ("request", "response")
        for status in ("401", "403")
    }

    assert {("request", "401"): 0, ("request", "403"): 0, ("response", "401"): 4, ("response", "403"): 0} == sums


def test_answer_of_the_client_does_not_replace_the_code_of_the_application(registry, capsys):
    """A server may pass on the client's answer to a close before its own `send` returns."""

    async def run():
        async def send(message):
            if message["type"] == "websocket.close":
                await received.wait()

        async def receive():
            received.set()
            return {"type": "websocket.disconnect", "code": 1000}

        async def app(scope, receive, send):
            await send(ACCEPT)
            closing = asyncio.create_task(send({"type": "websocket.close", "code": 4001}))
            await asyncio.sleep(0)
            await receive()
            await closing

        received = asyncio.Event()
        await scaleobs.instrument(app, registry=registry)(dict(SCOPE), receive, send)

    asyncio.run(run())

    assert {("unmatched", "4001"): 1} == sockets(registry)
    assert [4001] == [line["code"] for line in log_lines(capsys)]


def test_websockets_share_the_limit_of_label_sets(registry, capsys):
    """Past it they are counted in one series, and the limit is logged."""
    app = scaleobs.instrument(
        functools.partial(until_closed), registry=registry, route=lambda scope: scope["path"], max_label_sets=3
    )

    async def run():
        for number in range(10):
            scope = {**SCOPE, "path": f"/chat/{number}"}
            await serve_asgi(app, scope, [CONNECT, {"type": "websocket.disconnect", "code": 1000 + number % 2}])

    asyncio.run(run())
    found = sockets(registry)

    assert {("_overflow", "_OTHER"): 7, **{(f"/chat/{one}", str(1000 + one % 2)): 1 for one in range(3)}} == found
    assert 7 == registry.get_sample_value("scaleobs_label_sets_dropped_total")
    assert 1 == sum(line["event"] == "label_sets.limit_reached" for line in log_lines(capsys))


@pytest.mark.parametrize("content_type", FORMATS)
def test_websockets_in_each_format(content_type, registry):
    """Each format has both families, with the labels and the buckets of the catalog."""
    app = scaleobs.instrument(functools.partial(until_closed), registry=registry, log_format="off")
    closed_by_client(app, [1000, 1000, 1006])
    found = samples(page(registry, content_type), content_type)
    ours = {name: value for name, value in found.items() if name[0].startswith("websocket_")}

    assert {1.0, 2.0} == {value for name, value in ours.items() if name[0] == "websocket_connections_total"}
    assert [3.0] * 10 == [value for name, value in ours.items() if name[0] == "websocket_duration_seconds_bucket"]
    assert [3.0] == [value for name, value in ours.items() if name[0] == "websocket_duration_seconds_count"]
    assert 2 + 10 + 2 == len(ours)


def test_route_that_cannot_be_found_loses_no_count(registry):
    """A user's function that raises is a fault of the route only."""

    def route(scope):
        raise ValueError("no route")

    closed_by_client(
        scaleobs.instrument(functools.partial(until_closed), registry=registry, route=route, log_format="off"), [1000]
    )

    assert {("unmatched", "1000"): 1} == sockets(registry)
    assert 1 == registry.get_sample_value("scaleobs_internal_faults_total")


UPGRADE = {"headers": [("Upgrade", "websocket"), ("Connection", "Upgrade")]}


def rejected(environ, start_response):
    """Answer by HTTP."""
    assert "HTTP_UPGRADE" in environ
    start_response("401 Unauthorized", [("Content-Length", "2")])
    return [b"no"]


@pytest.mark.parametrize("idiom", ["raises StopIteration", "returns []", "yields nothing", "is no iterable"])
@pytest.mark.parametrize("log_format", ["off", "json"])
def test_websocket_over_wsgi(idiom, log_format, registry, capsys):
    """An application that takes the connection over and starts no response has served a WebSocket, not failed."""
    already_handled = object()

    def generator():
        assert 1 == active(registry, "websocket")
        yield from ()

    def app(environ, start_response):
        assert (0, 1) == (active(registry), active(registry, "websocket"))
        if idiom == "raises StopIteration":
            raise StopIteration
        return {"returns []": [], "yields nothing": generator(), "is no iterable": already_handled}[idiom]

    app = scaleobs.instrument(app, registry=registry, log_format=log_format, route=lambda environ: "/chat/{room}")
    request = environ(path="/chat/7", **UPGRADE)
    if idiom == "raises StopIteration":
        with pytest.raises(StopIteration):
            app(request, None)
    else:
        body = app(request, None)
        if idiom == "is no iterable":
            assert body is already_handled
        else:
            assert [] == list(body)
            getattr(body, "close", list)()
    lines = log_lines(capsys)

    assert {} == counted(registry)
    assert {("/chat/{room}", "unknown"): 1} == sockets(registry)
    assert (0, 0) == (active(registry), active(registry, "websocket"))
    assert ([("websocket.closed", "info", "/chat/7", "10.0.0.7")] if log_format == "json" else []) == [
        (line["event"], line["level"], line["path"], line["client"]) for line in lines
    ]
    assert 0 == registry.get_sample_value("scaleobs_internal_faults_total")


@pytest.mark.parametrize("log_format", ["off", "json"])
def test_handshake_over_wsgi_that_is_answered_by_http(log_format, registry, capsys):
    """A response with a status, or an exception, is an HTTP answer; both gauges return to 0."""

    def failing(environ, start_response):
        raise ValueError("no such room")

    def late(environ, start_response):
        yield from rejected(environ, start_response)

    def broken(environ, start_response):
        if environ:
            raise ValueError("no such room")
        yield b""

    for app in (rejected, failing, late, broken):
        wsgi(scaleobs.instrument(functools.partial(app), registry=registry, log_format=log_format), **UPGRADE)
        assert (0, 0) == (active(registry), active(registry, "websocket"))

    assert {("GET", "unmatched", "401"): 2, ("GET", "unmatched", "500"): 2} == counted(registry)
    assert {} == sockets(registry)
    assert ([401, 500, 401, 500] if log_format == "json" else []) == [line["status_code"] for line in finished(capsys)]


def test_websocket_that_the_server_of_wsgi_accepts(registry):
    """With gevent-websocket the server has accepted it before the call, and ignores what the application starts."""

    def app(environ, start_response):
        start_response("200 OK", [])
        return [b""]

    def failing(environ, start_response):
        raise ValueError("no such room")

    for each in (app, failing):
        wsgi(scaleobs.instrument(each, registry=registry), **UPGRADE, **{"wsgi.websocket": object()})

    assert {} == counted(registry)
    assert {("unmatched", "unknown"): 2} == sockets(registry)
    assert (0, 0) == (active(registry), active(registry, "websocket"))


def test_upgrade_to_another_protocol_is_a_usual_request(registry):
    """An application without an answer has failed."""
    app = scaleobs.instrument(lambda environ, start_response: [], registry=registry)
    wsgi(app, headers=[("Upgrade", "h2c")])

    assert {("GET", "unmatched", "500"): 1} == counted(registry)
    assert {} == sockets(registry)


def test_websocket_is_accepted_with_its_id(registry, capsys):
    """The client gets the id of the line: its own, or a new one; a header of the application is kept."""

    async def app(scope, receive, send):
        await receive()
        own = [(b"X-Request-Id", b"mine")] if scope["path"] == "/own" else []
        await send({**ACCEPT, "headers": own} if own else ACCEPT)
        await send({"type": "websocket.close"})

    app = scaleobs.instrument(app, registry=registry)
    scopes = [dict(SCOPE), {**SCOPE, "headers": [(b"x-request-id", b"abc-7")]}, {**SCOPE, "path": "/own"}]
    accept_headers = [dict(asyncio.run(serve_asgi(app, scope, [CONNECT])).messages[0]["headers"]) for scope in scopes]
    lines = log_lines(capsys)

    assert [lines[0]["request_id"].encode(), b"abc-7"] == [one[b"x-request-id"] for one in accept_headers[:2]]
    assert {b"X-Request-Id": b"mine"} == accept_headers[2]
    assert "abc-7" == lines[1]["request_id"]


def test_malformed_headers_of_an_accept_are_refused_by_the_server(registry):
    """Messages of the application are passed on unchanged."""

    async def app(scope, receive, send):
        await receive()
        await send({**ACCEPT, "headers": None})

    seen = serve(scaleobs.instrument(app, registry=registry))

    assert seen.error is None
    assert {**ACCEPT, "headers": None} == seen.messages[0]


def test_line_of_a_websocket_has_what_the_application_raised(registry, capsys):
    """If the application raises, the line is an error with the exception."""

    async def app(scope, receive, send):
        await receive()
        await send(ACCEPT)
        raise ValueError("no such room")

    serve(scaleobs.instrument(app, registry=registry))
    [line] = log_lines(capsys)

    assert ("websocket.closed", "error") == (line["event"], line["level"])
    assert "ValueError: no such room" in line["exception"]
