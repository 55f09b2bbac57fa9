"""An exception of the application whose own methods raise leaves the middleware as it came, and is counted once."""

from __future__ import annotations

import functools

import pytest

import scaleobs
from support.exchanges import active, asgi, counted, finished, http_scope, wsgi


class OddExit(BaseException):
    """What no handler of errors catches, such as `SystemExit`."""


def refuse(self, *_, **__):
    raise ZeroDivisionError("by the exception")


def leave(self, *_, **__):
    raise OddExit


class Unnamed(type):
    """A class whose instances are classes without a readable name."""

    __name__ = property(refuse)


def recurse(self, name):
    return getattr(self, name + "_")


METHODS = {
    "truth": {"__bool__": refuse},
    "length": {"__len__": refuse},
    "equality and hash": {"__eq__": refuse, "__hash__": refuse},
    "text": {"__str__": refuse, "__repr__": refuse},
    "cause": {"__cause__": property(refuse), "__context__": property(refuse)},
    "traceback": {"__traceback__": property(refuse)},
    "suppression": {"__suppress_context__": property(refuse)},
    "class": {"__class__": property(refuse)},
    "any attribute": {"__getattribute__": refuse},
    "missing attributes": {"__getattr__": recurse},
    "setting attributes": {"__setattr__": refuse},
    "arguments": {"args": property(refuse)},
    "notes": {"__notes__": property(refuse)},
    "truth that ends the process": {"__bool__": leave},
    "text that ends the process": {"__str__": leave, "__repr__": leave},
    "cause that ends the process": {"__cause__": property(leave), "__context__": property(leave)},
    "any attribute that ends the process": {"__getattribute__": leave, "__setattr__": leave},
    "name of the class": {"metaclass": Unnamed, "__cause__": property(leave)},
}
PLACES = [
    *((RuntimeError, "itself"), (OSError, "itself"), (KeyboardInterrupt, "itself"), (ExceptionGroup, "itself")),
    *((OSError, "cause"), (RuntimeError, "context"), (OSError, "member")),
]


def odd_error(base, methods, place):
    """Return an exception that is odd, or that has an odd one in its chain."""
    arguments = ("odd", [ValueError("member")]) if base is ExceptionGroup else ("odd",)
    metaclass = methods.get("metaclass", type)
    odd = type.__call__(metaclass("OddError", (base,), {**methods, "__module__": __name__}), *arguments)
    if place == "itself":
        return odd
    if place == "member":
        return BaseExceptionGroup("group", [ValueError(), odd])
    error = RuntimeError("plain")
    if place == "cause":
        error.__cause__ = odd
    else:
        error.__context__ = odd
    return error


