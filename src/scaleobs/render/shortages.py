"""What an instance runs out of, and what scaleobs itself says: what each alert on it has to see."""

from __future__ import annotations

from decimal import Decimal

from scaleobs import catalog
from scaleobs.render import promql
from scaleobs.render.faults import ONSET, Fault, Telling, around, quiet
from scaleobs.render.healthy import Labels, World
from scaleobs.render.promql import MAX_FILES, OPEN_FILES


def _cpu(world: World, _: Labels) -> list[Fault]:
    seconds, counter = Decimal(world.step) / 1000, world.series(promql.CPU)
    below, above = around(world.lines.cpu_share)
    # A rate is whole once its window is.
    full = world.window + 2
    return [
        Fault(
            "A process uses more of its core than it should.", {counter: world.growing(above * seconds)}, latest=full
        ),
        quiet("It uses a little less than that.", {counter: world.growing(below * seconds)}),
        Fault("A container uses more of its limit.", _container(world, cpu=2 * above * seconds), latest=full),
        quiet("It uses a little less of it.", _container(world, cpu=2 * below * seconds)),
    ]


def _memory(world: World, _: Labels) -> list[Fault]:
    below, above = around(world.lines.memory_share)
    return [
        Fault("A container holds more of its memory than it should.", _container(world, memory=1000 * above)),
        quiet("It holds a little less than that.", _container(world, memory=1000 * below)),
    ]


def _throttled(world: World, _: Labels) -> list[Fault]:
    below, above = around(world.lines.throttled_share)
    return [
        Fault("A container is held back a little more often than it should.", _container(world, throttled=above)),
        quiet("It is a little less often.", _container(world, throttled=below)),
    ]


def _container(
    world: World, *, cpu: Decimal = Decimal(0), memory: Decimal = Decimal(100), throttled: Decimal = Decimal(0)
) -> dict[str, str]:
    """Return a service in one pod, with a container that may use 2 cores and 1000 bytes."""
    pod = {"namespace": "shop", "pod": "orders-1"}
    info = dict.fromkeys(catalog.INFO.labels, "1") | {"service_name": world.job}
    found = world.without(catalog.INFO) | {world.series(catalog.INFO, **pod, **info): world.always(1)}
    matchers = [promql.equal(name, value) for name, value in {**pod, "container": "orders"}.items()]
    for metric, value in (
        (promql.CONTAINER_CPU, world.growing(cpu)),
        (promql.CONTAINER_MEMORY, world.always(memory)),
        (promql.CONTAINER_PERIODS, world.growing(300)),
        (promql.CONTAINER_THROTTLED, world.growing(300 * throttled)),
    ):
        found[promql.Targets().of(metric, *matchers)] = value
    for resource, limit in (("cpu", 2), ("memory", 1000)):
        matcher = promql.equal("resource", resource)
        found[promql.Targets().of(promql.CONTAINER_LIMITS, *matchers, matcher)] = world.always(limit)
    return found


def _event_loop(world: World, _: Labels) -> list[Fault]:
    below, above = around(world.lines.late_share)
    return [
        Fault("A little more looks at a loop are late than the line allows.", world.loops(late=above)),
        quiet("A little less are.", world.loops(late=below)),
    ]


def _thread_pool(world: World, _: Labels) -> list[Fault]:
    waiting, at = world.series(catalog.POOL_WAITING, pool="anyio"), ONSET + world.window
    return [
        Fault("Calls wait for a thread.", {waiting: world.then(0, ONSET, 3)}, earliest=at - 1, latest=at + 1),
        quiet("They wait now and then.", {waiting: " ".join(["3x1 0x1"] * (world.steps // 4))}),
    ]


def _files(world: World, _: Labels) -> list[Fault]:
    below, above = around(world.lines.files_share)
    held, most = world.series(OPEN_FILES), {world.series(MAX_FILES): world.always(1000)}
    return [
        Fault("An instance holds more files than it should.", {held: world.always(1000 * above), **most}),
        quiet("It holds a little less than that.", {held: world.always(1000 * below), **most}),
    ]


def _stuck(world: World, _: Labels) -> list[Fault]:
    opened = {"http": world.always(0), "websocket": world.always(9)}
    sockets = {world.series(catalog.ACTIVE, protocol=name): samples for name, samples in opened.items()}
    silent = world.requests("a", each=Decimal(0))
    return [
        Fault("Requests are open, and none finishes.", silent),
        quiet("WebSockets are open, and no request comes.", {**silent, **sockets}),
    ]


def _counted(metric: catalog.Metric) -> Telling:
    def faults(world: World, _: Labels) -> list[Fault]:
        counter = world.series(metric)
        begins = f"0x{ONSET - 1} 0+1x{world.steps}"
        return [
            Fault("There are more and more.", {counter: begins}, earliest=ONSET, latest=ONSET + 2),
            quiet("There were some, long ago.", {counter: world.always(7)}),
        ]

    return faults


SHORTAGES: dict[str, Telling] = {
    "HighCPUUsage": _cpu,
    "HighMemoryUsage": _memory,
    "CPUThrottled": _throttled,
    "EventLoopLag": _event_loop,
    "ThreadPoolSaturated": _thread_pool,
    "HighFileDescriptorUsage": _files,
    "ConnectionsStuck": _stuck,
    "LabelSetsDropped": _counted(catalog.DROPPED),
    "InternalFaults": _counted(catalog.FAULTS),
}
