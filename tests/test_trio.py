"""Under trio, checks, start-up tasks, hooks and the event loop's lag are the same as under asyncio."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from concurrent.futures import CancelledError

import anyio
import pytest
import sniffio
import trio
from prometheus_client import Gauge
from starlette.applications import Starlette
from starlette.testclient import TestClient

import scaleobs
from scaleobs._health import Check, Checks
from scaleobs._lifecycle import hooks
from scaleobs._lifecycle.state import Lifecycle, StartupTasks
from scaleobs._metrics.runtime import runtime
from scaleobs._trio import TookTooLongError, TrioLoop, running_trio
from support.exchanges import http_scope, log_lines
from support.servers import LIMIT


async def nothing(*_):
    """Receive nothing, and send nowhere."""
    return {"type": "http.request"}


async def plain(scope, receive, send):
    """Answer 200."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x"})


async def until(condition):
    """Wait, under trio, for a condition."""
    with trio.fail_after(LIMIT):
        while not condition():  # noqa: ASYNC110 - Other threads make it true.
            await trio.sleep(0.005)


async def request(app, path="/ready"):
    """Return the status and the JSON of one request."""
    sent = []

    async def send(message):
        sent.append(message)

    await app(http_scope(path=path), nothing, send)
    return sent[0]["status"], json.loads(sent[1]["body"])


def report_of(*checks, probe="ready"):
    """Return what the checks report under trio, as reasons by name; empty if they pass."""

    async def main():
        all_checks = Checks(lambda *_: None)
        for check in checks:
            all_checks.add(check)
        return await all_checks.report_async(probe)

    return {name: result.reason for name, result in trio.run(main).checks}


async def by_trio():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep, 0)
    return {"library": sniffio.current_async_library()}


def by_trio_in_a_thread():
    return by_trio()


async def by_anyio():
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep, 0)
    await anyio.to_thread.run_sync(time.monotonic)


def test_check_of_any_kind_passes():
    """An async check may use trio or anyio; a sync one has a thread, and may return what is awaited there."""
    checks = [
        Check("trio", by_trio),
        Check("anyio", by_anyio),
        Check("sync", dict),
        Check("in a thread", by_trio_in_a_thread),
    ]

    assert dict.fromkeys(["trio", "anyio", "sync", "in a thread"], "") == report_of(*checks)


async def fails():
    raise scaleobs.CheckFailed("no connection")


async def fails_in_a_group():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(fails)


async def exits():
    raise SystemExit(3)


async def hangs():
    await trio.sleep(60)


async def hangs_in_a_group():
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hangs)


async def uses_asyncio():
    await asyncio.sleep(0)


class Future:
    """Yields itself to the event loop, as asyncio's does."""

    def __await__(self):
        yield self


async def awaits_a_future():
    await Future()


def hangs_in_a_thread():
    return hangs()


def uses_asyncio_in_a_thread():
    return uses_asyncio()


UNDER_TRIO = "(the server runs the application under trio, where asyncio can't be used)"


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (fails, "no connection"),
        (fails_in_a_group, "ExceptionGroup: Exceptions from Trio nursery (1 sub-exception)"),
        (exits, "SystemExit: 3"),
        (hangs, "no answer within 0.2 s"),
        (hangs_in_a_group, "no answer within 0.2 s"),
        (hangs_in_a_thread, "no answer within 0.2 s"),
        (uses_asyncio, UNDER_TRIO),
        (uses_asyncio_in_a_thread, UNDER_TRIO),
        (awaits_a_future, UNDER_TRIO),
    ],
)
def test_check_that_fails(function, reason):
    """A check that fails, hangs or needs asyncio is down with its reason, and does not end the run of trio."""
    assert reason in report_of(Check("check", function, timeout=0.2))["check"]


def test_probes_share_one_run():
    """Of many probes at once one begins the check, and all wait for it; later ones have its result."""
    begun = []

    async def check():
        begun.append(1)
        await trio.sleep(0.05)

    async def main():
        app = scaleobs.instrument(plain_copy(), service="shop", log_format="off")
        scaleobs.observer_of(app).check("database", cache=60)(check)
        answers = []

        async def probe():
            answers.append(await request(app))

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(probe)
        answers.append(await request(app))
        return [status for status, _ in answers]

    assert [200] * 51 == trio.run(main)
    assert [1] == begun


