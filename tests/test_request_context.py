"""Every line of a request has its ids, in any task or thread, and no other line does."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import gc
import json
import logging
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import anyio.to_thread
import pytest
import structlog
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import StreamingResponse
from starlette.routing import Route

import scaleobs
from scaleobs.logs._context import request_context
from support.exchanges import asgi, environ, finished, http_scope, log_lines, serve_asgi, wsgi

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def log_line(event="event"):
    """Log a line by stdlib logging."""
    logging.getLogger("shop").warning(event)


def ids_of(lines):
    """Return the request ids of lines."""
    return [line.get("request_id") for line in lines]


async def asgi_hello(scope, receive, send):
    """Answer."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-a", b"1")]})
    await send({"type": "http.response.body", "body": b"hello"})


def test_ids_in_all_tasks_and_threads(registry, capsys):
    """Lines of tasks, of threads of asyncio and anyio, of streaming generators and of background tasks have the ids."""

    async def everywhere(request):
        log_line("handler")
        await asyncio.to_thread(log_line, "to_thread")
        await anyio.to_thread.run_sync(log_line, "anyio")
        await asyncio.create_task(asyncio.to_thread(log_line, "task"))
        with ThreadPoolExecutor(1) as pool:
            pool.submit(contextvars.copy_context().run, log_line, "pool").result()

        def stream():
            log_line("generator begun")
            yield b"x"
            log_line("generator")

        return StreamingResponse(stream(), background=BackgroundTask(log_line, "background"))

    app = scaleobs.instrument(Starlette(routes=[Route("/", everywhere)]), registry=registry)
    asgi(app, headers=[("X-Request-ID", "r1"), ("traceparent", f"00-{TRACE}-{SPAN}-01")])
    lines = {line["event"]: line for line in log_lines(capsys)}

    assert {
        *("handler", "to_thread", "anyio", "task", "pool"),
        *("generator begun", "generator", "background", "request.finished"),
    } == set(lines)
    assert {("r1", TRACE, SPAN)} == {(line["request_id"], line["trace_id"], line["span_id"]) for line in lines.values()}


def test_concurrent_requests_keep_their_ids(registry, capsys):
    """A hundred concurrent requests, each with its threads: every line has the id of its request."""

    async def app(scope, receive, send):
        name = scope["path"][1:]
        for _ in range(3):
            log_line(name)
            await asyncio.sleep(0)
            await asyncio.to_thread(log_line, name)
        await asgi_hello(scope, receive, send)

    app = scaleobs.instrument(app, registry=registry, route=lambda _: "/{name}")

    async def all_at_once():
        scopes = [http_scope(path=f"/{one}", headers=[("X-Request-ID", str(one))]) for one in range(100)]
        await asyncio.gather(*[serve_asgi(app, scope) for scope in scopes])

    asyncio.run(all_at_once())
    lines = log_lines(capsys)

    assert 700 == len(lines)
    assert all(line["request_id"] == line.get("path", "/" + line["event"])[1:] for line in lines)


def test_task_that_outlives_its_request_keeps_the_id(registry, capsys):
    """A task that a request has started has the id of the request after its response, too."""

    async def late(go):
        await go.wait()
        log_line("late")

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
    """If a body is closed in another thread, later or never, the next line of the calling thread has no id."""

    def app(environ, start_response):
        start_response("200 OK", [])
        log_line("called")
        yield b"x"
        log_line("read")

    app = scaleobs.instrument(app, registry=registry)
    body = app(environ(headers=[("X-Request-ID", "r1")]), lambda *_: None)
    chunks = iter(body)

    assert b"x" == next(chunks)
    log_line("between")
    if ends == "in another thread":
        thread = threading.Thread(target=lambda: (list(chunks), body.close()))
        thread.start()
        thread.join()
    elif ends == "by the collector":
        del chunks, body
        gc.collect()
    log_line("after")
    wsgi(app, path="/health")
    lines = {line["event"]: line.get("request_id") for line in log_lines(capsys)}

    assert ("r1", None, None) == (lines["called"], lines["between"], lines["after"])
    assert "r1" == lines.get("read", "r1")
    assert request_context.get() is None


