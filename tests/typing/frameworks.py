"""The types that `instrument` returns. Both type checkers accept this file."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, assert_type
from wsgiref.types import StartResponse, WSGIEnvironment

import uvicorn
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from fastapi import FastAPI
from flask import Flask
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from scaleobs import instrument, observer_of

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]
WSGIApp = Callable[[Any, Any], Iterable[bytes]]


class OrdersAPI(FastAPI):
    orders = 0


class OrdersFlask(Flask):
    orders = 0


class BareASGI:
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        raise NotImplementedError


class BareWSGI:
    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        raise NotImplementedError


async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
    raise NotImplementedError


async def with_option(prefix: str, scope: Scope, receive: Receive, send: Send) -> None:
    raise NotImplementedError


def returns_awaitable(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
    return asgi(scope, receive, send)


def wsgi(environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    raise NotImplementedError


def generator(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    yield b""


# A framework that is instrumented in place keeps its type.
assert_type(instrument(FastAPI()), FastAPI)
assert_type(instrument(Starlette(), log_format="off"), Starlette)
assert_type(instrument(Flask("orders")), Flask)
assert_type(instrument(OrdersAPI()), OrdersAPI)
assert_type(instrument(OrdersFlask("orders")).orders, int)
instrument(FastAPI()).add_api_route("/", lambda: None)
instrument(Flask("orders")).config["DEBUG"] = True

# The wrapper of any other application is a callable.
assert_type(instrument(asgi), ASGIApp)
assert_type(instrument(returns_awaitable), ASGIApp)
assert_type(instrument(BareASGI()), ASGIApp)
assert_type(instrument(instrument(asgi)), ASGIApp)
assert_type(instrument(wsgi), WSGIApp)
assert_type(instrument(generator), WSGIApp)
assert_type(instrument(BareWSGI()), WSGIApp)
assert_type(instrument(lambda environ, start_response: [b""]), WSGIApp)
instrument(functools.partial(with_option, "/api"))

# Servers take it.
served: WSGIApplication = instrument(wsgi)
uvicorn.run(instrument(asgi))
uvicorn.run(instrument(FastAPI()))
FastAPI().mount("/orders", instrument(asgi))

# Django has no types; pyright infers them, mypy has Any.
instrument(get_asgi_application(), service="orders")
instrument(get_wsgi_application(), service="orders")
observer_of(get_wsgi_application()).started()