def plain_copy():
    """Return an application of its own."""

    async def app(scope, receive, send):
        await plain(scope, receive, send)

    return app


def test_probe_whose_client_disconnects():
    """A probe that is cancelled leaves the check running for the others."""
    results = []

    async def check():
        await trio.sleep(0.1)

    async def main():
        checks = Checks(lambda *_: None)
        checks.add(Check("database", check))
        with trio.move_on_after(0.01):
            await checks.report_async("ready")
        results.append(await checks.report_async("ready"))

    trio.run(main)

    assert [True] == [report.is_up for report in results]


def test_check_in_the_background():
    """A check with `every` runs on trio, from the thread that begins its runs, and ends with the run of trio."""
    runs = []

    async def check():
        runs.append(sniffio.current_async_library())

    async def main():
        checks = Checks(lambda *_: None)
        checks.add(Check("database", check, every=0.01))
        await checks.report_async("ready")
        await until(lambda: len(runs) > 3)

    trio.run(main)
    number = len(runs)

    assert {"trio"} == set(runs)
    time.sleep(0.1)
    assert number == len(runs)


def test_probe_in_a_thread():
    """The management port requests async checks from its own thread: they run on trio."""

    async def main():
        checks = Checks(lambda *_: None)
        checks.add(Check("database", by_trio))
        checks.note_loop()
        return await trio.to_thread.run_sync(checks.report, "ready")

    report = trio.run(main)

    assert {"library": "trio"} == report.checks[0][1].data


def test_run_of_trio_ends_during_a_check():
    """A check that is cut off by the end of the run counts as none; the next run, as in tests, begins it again."""
    checks = Checks(lambda *_: None)
    begun, results = [], []

    async def check():
        begun.append(1)
        await trio.sleep(60 if len(begun) == 1 else 0)

    checks.add(Check("database", check, timeout=5))

    async def first():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(checks.report_async, "ready")
            await until(lambda: begun)
            nursery.cancel_scope.cancel()

    async def second():
        results.append(await checks.report_async("ready"))

    trio.run(first)
    trio.run(second)

    assert [1, 1] == begun
    assert [True] == [report.is_up for report in results]


def test_startup_tasks():
    """Async tasks run on trio, beside requests; one that needs asyncio is logged with that reason."""
    lifecycle, failed = Lifecycle(manual_start=False), {}
    libraries = []

    async def warm():
        await trio.sleep(0.01)
        libraries.append(sniffio.current_async_library())

    def warm_in_a_thread():
        return warm()

    async def main():
        tasks = StartupTasks(lifecycle, failed.__setitem__)
        lifecycle.started()
        for task in (warm, warm_in_a_thread, uses_asyncio):
            tasks.add(task)
        tasks.begin()
        assert not lifecycle.is_started
        await until(lambda: {"done", "failed"} >= set(lifecycle.tasks.values()))

    trio.run(main)

    assert {"warm": "done", "warm_in_a_thread": "done", "uses_asyncio": "failed"} == lifecycle.tasks
    assert ["trio", "trio"] == libraries
    assert [f"the server{UNDER_TRIO[11:-1]}"] == failed["uses_asyncio"].__notes__


def test_hooks_of_the_drain():
    """Async hooks run on trio; one that is late is cancelled."""
    failed, ended = {}, []

    async def hook():
        ended.append(sniffio.current_async_library())

    async def late():
        try:
            await trio.sleep(60)
        finally:
            ended.append("late")

    async def main():
        loop = running_trio()
        run = hooks.run
        deadline = time.monotonic() + 0.2
        await trio.to_thread.run_sync(run, [(hook, loop), (late, loop)], deadline, failed.__setitem__)
        await until(lambda: "late" in ended)

    trio.run(main)

    assert ["trio", "late"] == ended
    assert [late] == list(failed)
    assert isinstance(failed[late], hooks.TooLateError)


def test_lag_is_measured():
    """A task that holds the run of trio is in the event loop's lag, and the threads of trio are in the pools."""

    async def main():
        app = scaleobs.instrument(plain_copy(), service="shop", log_format="off")
        await app(http_scope(path="/x"), nothing, nothing)
        before = runtime._lag[-1]
        await trio.lowlevel.checkpoint()
        is_over = threading.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, is_over.wait)
            await trio.sleep(0.05)
            time.sleep(0.5)  # noqa: ASYNC251 - That is the lag.
            await until(lambda: runtime._lag[-1] > before)
            pools = list(runtime._pools)
            is_over.set()
        return runtime._lag[-1] - before, pools[:3]

    lag, pools = trio.run(main)

    assert 0.2 < lag
    assert [1.0, 0.0, 40.0] == pools
    assert runtime.has_loops