def test_wsgi_body_read_during_another_request(registry, capsys):
    """A body that a thread reads and closes during its next request has the id of its own request."""
    named = []

    def app(environ, start_response):
        start_response("200 OK", [])

        def body():
            try:
                named.append(request_context.get()["request_id"])
                yield b"x"
            finally:
                named.append(request_context.get()["request_id"])

        return body()

    app = scaleobs.instrument(app, registry=registry)
    first = app(environ(headers=[("X-Request-ID", "first")]), lambda *_: None)

    def outer(environ, start_response):
        chunks = iter(first)
        named.append((next(chunks), request_context.get()["request_id"]))
        first.close()
        named.append(request_context.get()["request_id"])
        start_response("200 OK", [])
        return [b""]

    wsgi(scaleobs.instrument(outer, registry=registry), headers=[("X-Request-ID", "second")])

    assert ["first", (b"x", "second"), "first", "second"] == named
    assert {"first", "second"} == set(ids_of(finished(capsys)))


def test_collected_coroutine_keeps_other_ids(registry, capsys):
    """A request that is garbage-collected during another one does not remove the id of that one."""

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
        log_line("own")
        await asgi_hello(scope, receive, send)

    asgi(scaleobs.instrument(app, registry=registry), headers=[("X-Request-ID", "r1")])

    assert ["r1"] == ids_of(line for line in log_lines(capsys) if line["event"] == "own")


def test_bound_fields_are_in_every_line_of_their_request(registry, capsys):
    """A field that a thread of the request binds is in all later lines of the request, and in its access line."""

    async def app(scope, receive, send):
        log_line("before")
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
    """A field that a view binds is in the lines of its body and in the access line, and not in the next request."""

    def app(environ, start_response):
        start_response("200 OK", [])
        if environ["PATH_INFO"] == "/bind":
            scaleobs.bind_context(order_id=7)
        yield b"x"
        log_line()

    app = scaleobs.instrument(app, registry=registry)
    for path in ("/bind", "/"):
        wsgi(app, path=path)

    assert [7, 7, None, None] == [line.get("order_id") for line in log_lines(capsys)]


def test_bound_field_replaces_no_key_of_a_line(registry, capsys):
    """The keys of a line take precedence, and any bound field results in a valid line."""

    async def app(scope, receive, send):
        not_fields = {"event": "x", "self": 1, "exc_info": 0, "_record": 2}
        scaleobs.bind_context(**not_fields, level="x", route="x", a=1)
        log_line()
        await asgi_hello(scope, receive, send)

    asgi(scaleobs.instrument(app, registry=registry), headers=[("X-Request-ID", "r1")])
    own, line = log_lines(capsys)

    assert ("event", "warning", 1) == (own["event"], own["level"], own["a"])
    assert ("request.finished", "info", "unmatched", 1) == (line["event"], line["level"], line["route"], line["a"])


def test_nothing_is_bound_outside_a_request(capsys):
    """Outside a request `bind_context` does nothing."""
    scaleobs.configure_logging(log_format="json")
    scaleobs.bind_context(order_id=7)
    log_line()

    assert "order_id" not in log_lines(capsys)[0]


