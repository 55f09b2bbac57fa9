"""Every line of a request carries its ids, from wherever it is written, and no other line does."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import anyio.to_thread
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import StreamingResponse
from starlette.routing import Route

import scaleobs
from scaleobs import logs
from support.exchanges import asgi, environ, finished, http_scope, log_lines, serve_asgi, wsgi

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def say(event="said"):
    """Write a line, by the standard library."""
    logging.getLogger("shop").warning(event)


def ids_of(lines):
    """Return the ids of the requests that lines name."""
    return [line.get("request_id") for line in lines]


async def asgi_hello(scope, receive, send):
    """Answer."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-a", b"1")]})
    await send({"type": "http.response.body", "body": b"hello"})


def test_ids_go_wherever_the_request_goes(registry, capsys):
    """Tasks, threads of asyncio and anyio, generators while they stream and background tasks name the request."""

    async def everywhere(request):
        say("handler")
        await asyncio.to_thread(say, "to_thread")
        await anyio.to_thread.run_sync(say, "anyio")
        await asyncio.create_task(asyncio.to_thread(say, "task"))
        with ThreadPoolExecutor(1) as pool:
            pool.submit(contextvars.copy_context().run, say, "pool").result()

        def stream():
            say("generator begun")
            yield b"x"
            say("generator")

        return StreamingResponse(stream(), background=BackgroundTask(say, "background"))

    app = scaleobs.instrument(Starlette(routes=[Route("/", everywhere)]), registry=registry)
    asgi(app, headers=[("X-Request-ID", "r1"), ("traceparent", f"00-{TRACE}-{SPAN}-01")])
    lines = {line["event"]: line for line in log_lines(capsys)}

    assert {
        *("handler", "to_thread", "anyio", "task", "pool"),
        *("generator begun", "generator", "background", "request.finished"),
    } == set(lines)
    assert {("r1", TRACE, SPAN)} == {(line["request_id"], line["trace_id"], line["span_id"]) for line in lines.values()}


def test_concurrent_requests_keep_their_ids(registry, capsys):
    """A hundred requests at once, each with threads of its own: every line names its own request."""

    async def app(scope, receive, send):
        name = scope["path"][1:]
        for _ in range(3):
            say(name)
            await asyncio.sleep(0)
            await asyncio.to_thread(say, name)
        await asgi_hello(scope, receive, send)

    app = scaleobs.instrument(app, registry=registry)

    async def all_at_once():
        scopes = [http_scope(path=f"/{one}", headers=[("X-Request-ID", str(one))]) for one in range(100)]
        await asyncio.gather(*[serve_asgi(app, scope) for scope in scopes])

    asyncio.run(all_at_once())
    lines = log_lines(capsys)

    assert 700 == len(lines)
    assert all(line["request_id"] == line.get("path", "/" + line["event"])[1:] for line in lines)


def test_task_that_outlives_its_request_still_names_it(registry, capsys):
    """What a request has begun and not waited for names it when it is long answered."""

    async def late(go):
        await go.wait()
        say("late")

    async def both():
        go, tasks = asyncio.Event(), []

        async def app(scope, receive, send):
            tasks.append(asyncio.create_task(late(go)))
            await asgi_hello(scope, receive, send)

        await serve_asgi(scaleobs.instrument(app, registry=registry), http_scope(headers=[("X-Request-ID", "r1")]))
        go.set()
        await tasks[0]

    asyncio.run(both())

    assert [("request.finished", "r1"), ("late", "r1")] == [
        (one["event"], one["request_id"]) for one in log_lines(capsys)
    ]


@pytest.mark.parametrize("ends", ["in another thread", "never", "by the collector"])
def test_wsgi_thread_is_clean_between_requests(ends, registry, capsys):
    """However and wherever a body is closed, or not, the next line of the thread that called names no request."""

    def app(environ, start_response):
        start_response("200 OK", [])
        say("called")
        yield b"x"
        say("read")

    app = scaleobs.instrument(app, registry=registry)
    body = app(environ(headers=[("X-Request-ID", "r1")]), lambda *_: None)
    chunks = iter(body)

    assert b"x" == next(chunks)
    say("between")
    if ends == "in another thread":
        thread = threading.Thread(target=lambda: (list(chunks), body.close()))
        thread.start()
        thread.join()
    elif ends == "by the collector":
        del chunks, body
        gc.collect()
    say("after")
    wsgi(app, path="/health")
    lines = {line["event"]: line.get("request_id") for line in log_lines(capsys)}

    assert ("r1", None, None) == (lines["called"], lines["between"], lines["after"])
    assert "r1" == lines.get("read", "r1")
    assert logs.request_context.get() is None


