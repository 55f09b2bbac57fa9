"""An application for WSGI servers, as a user writes it, observed by one line."""

import os
import time

from flask import Flask

import scaleobs

SETTINGS = {}
"""Settings that a test adds; most add none."""

shop = Flask("shop")


@shop.get("/hello/<name>")
def hello(name):
    """Answer at once."""
    return name


@shop.get("/slow/<seconds>")
def slow(seconds):
    """Answer later."""
    time.sleep(float(seconds))
    return "slow"


@shop.get("/boom")
def boom():
    """Fail."""
    raise RuntimeError("boom")


scaleobs.instrument(shop, **SETTINGS)


def app(environ, start_response):
    """Add the worker's pid to each response."""

    def start(status, headers, *more):
        return start_response(status, [*headers, ("x-worker", str(os.getpid()))], *more)

    return shop(environ, start)
