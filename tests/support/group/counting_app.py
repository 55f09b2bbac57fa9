"""An application for WSGI and ASGI with its own metrics, some created before `instrument()`."""

import json
import os
import time
from urllib.parse import parse_qsl

from prometheus_client import CollectorRegistry, Counter, Enum, Gauge, Histogram, Info, Summary

import scaleobs

# The registry, and the argument for metrics in it.
OWN = CollectorRegistry() if os.environ.get("OWN_REGISTRY") else None
PLACE = {} if OWN is None else {"registry": OWN}

JOBS = Counter("jobs", "Jobs.", **PLACE)
JOBS.inc(1000)
KINDS = Counter("kinds", "Jobs of a kind.", ["kind", "size"], **PLACE)
SIZE = Histogram("size_bytes", "Sizes.", buckets=[1, 2, 4], **PLACE)
WAIT = Summary("wait_seconds", "Waits.", ["kind"], **PLACE)
LEVEL = Gauge("level", "Levels.", **PLACE)
Info("build", "Build.", **PLACE).info({"version": "1"})
Enum("state", "State.", states=["on", "off"], **PLACE).state("off")
MODES = {
    mode: Gauge(f"level_{mode}", "Levels.", ["worker", "x"], multiprocess_mode=mode, **PLACE)
    for mode in ("liveall", "sum", "livesum", "min", "max", "mostrecent", "livemostrecent")
}
LEVEL.set(7)


def answer(path, query):
    """Count, slowly enough that the next request goes to another worker."""
    limit = time.perf_counter() + 0.005
    while time.perf_counter() < limit:
        pass
    parameters = dict(parse_qsl(query))
    if path == "/count":
        count(float(parameters["size"]), parameters["kind"])
    elif path == "/own":
        LEVEL.set(os.getpid())
        for gauge in MODES.values():
            gauge.labels("w", "1").set(os.getpid())
    elif path == "/late":
        Counter("late", "Made in one worker only.", **PLACE).inc(3)
        Gauge("late_level", "Made in one worker only.", **PLACE).set(4)
    elif path == "/remove":
        MODES["sum"].remove("w", "1")
    elif path == "/child":
        return child()
    return json.dumps({"pid": os.getpid()}).encode()


def count(size, kind):
    """Count in metrics of each type, with labels and without, created before and after `instrument()`."""
    JOBS.inc()
    JOBS_ELSEWHERE.inc(100)
    KINDS.labels(kind, "any").inc(2)
    SIZE.observe(size)
    WAIT.labels(kind).observe(size)
    NEWER_JOBS.inc()
    NEWER_SIZE.labels(kind).observe(size)
    NEWER_WAIT.observe(size)


def child():
    """Count in a child that is no worker, and return its counts."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            count(1, "child")
            os.write(writing, json.dumps({"jobs": JOBS._value.get(), "level": LEVEL._value.get()}).encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(pid, 0)
    with os.fdopen(reading, "rb") as file:
        return file.read()


def _wsgi(environ, start_response):
    body = answer(environ["PATH_INFO"], environ["QUERY_STRING"])
    start_response("200 OK", [("content-length", str(len(body)))])
    return [body]


async def _asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return
    body = answer(scope["path"], scope["query_string"].decode())
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


wsgi = scaleobs.WSGIMiddleware(_wsgi, log_format="off", **PLACE)
asgi = scaleobs.ASGIMiddleware(_asgi, log_format="off", **PLACE)

NEWER_JOBS = Counter("newer_jobs", "Jobs.", **PLACE)
NEWER_SIZE = Histogram("newer_size_bytes", "Sizes.", ["kind"], buckets=[1, 2, 4], **PLACE)
NEWER_WAIT = Summary("newer_wait_seconds", "Waits.", **PLACE)
UNTOUCHED = Gauge("untouched", "Never set.", **PLACE)
FUNCTION = Gauge("function", "Of a function.", **PLACE)
FUNCTION.set_function(lambda: 5)
JOBS_ELSEWHERE = Counter("jobs", "The same name elsewhere.", registry=CollectorRegistry())