def test_wsgi_body_read_in_another_thread_names_its_request(registry, capsys):
    """A server that reads and closes in another thread, in the middle of its next request there, mixes nothing up."""
    named = []

    def app(environ, start_response):
        start_response("200 OK", [])

        def body():
            try:
                named.append(logs.request_context.get()["request_id"])
                yield b"x"
            finally:
                named.append(logs.request_context.get()["request_id"])

        return body()

    app = scaleobs.instrument(app, registry=registry)
    first = app(environ(headers=[("X-Request-ID", "first")]), lambda *_: None)

    def outer(environ, start_response):
        chunks = iter(first)
        named.append((next(chunks), logs.request_context.get()["request_id"]))
        first.close()
        named.append(logs.request_context.get()["request_id"])
        start_response("200 OK", [])
        return [b""]

    wsgi(scaleobs.instrument(outer, registry=registry), headers=[("X-Request-ID", "second")])

    assert ["first", (b"x", "second"), "first", "second"] == named
    assert {"first", "second"} == set(ids_of(finished(capsys)))


def test_collected_coroutine_leaves_others_their_id(registry, capsys):
    """A request that is dropped while another one runs takes nothing from it."""

    class Never:
        def __await__(self):
            yield

    async def hanging(scope, receive, send):
        await Never()

    hanging = scaleobs.instrument(hanging, registry=registry)
    dropped = [hanging(http_scope(), None, None)]
    contextvars.copy_context().run(dropped[0].send, None)

    async def app(scope, receive, send):
        dropped.clear()
        gc.collect()
        say("mine")
        await asgi_hello(scope, receive, send)

    asgi(scaleobs.instrument(app, registry=registry), headers=[("X-Request-ID", "r1")])

    assert ["r1"] == ids_of(line for line in log_lines(capsys) if line["event"] == "mine")


def test_bound_fields_are_in_every_line_of_their_request(registry, capsys):
    """What a thread of the request binds is in all its lines from then on, its access line too, and then gone."""

    async def app(scope, receive, send):
        say("before")
        if scope["path"] == "/bind":
            await asyncio.to_thread(scaleobs.bind_context, order_id=7)
            scaleobs.get_logger("shop").info("after")
        await asgi_hello(scope, receive, send)

    app = scaleobs.instrument(app, registry=registry)
    for path in ("/bind", "/"):
        asgi(app, path=path)
    lines = [(line["event"], line.get("order_id")) for line in log_lines(capsys)]

    assert [
        *(("before", None), ("after", 7), ("request.finished", 7)),
        *(("before", None), ("request.finished", None)),
    ] == lines


def test_bound_fields_of_wsgi(registry, capsys):
    """What a view binds is in the lines of its body and in the access line, and not in the thread's next request."""

    def app(environ, start_response):
        start_response("200 OK", [])
        if environ["PATH_INFO"] == "/bind":
            scaleobs.bind_context(order_id=7)
        yield b"x"
        say()

    app = scaleobs.instrument(app, registry=registry)
    for path in ("/bind", "/"):
        wsgi(app, path=path)

    assert [7, 7, None, None] == [line.get("order_id") for line in log_lines(capsys)]


def test_bound_field_takes_no_key_from_a_line(registry, capsys):
    """A line's own keys stay what they are, and a line is written whatever is bound."""

    async def app(scope, receive, send):
        not_fields = {"event": "x", "self": 1, "exc_info": 0, "_record": 2}
        scaleobs.bind_context(**not_fields, level="x", route="x", a=1)
        say()
        await asgi_hello(scope, receive, send)

    asgi(scaleobs.instrument(app, registry=registry), headers=[("X-Request-ID", "r1")])
    said, line = log_lines(capsys)

    assert ("said", "warning", 1) == (said["event"], said["level"], said["a"])
    assert ("request.finished", "info", "unmatched", 1) == (line["event"], line["level"], line["route"], line["a"])


def test_nothing_is_bound_outside_a_request(capsys):
    """Without a request there is nothing to bind to, and nothing that could go into the next one."""
    scaleobs.configure_logging(log_format="json")
    scaleobs.bind_context(order_id=7)
    say()

    assert "order_id" not in log_lines(capsys)[0]