def test_id_of_the_current_request(registry, capsys):
    """Handlers, their threads and tasks receive the id of their lines and their response; there is none elsewhere."""
    found = []

    async def app(scope, receive, send):
        found.append(scaleobs.request_id())
        found.append(await asyncio.to_thread(scaleobs.request_id))
        await asgi_hello(scope, receive, send)

    def view(environ, start_response):
        found.append(scaleobs.request_id())
        start_response("200 OK", [])
        return [b""]

    for call, served in ((asgi, app), (wsgi, view)):
        answer = call(scaleobs.instrument(served, registry=registry), headers=[("X-Request-ID", "r1")])
        assert {"r1"} == set(found) == {answer.headers.get("x-request-id", answer.headers.get("X-Request-ID"))}
        found.clear()
    asgi(scaleobs.instrument(functools.partial(app), registry=registry))

    assert found[0] == found[1] == finished(capsys)[-1]["request_id"]
    assert scaleobs.request_id() is None


OWN_IDS = [uuid.UUID(int=1), None, "é", "a\r\nb", 7]


@pytest.mark.parametrize("value", OWN_IDS, ids=repr)
@pytest.mark.parametrize("bind", ["bind_context", "contextvars", "extra", "event"])
def test_own_request_id_of_an_application(bind, value, registry, capsys):
    """It is `request_id_` in the lines, removes nothing else, and the client receives the id that was validated."""

    async def app(scope, receive, send):
        scaleobs.bind_context(order_id=7)
        if bind == "bind_context":
            scaleobs.bind_context(request_id=value)
        if bind == "contextvars":
            structlog.contextvars.bind_contextvars(request_id=value)
        logging.getLogger("shop").warning("line", extra={"request_id": value} if bind == "extra" else None)
        if bind == "event":
            scaleobs.get_logger("shop").info("other", request_id=value)
        await asgi_hello(scope, receive, send)

    headers = [("X-Request-ID", "r1"), ("traceparent", f"00-{TRACE}-{SPAN}-01")]
    answer = asgi(scaleobs.instrument(app, registry=registry), headers=headers)
    structlog.contextvars.clear_contextvars()
    lines = log_lines(capsys)

    assert "r1" == answer.headers["x-request-id"]
    assert {("r1", TRACE, SPAN, 7)} == {
        (line["request_id"], line["trace_id"], line["span_id"], line["order_id"]) for line in lines
    }
    assert [json.loads(json.dumps(value, default=str))] in (
        [line["request_id_"]] for line in lines if "request_id_" in line
    )


@pytest.mark.parametrize("name", ["trace_id", "span_id"])
def test_own_trace_id_of_an_application(name, registry, capsys):
    """It is kept beside the one of the request; without one of the request it is the only one."""

    async def app(scope, receive, send):
        scaleobs.get_logger("shop").info("line", **{name: "own"})
        await asgi_hello(scope, receive, send)

    served = scaleobs.instrument(app, registry=registry)
    asgi(served, headers=[("traceparent", f"00-{TRACE}-{SPAN}-01")])
    asgi(served)
    with_trace, without = [line for line in log_lines(capsys) if line["event"] == "line"]

    assert ({"trace_id": TRACE, "span_id": SPAN}[name], "own") == (with_trace[name], with_trace[f"{name}_"])
    assert "own" == without[name]


def test_id_that_is_logged_again_is_no_other_one(registry, capsys):
    """A line that names the id of its own request has it once."""

    async def app(scope, receive, send):
        scaleobs.bind_context(request_id=scaleobs.request_id())
        logging.getLogger("shop").warning("line", extra={"request_id": scaleobs.request_id()})
        await asgi_hello(scope, receive, send)

    asgi(scaleobs.instrument(app, registry=registry))

    assert [False, False] == ["request_id_" in line for line in log_lines(capsys)]


def test_bound_fields_with_names_of_the_access_line(registry, capsys):
    """They are kept with an underscore after the name."""

    async def app(scope, receive, send):
        scaleobs.bind_context(path="/own", client=7, method="own")
        await asgi_hello(scope, receive, send)

    asgi(scaleobs.instrument(app, registry=registry), path="/x")
    line = finished(capsys)[0]

    assert ("/x", "/own", 7, "GET", "own") == (
        *(line["path"], line["path_"], line["client_"]),
        *(line["method"], line["method_"]),
    )
