"""What real servers send and refuse at the end of a response is counted as the client saw it."""

from __future__ import annotations

import contextlib
import http.client
import json
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from support import servers

pytestmark = pytest.mark.servers

APP = """
import anyio
import scaleobs
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

async def item(request):
    return PlainTextResponse("x" * 9, background=BackgroundTask(anyio.lowlevel.checkpoint))

async def stream(request):
    async def parts():
        for part in (b"a", b"b", b"c"):
            await anyio.lowlevel.checkpoint()
            yield part
    return StreamingResponse(parts())

async def short(request):
    return PlainTextResponse("x", headers={"content-length": "9"})

async def long(request):
    return PlainTextResponse("x" * 9, headers={"content-length": "1"})

async def empty(request):
    return Response(b"x", status_code=204)

class Replaced(Response):
    async def __call__(self, scope, receive, send):
        try:
            await send({"type": "http.response.start", "status": 200, "headers": [("text", b"x")]})
        except TypeError:
            await send({"type": "http.response.start", "status": 503, "headers": []})
        await send({"type": "http.response.body", "body": b"x"})

async def replaced(request):
    return Replaced()

class NoFile(Response):
    async def __call__(self, scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.pathsend", "path": "/missing"})

async def nofile(request):
    return NoFile()

async def boom(request):
    raise RuntimeError("boom")

routes = [Route("/items/{item_id}", item), Route("/stream/{name}", stream), Route("/boom", boom)]
routes += [Route("/short", short), Route("/long", long), Route("/empty", empty)]
routes += [Route("/replaced", replaced), Route("/nofile", nofile)]
app = scaleobs.instrument(Starlette(routes=routes), service="shop")
"""

HYPERCORN = [str(servers.BIN / "hypercorn"), "shop:app"]
ANYCORN = [str(servers.BIN / "anycorn"), "shop:app"]
UVICORN = [str(servers.BIN / "uvicorn"), "shop:app"]
COMMANDS = {
    "hypercorn, trio": [*HYPERCORN, "-k", "trio", "--bind", "127.0.0.1:PORT"],
    "anycorn": [*ANYCORN, "--bind", "127.0.0.1:PORT"],
    "anycorn, trio": [*ANYCORN, "-k", "trio", "--bind", "127.0.0.1:PORT"],
    "uvicorn": [*UVICORN, "--http", "h11", "--port", "PORT"],
}
PATHS = ["/items/1", "/items/2", "/stream/a", "/stream/b", "/missing", "/boom"]
EXPECTED = {("/items/{item_id}", "200"): 2, ("/stream/{name}", "200"): 2, ("unmatched", "404"): 1, ("/boom", "500"): 1}
TIMES = 8


def counts(page):
    """Return the counted requests of a page by route and status."""
    found = {}
    for line in page.splitlines():
        if line.startswith("http_requests_total{"):
            labels = dict(pair.split("=", 1) for pair in line[line.index("{") + 1 : line.rindex("}")].split('",'))
            found[labels["route"].strip('"'), labels["status_code"].strip('"')] = float(line.split()[-1])
    return {key: value for key, value in found.items() if value}


@pytest.mark.parametrize(
    ("name", "log_format"),
    [
        ("hypercorn, trio", "json"),
        ("anycorn", "json"),
        ("anycorn, trio", "off"),
        ("uvicorn", "json"),
        ("uvicorn", "off"),
    ],
)
def test_requests_are_counted_as_answered(name, log_format, tmp_path):
    """Templates are right, counts are requests, no complete answer is a 5xx, and each request has one line."""
    port = servers.free_port()
    (tmp_path / "shop.py").write_text(APP)
    command = [part.replace("PORT", str(port)) for part in COMMANDS[name]]
    expected = {key: count * TIMES for key, count in EXPECTED.items()}
    # Only uvicorn refuses a body, only the others a header that is text, and only anycorn sends files.
    refused = ["/short", "/long", "/empty"] if name == "uvicorn" else ["/nofile"]
    expected["/replaced", "200" if name == "uvicorn" else "503"] = 1
    with servers.running(command, port, tmp_path, LOG_FORMAT=log_format) as end:
        with ThreadPoolExecutor(4) as pool:
            statuses = [status for status, _ in pool.map(partial(servers.get, port), PATHS * TIMES)]
        replaced, _ = servers.get(port, "/replaced")
        for path in refused:
            expected[path, "500"] = 1
            with contextlib.suppress(http.client.HTTPException, OSError):
                servers.get(port, path)
        page = servers.get(port, "/metrics")[1].decode()
        out, _ = end()
    events = [json.loads(line)["event"] for line in out.splitlines() if log_format == "json"]

    assert [200, 200, 200, 200, 404, 500] * TIMES == statuses
    assert (200 if name == "uvicorn" else 503) == replaced
    assert expected == counts(page)
    assert 'active_connections{protocol="http"} 0' in page
    assert (sum(expected.values()) if log_format == "json" else 0) == events.count("request.finished")
