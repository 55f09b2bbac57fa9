"""Wrong uses. Both type checkers refuse each line with the mark, and no other line."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from flask import Flask

import scaleobs
from scaleobs import ASGIMiddleware, Availability, Check, Latency, Observer, checks, instrument, observer_of


class MyApp:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        raise NotImplementedError

    def extra(self) -> None:
        raise NotImplementedError


async def app(scope: Any, receive: Any, send: Any) -> None:
    raise NotImplementedError


async def takes_two(scope: Any, receive: Any) -> None:
    raise NotImplementedError


def takes_one(environ: Any) -> list[bytes]:
    raise NotImplementedError


def returns_text(environ: Any, start_response: Any) -> int:
    raise NotImplementedError


# Applications.
instrument(42)  # expect-error
instrument("module:app")  # expect-error
instrument(None)  # expect-error
instrument(takes_one)  # expect-error
instrument(takes_two)  # expect-error
instrument(returns_text)  # expect-error
instrument()  # expect-error
instrument(FastAPI)  # expect-error
instrument(MyApp)  # expect-error
instrument(MyApp()).extra()  # expect-error
instrument(app).router  # expect-error
instrument(FastAPI()).wsgi_app  # expect-error
instrument(Flask("orders")).router  # expect-error
ASGIMiddleware(takes_one)  # expect-error

# Settings.
instrument(app, log_format="yaml")  # expect-error
instrument(FastAPI(), log_format="yaml")  # expect-error
instrument(Flask("orders"), log_format="yaml")  # expect-error
instrument(app, log_schema="gelf")  # expect-error
instrument(app, checks=[1])  # expect-error
instrument(app, checks=Check("a", lambda: True))  # expect-error
instrument(app, objectives=["availability=99"])  # expect-error
instrument(app, objectives=99.9)  # expect-error
instrument(app, servcie="orders")  # expect-error
instrument(app, service=None)  # expect-error
instrument(app, health_path=b"/h")  # expect-error
instrument(app, drain_seconds="5")  # expect-error
instrument(app, management_port="9090")  # expect-error
instrument(app, access_levels={"4xx": "warn"})  # expect-error
instrument(app, access_sample="all")  # expect-error
instrument(app, route="/items")  # expect-error
instrument(app, request_id_generator="new")  # expect-error
instrument(app, route=lambda scope: 3)  # expect-error
instrument(app, registry="mine")  # expect-error
Observer(log_format="yaml")  # expect-error
ASGIMiddleware(app, log_format="yaml")  # expect-error
scaleobs.configure_logging(log_format="yaml")  # expect-error
scaleobs.configure_logging(drain_seconds=5)  # expect-error

# The rest.
Check("a", lambda: True, probe="health")  # expect-error
Check("a", lambda: True, "ready")  # expect-error
Check("a")  # expect-error
Check("a", lambda number: True)  # expect-error
checks.tcp("db")  # expect-error
checks.tcp("db", 5432, probe="liveness")  # expect-error
Availability("99.9")  # expect-error
Latency(99)  # expect-error
observer_of(app).ready()  # expect-error
observer_of(app).check(app)  # expect-error
observer_of(app).on_drain(app)  # expect-error
observer_of(app).startup_task(3)  # expect-error
scaleobs.get_logger("orders").inform("order.placed")  # expect-error
scaleobs.bind_context("order_id", 7)  # expect-error
scaleobs.request_id("r1")  # expect-error
scaleobs.instrumented(app)  # expect-error