@pytest.mark.parametrize("_", range(20))  # trio ends its tasks in any order.
def test_end_of_a_run(_):
    """While a run ends, what is started is cancelled; after its end, the loop is closed, and starts nothing."""

    async def main():
        loop = running_trio()
        assert loop is running_trio()
        assert loop.is_running()
        return loop, loop.start(hangs)

    loop, future = trio.run(main)

    assert loop.is_closed()
    with pytest.raises(CancelledError):
        future.result(LIMIT)
    with pytest.raises(RuntimeError):
        loop.start(hangs)
    assert running_trio() is None


def test_scrapes_at_once(registry):
    """Scrapes under trio have whole pages, and let other tasks run meanwhile."""
    gauge = Gauge("stock", "Stock.", ["item"], registry=registry)
    for item in range(20_000):
        gauge.labels(str(item)).set(item)
    pages, ticks = [], []

    async def scrape(app, number):
        pieces = []

        async def send(message):
            pieces.append(message.get("body", b""))
            await trio.lowlevel.checkpoint()

        with trio.move_on_after(0 if number == 1 else LIMIT):  # The client of one disconnects.
            await app(http_scope(path="/metrics"), nothing, send)
            pages.append(b"".join(pieces))

    async def tick():
        while len(pages) < 7:
            ticks.append(len(pages))
            await trio.lowlevel.checkpoint()

    async def main():
        app = scaleobs.instrument(plain_copy(), service="shop", registry=registry, log_format="off")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(tick)
            for number in range(8):
                nursery.start_soon(scrape, app, number)

    trio.run(main)

    assert [20_000] * 7 == [page.count(b"\nstock{") for page in pages]
    assert ticks.count(0) > 20


def test_client_of_tests_with_trio():
    """Starlette's test client has a run of trio for each request outside a `with`, and one for all inside it."""
    app = scaleobs.instrument(Starlette(), service="shop", log_format="off")
    scaleobs.observer_of(app).check("database", cache=0)(by_trio)
    client = TestClient(app, backend="trio")
    statuses = [client.get("/ready").status_code for _ in range(3)]
    with TestClient(app, backend="trio") as client:
        statuses += [client.get("/ready").status_code for _ in range(3)]
    statuses.append(TestClient(app).get("/health").status_code)

    assert [200] * 7 == statuses


def test_future_is_cancelled():
    """A cancelled future cancels its task, and a task that takes too long is an error of its own."""
    ended = []

    async def late():
        try:
            await trio.sleep(60)
        finally:
            ended.append(1)

    async def main():
        loop = running_trio()
        future, short = loop.start(late), loop.start(late, 0.01)
        await until(short.done)
        future.cancel()
        await until(lambda: len(ended) == 2)
        return short.exception()

    assert isinstance(trio.run(main), TookTooLongError)


def test_other_event_loop(capsys):
    """On any other loop, checks run in threads, no probe is a 500, and one line is logged."""

    async def check():
        return {"library": "its own"}

    app = scaleobs.instrument(plain_copy(), service="shop", log_format="json")
    scaleobs.observer_of(app).check("database", cache=60)(check)

    def status():
        coroutine = request(app)
        try:
            while True:
                coroutine.send(None)
        except StopIteration as end:
            return end.value[0]

    statuses = {status()}
    limit = time.monotonic() + LIMIT
    while 200 not in statuses:
        assert time.monotonic() < limit
        time.sleep(0.01)
        statuses.add(status())
    lines = [line for line in log_lines(capsys) if line["event"] == "event_loop.unknown"]

    assert {200, 503} >= statuses
    assert ["warning"] == [line["level"] for line in lines]


def test_loop_is_no_loop_of_asyncio():
    """Each kind of loop is what it is: a loop of asyncio is never taken for a run of trio."""

    async def main():
        return running_trio()

    assert asyncio.run(main()) is None
    assert isinstance(trio.run(main), TrioLoop)
