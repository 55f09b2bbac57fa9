"""Twenty successful requests in a row without a template have one warning, which names the fix."""

from __future__ import annotations

import functools
import threading

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

import scaleobs
from support.exchanges import asgi, log_lines, wsgi


async def raw_asgi(scope, receive, send):
    """Answer with the status that the path names."""
    await PlainTextResponse("raw", int(scope["path"][1:4]))(scope, receive, send)


def raw_wsgi(environ, start_response):
    """The same for WSGI."""
    start_response(f"{environ['PATH_INFO'][1:4]} X", [])
    return [b"raw"]


@pytest.fixture(name="serve", params=[(asgi, raw_asgi), (wsgi, raw_wsgi)], ids=["asgi", "wsgi"])
def _serve(request, registry, capsys):
    """Return a function that requests paths, and returns the warnings since the last call."""
    call, app = request.param

    whole = functools.partial(app)

    def serve(*paths, **settings):
        served = scaleobs.instrument(whole, registry=registry, **settings)
        for path in paths:
            call(served, path=path)
        return [line for line in log_lines(capsys) if line["event"] == "route.missing"]

    return serve


@pytest.mark.parametrize("log_format", ["json", "off"])
def test_twenty_in_a_row_have_one_warning(serve, log_format):
    """There is none after nineteen, one after twenty, and no second one."""
    if log_format == "off":
        scaleobs.configure_logging(log_format="json")

    assert [] == serve(*["/200"] * 19, log_format=log_format)
    (warning,) = serve("/200", log_format=log_format)
    assert ("warning", 20) == (warning["level"], warning["requests"])
    assert "route=" in warning["fix"]
    assert [] == serve(*["/200"] * 50, log_format=log_format)


def test_errors_are_no_part_of_a_row(serve):
    """A scan for pages that are not there has no warning, and does not end a row."""
    assert [] == serve(*["/404", "/503"] * 50, *["/204"] * 19)
    assert 1 == len(serve("/404", "/200"))


def test_function_that_returns_nothing_has_no_warning(serve):
    """The fix is there already."""
    assert [] == serve(*["/200"] * 50, route=lambda _: None)


def test_request_with_a_template_ends_a_row(registry, capsys):
    """Also if its series is cached; those afterwards have the warning."""
    app = Starlette(routes=[Route("/a/{x}", lambda _: PlainTextResponse("a")), Mount("/raw", lambda *_: None)])
    app.router.default = raw_asgi
    scaleobs.instrument(app, registry=registry)
    for paths in (["/200"] * 19, ["/a/1"]) * 3:
        for path in paths:
            asgi(app, path=path)
    before = [line for line in log_lines(capsys) if line["event"] == "route.missing"]
    for _ in range(40):
        asgi(app, path="/200")
    after = [line for line in log_lines(capsys) if line["event"] == "route.missing"]

    assert [] == before
    assert 1 == len(after)


def test_threads_have_one_warning(registry, capsys):
    """Twenty requests of four threads are a row; the warning is logged once."""
    served = scaleobs.instrument(functools.partial(raw_wsgi), registry=registry)
    threads = [threading.Thread(target=lambda: [wsgi(served, path="/200") for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 1 == sum(line["event"] == "route.missing" for line in log_lines(capsys))
