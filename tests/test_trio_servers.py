"""hypercorn and anycorn with trio: probes, checks, start-up tasks, the lag, workers and the drain."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections import Counter

import pytest

from support import servers
from support.servers import BIN

pytestmark = pytest.mark.servers

APP = """
import asyncio
import contextlib
import os

import anyio
import scaleobs
import sniffio
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

library = sniffio.current_async_library


def write(line):
    os.write(1, f"{line}\\n".encode())  # In one piece: both workers write.


async def item(request):
    await anyio.to_thread.run_sync(os.getpid)
    return PlainTextResponse(str(os.getpid()))


async def stream(request):
    async def parts():
        for _ in range(20):
            await anyio.sleep(0.1)
            yield b"x"
    return StreamingResponse(parts())


@contextlib.asynccontextmanager
async def lifespan(app):
    async with anyio.create_task_group() as group:
        yield
        group.cancel_scope.cancel()
        write("left the lifespan")


routes = [Route("/items/{item_id}", item), Route("/stream", stream)]
app = Starlette(routes=routes, lifespan=lifespan)
app = scaleobs.instrument(app, service="shop", details=True, management_port=int(os.environ["MANAGEMENT"]))
obs = scaleobs.observer_of(app)


@obs.check("by anyio")
async def by_anyio():
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep, 0.01)
    return {"library": library()}


@obs.check("every", every=0.1)
async def every():
    await anyio.sleep(0)
    return {"library": library()}


@obs.check("sync", cache=0)
def in_a_thread():
    return {"library": "none"}


@obs.check("slow", timeout=0.3, cache=60, critical=False)
async def slow():
    await anyio.sleep(60)


if os.environ["LIBRARY"] == "trio":
    @obs.check("by trio", cache=60)
    async def by_trio():
        import trio
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep, 0.01)
        write("by trio")
        return {"library": library()}


@obs.check("by asyncio", cache=60, critical=False)
async def by_asyncio():
    await asyncio.sleep(0)
    return {"library": library()}


@obs.startup_task
async def warm():
    await anyio.sleep(0.05)
    write(f"warm {library()}")


@obs.startup_task
def warm_in_a_thread():
    write("warm in a thread")


@obs.on_drain
async def leave():
    await anyio.sleep(0.05)
    write(f"leave {library()}")


@obs.on_drain
def leave_in_a_thread():
    write("leave in a thread")


@obs.on_drain
async def hangs():
    await anyio.sleep(60)
"""

COMMANDS = {
    "hypercorn, trio": ["hypercorn", "-k", "trio", "-w", "2"],
    "anycorn, trio": ["anycorn", "-k", "trio", "-w", "2"],
    "anycorn": ["anycorn", "-w", "2"],
}


def read(port, path):
    """Return the status and the checks of a probe, by name."""
    status, body = servers.get(port, path)
    return status, {check["name"]: check for check in json.loads(body)["checks"]}


def probe_at_once(port, times):
    """Return the statuses of so many probes at once."""
    statuses = []
    clients = [threading.Thread(target=lambda: statuses.append(servers.get(port, "/ready")[0])) for _ in range(times)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    return statuses


def count_requests(port, workers):
    """Send requests until so many workers have answered; return how many."""
    seen, sent = set(), 0
    while len(seen) < workers:
        assert sent < 1000
        sent += 1
        seen.add(servers.get(port, "/items/7")[1])
    return sent


def drain(port, page, process):
    """End a server by SIGTERM; return the answers meanwhile, and the seconds that it took."""
    answers = []
    stream = threading.Thread(target=lambda: answers.append(servers.get(port, "/stream")))
    stream.start()
    servers.until(lambda: 'active_connections{protocol="http"} 1' in page())
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    servers.until(lambda: read(port, "/ready")[0] == 503)
    answers += [servers.get(port, path)[0] for path in ("/items/7", "/health")]
    process.wait(servers.LIMIT)
    stream.join()
    return answers, time.monotonic() - begun


@pytest.mark.parametrize("name", COMMANDS)
def test_service(name, tmp_path):
    """
    Probes, checks, start-up tasks, metrics of two workers, and the drain are as under asyncio.

    No probe is a 500, and nothing is a fault. A check that needs asyncio is down under trio, and its reason has that.
    """
    port, management = servers.free_port(), servers.free_port()
    library = "trio" if "trio" in name else "asyncio"
    (tmp_path / "shop.py").write_text(APP)
    own, *flags = COMMANDS[name]
    command = [str(BIN / own), "shop:app", *flags, "--bind", f"127.0.0.1:{port}"]
    settings = {"SCALEOBS_DRAIN_SECONDS": "2", "LIBRARY": library, "MANAGEMENT": str(management)}

    def page():
        return servers.get(management, "/metrics")[1].decode()

    with servers.running(command, port, tmp_path, **settings) as end:
        servers.until(lambda: read(port, "/startup")[0] == 200)
        servers.until(lambda: "\nscaleobs_workers 2" in page())
        statuses = probe_at_once(port, 20)
        status, checks = read(management, "/ready")
        sent = count_requests(port, 2)
        lag = 'event_loop_lag_seconds_bucket{le="+Inf"} '
        servers.until(lambda: float(page().partition(lag)[2].split()[0]) > 4)
        counted = page()
        answers, seconds = drain(port, page, end.process)
        out, err = end()
    events = Counter(json.loads(line)["event"] for line in out.splitlines() if line.startswith("{"))
    data = {name: check["data"] for name, check in checks.items()}
    needs_asyncio = data.pop("by asyncio")

    assert [200] * 21 == [*statuses, status]
    if library == "trio":
        assert "DEGRADED" == needs_asyncio["state"]
        assert "the server runs the application under trio, where asyncio can't be used" in needs_asyncio["reason"]
    else:
        assert "asyncio" == needs_asyncio["library"]
    assert "no answer within 0.3 s" == data.pop("slow")["reason"]
    assert {library, "none"} == {one["library"] for one in data.values()}
    series = 'http_requests_total{method="GET",route="/items/{item_id}",status_code="200"} '
    assert sent == float(counted.partition(series)[2].split()[0])
    assert "scaleobs_internal_faults_total 0.0" in counted
    assert 'thread_pool_size{pool="anyio"} 80.0' in counted
    assert "service_ready 1.0" in counted
    assert [200, 200, (200, b"x" * 20)] == answers
    assert 1.5 < seconds
    assert 0 == end.process.returncode
    assert [2, 2, 2] == [events[event] for event in ("drain.begun", "drain.ended", "drain.hook_failed")]
    for line in (f"warm {library}", "warm in a thread", f"leave {library}", "leave in a thread", "left the lifespan"):
        assert 2 == out.count(line + "\n"), line
    assert 2 >= out.count("by trio\n")
    assert not {"scaleobs.fault", "startup.task_failed", "event_loop.unknown"} & set(events)
    assert "Traceback" not in err