async def raising(scope, receive, send):
    """Raise the error of the scope."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if "error" in scope:
        raise scope["error"]
    await send({"type": "http.response.body", "body": b""})


def wsgi_raising(environ, start_response):
    """Raise the error of the environ, in one of the calls of the application."""
    start_response("200 OK", [])
    if environ.get("at") == "call":
        raise environ["error"]
    return Body(environ)


class Body:
    """A body that raises the error of its request."""

    def __init__(self, environ):
        self.environ = environ

    def __iter__(self):
        """Yield one chunk."""
        yield b"x"
        if self.environ.get("at") == "iteration":
            raise self.environ["error"]

    def close(self):
        """Raise at the end."""
        if self.environ.get("at") == "close":
            raise self.environ["error"]


@pytest.fixture(params=["off", "json"])
def observed(request, registry):
    """Return a function that instruments an application, which has served a request."""

    def instrumented(app, call):
        app = scaleobs.instrument(functools.partial(app), registry=registry, log_format=request.param)
        call(app)
        return app

    return instrumented


CASES = pytest.mark.parametrize("methods", METHODS.values(), ids=METHODS)


def identity_of(call):
    """Return the identity of the exception of a call, which may have no readable type."""
    try:
        call()
    except BaseException as error:
        return id(error)
    return None


@CASES
@pytest.mark.parametrize(("base", "place"), PLACES)
def test_asgi_exception_that_can_not_be_examined(methods, base, place, observed, registry, capsys):
    """The same exception reaches the server; the request is counted as a 500, is not open any more and has its line."""
    app = observed(raising, asgi)
    capsys.readouterr()
    error = odd_error(base, methods, place)

    async def send(message):
        pass

    coroutine = app(http_scope(error=error), None, send)

    assert id(error) == identity_of(lambda: coroutine.send(None))
    assert {("GET", "unmatched", "200"): 1, ("GET", "unmatched", "500"): 1} == counted(registry)
    assert 0 == active(registry)
    assert 0 == registry.get_sample_value("scaleobs_internal_faults_total")
    lines = finished(capsys)
    assert all(500 == line["status_code"] for line in lines)
    if scaleobs.observer_of(app)._service.log.writes_lines:
        assert 1 == len(lines)
        assert lines[0]["exception"]


@CASES
@pytest.mark.parametrize("at", ["call", "iteration", "close"])
def test_wsgi_exception_that_can_not_be_examined(methods, at, observed, registry, capsys):
    """The same in WSGI, for each call of the application."""
    app = observed(wsgi_raising, wsgi)
    before = counted(registry)
    capsys.readouterr()
    error = odd_error(RuntimeError, methods, "itself")
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "error": error, "at": at}

    def serve():
        body = app(environ, lambda *_: None)
        try:
            for _ in body:
                pass
        finally:
            body.close()

    assert id(error) == identity_of(serve)
    status = "200" if at == "close" else "500"
    assert before.get(("GET", "unmatched", status), 0) + 1 == counted(registry)["GET", "unmatched", status]
    assert 0 == active(registry)
    assert 0 == registry.get_sample_value("scaleobs_internal_faults_total")
    if scaleobs.observer_of(app)._service.log.writes_lines:
        assert 1 == len(finished(capsys))


@pytest.mark.parametrize("name", [name for name in METHODS if name.endswith("ends the process")])
def test_exception_that_can_not_be_written_to_a_terminal(name, registry):
    """The renderer for a terminal raises what the methods of the exception raise, which does not replace it."""
    app = scaleobs.instrument(functools.partial(raising), registry=registry, log_format="console")
    asgi(app)
    error = odd_error(RuntimeError, METHODS[name], "itself")

    async def send(message):
        pass

    coroutine = app(http_scope(error=error), None, send)

    assert id(error) == identity_of(lambda: coroutine.send(None))
    assert {("GET", "unmatched", "200"): 1, ("GET", "unmatched", "500"): 1} == counted(registry)
    assert 0 == active(registry)


@pytest.mark.parametrize("is_closed", [False, True])
def test_exception_of_a_websocket_that_can_not_be_written_to_a_terminal(is_closed, registry):
    """The same for a WebSocket, before and after the application has closed it."""

    async def app(scope, receive, send):
        await send({"type": "websocket.accept"})
        if is_closed:
            await send({"type": "websocket.close", "code": 1000})
        raise scope["error"]

    async def send(message):
        pass

    app = scaleobs.instrument(app, registry=registry, log_format="console")
    error = odd_error(RuntimeError, METHODS["cause that ends the process"], "itself")
    coroutine = app({**http_scope(error=error), "type": "websocket"}, None, send)

    assert id(error) == identity_of(lambda: coroutine.send(None))
    assert 0 == active(registry, "websocket")


@CASES
def test_span_of_an_exception_that_can_not_be_examined(methods, registry, exported, capsys):
    """The span ends, and the line is written, if the exception can't be recorded in the span."""
    app = scaleobs.instrument(functools.partial(raising), registry=registry)
    asgi(app)
    exported()
    capsys.readouterr()
    error = odd_error(RuntimeError, methods, "itself")

    async def send(message):
        pass

    coroutine = app(http_scope(error=error), None, send)

    assert id(error) == identity_of(lambda: coroutine.send(None))
    assert 1 == len(exported())
    assert 1 == len(finished(capsys))
    assert 0 == active(registry)


@CASES
def test_websocket_exception_that_can_not_be_examined(methods, registry, capsys):
    """The same for an open WebSocket."""

    async def app(scope, receive, send):
        await send({"type": "websocket.accept"})
        raise scope["error"]

    async def send(message):
        pass

    app = scaleobs.instrument(app, registry=registry)
    error = odd_error(RuntimeError, methods, "itself")
    coroutine = app({**http_scope(error=error), "type": "websocket"}, None, send)

    assert id(error) == identity_of(lambda: coroutine.send(None))
    assert 0 == active(registry, "websocket")
