"""
A process that is as many pods as one likes: each has its own `/metrics`, in the shape that a real service gives it.

`python pods.py PORT COUNT` serves `/pods/0/metrics` and so on, `/metrics/cadvisor` as cAdvisor and any other path as
kube-state-metrics, each for all of them.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import Iterator
from random import Random

from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.routing import Route

import scaleobs
from support.drills.cluster import Deployment, shown
from support.exchanges import http_scope, serve_asgi

ROUTES = 30
_FAILING = 5
_REQUESTS = 3000
_COUNTERS = re.compile(r"[a-z_]+(_total|_bucket|_count|_sum)[{ ]")
_SERVICES = 10


def service_of(pod: int) -> str:
    """Return which of ten services a pod belongs to."""
    return f"service-{pod % _SERVICES}"


def pod_name(pod: int) -> str:
    """Return what Kubernetes calls a pod."""
    return f"{Deployment(service_of(pod)).replica_set}-{pod:05d}"


def template() -> list[tuple[str, float | None]]:
    """
    Return the page of a real service as lines without their values, and the values of those that grow.

    It has thirty routes, and has answered 200 and 404 on each, and 500 on some.
    """
    choice = Random(7)

    async def item(request):
        if request.path_params["number"] == "none":
            raise HTTPException(404)
        if request.path_params["number"] == "broken":
            raise HTTPException(500)
        await asyncio.sleep(choice.expovariate(1000))
        return PlainTextResponse("here it is")

    registry = CollectorRegistry()
    routes = [Route(f"/things-{number}/{{number}}", item) for number in range(ROUTES)]
    app = scaleobs.instrument(Starlette(routes=routes), service="things", registry=registry, log_format="off")

    async def request_all() -> str:
        for number in range(_REQUESTS):
            route = number % ROUTES
            what = choice.choices((str(number), "none", "broken"), (90, 8, 2 if route < _FAILING else 0))[0]
            await serve_asgi(app, http_scope("GET", f"/things-{route}/{what}"))
        seen = await serve_asgi(app, http_scope("GET", "/metrics"))
        return seen.body.decode()

    lines = []
    for line in asyncio.run(request_all()).splitlines():
        series, _, value = line.rpartition(" ")
        grows = not line.startswith("#") and _COUNTERS.match(line)
        lines.append((f"{series} ", float(value)) if grows else (line, None))
    return lines


class Pods:
    """What all the pods show: numbers that grow at the pace that they had come to after a minute."""

    def __init__(self, count: int) -> None:
        self._template = template()
        self._begun = time.time()
        self._deployments = [
            Deployment(service_of(pod), alias=pod_name(pod), replicas=count // _SERVICES, available=count // _SERVICES)
            for pod in range(count)
        ]

    def page(self, path: str) -> bytes:
        """Return what is shown at a path."""
        if path.startswith("/pods/"):
            return "\n".join(self._lines()).encode() + b"\n"
        return "".join(f"{line}\n" for line in shown(self._deployments, path)).encode()

    def _lines(self) -> Iterator[str]:
        grown = 1 + (time.time() - self._begun) / 60
        for text, value in self._template:
            if value is None:
                yield text
            else:
                grown_value = value * grown
                yield f"{text}{grown_value:.0f}" if value.is_integer() else f"{text}{grown_value:.3f}"


async def serve(pods: Pods, port: int) -> None:
    """Answer on a port until the process is ended."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                page = pods.page(head.split(b" ", 2)[1].decode())
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\n")
                writer.write(b"Content-Length: %d\r\n\r\n" % len(page) + page)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", port, backlog=1024) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(Pods(int(sys.argv[2])), int(sys.argv[1])))
