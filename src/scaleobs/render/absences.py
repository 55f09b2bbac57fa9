"""Instances that go down, disappear, start again and again or aren't ready: what each alert on them has to see."""

from __future__ import annotations

from scaleobs import catalog
from scaleobs.render import promql
from scaleobs.render.faults import ONSET, Fault, Telling, quiet, sudden
from scaleobs.render.healthy import Labels, World
from scaleobs.render.promql import STARTED, UP


def _service_down(world: World, _: Labels) -> list[Fault]:
    down = world.then(1, ONSET, 0)
    return [
        sudden("Both instances go down.", {world.series(UP, one): down for one in "ab"}),
        quiet("One instance of two goes down.", {world.series(UP): down}),
    ]


def _service_absent(world: World, _: Labels) -> list[Fault]:
    gone = world.then(1, ONSET, "stale")
    shown = dict.fromkeys(world.without(catalog.INFO), gone)
    return [
        sudden("Both targets disappear.", shown | {world.series(UP, one): gone for one in "ab"}),
        quiet("Both instances go down.", {world.series(UP, one): world.then(1, ONSET, 0) for one in "ab"}),
    ]


def _instance_down(world: World, _: Labels) -> list[Fault]:
    return [sudden("One instance of two goes down.", {world.series(UP): world.then(1, ONSET, 0)})]


def _metrics_missing(world: World, _: Labels) -> list[Fault]:
    gone = world.then(1, ONSET, "stale")
    return [
        sudden("Both instances stop to show service_info.", dict.fromkeys(world.without(catalog.INFO), gone)),
        quiet("One of two does.", dict.fromkeys(world.without(catalog.INFO, instances="a"), gone)),
    ]


def _crash_loop(world: World, _: Labels) -> list[Fault]:
    most = world.lines.restarts
    often = f"-86400x{ONSET - 1} " + " ".join(f"{number}x1" for number in range(world.steps // 2))
    few = f"-86400x{ONSET - 1} " + " ".join(f"{number}x1" for number in range(most - 1)) + f" {most}x{world.steps}"
    last = ONSET + 2 * most
    return [
        Fault("An instance starts again and again.", {world.series(STARTED): often}, earliest=last, latest=last + 1),
        quiet(f"It starts {most} times.", {world.series(STARTED): few}),
    ]


def _service_not_ready(world: World, _: Labels) -> list[Fault]:
    waits = world.then(1, ONSET, 0)
    return [
        sudden("No instance is ready.", {world.series(catalog.READY, one): waits for one in "ab"}),
        quiet("One of two isn't.", {world.series(catalog.READY): waits}),
    ]


def _instance_not_ready(world: World, _: Labels) -> list[Fault]:
    waits = world.then(1, ONSET, 0)
    return [
        sudden("One of two isn't ready.", {world.series(catalog.READY): waits}),
        quiet("None is.", {world.series(catalog.READY, one): waits for one in "ab"}),
    ]


def _startup_stuck(world: World, _: Labels) -> list[Fault]:
    check = {world.series(catalog.HEALTH_UP, probe="startup", check="lifecycle"): world.always(0)}
    starts = {world.series(catalog.READY): world.always(0), world.series(STARTED): world.always(0)}
    fails = {world.series(catalog.HEALTH_UP, probe="ready", check="database"): world.always(0)}
    return [
        Fault("An instance doesn't come to the end of its start-up.", check | starts),
        quiet("It does, and waits for a database then.", fails | starts),
        quiet("It has long been at work when what it started with fails.", check),
    ]


def _replicas_missing(world: World, _: Labels) -> list[Fault]:
    info = world.series(catalog.INFO, namespace="shop", pod="orders-1", service_name=world.job)
    found = world.without(catalog.INFO) | {info: world.always(1)}
    for name in ("orders", "search"):
        of_it = {"namespace": "shop", "owner_kind": "ReplicaSet", "owner_name": f"{name}-5d"}
        found[_shown(promql.POD_OWNER, **of_it, pod=f"{name}-1")] = world.always(1)
        of_it |= {"owner_kind": "Deployment", "owner_name": name, "replicaset": f"{name}-5d"}
        found[_shown(promql.REPLICASET_OWNER, **of_it)] = world.always(1)
        found[_shown(promql.REPLICAS_WANTED, namespace="shop", deployment=name)] = world.always(3)
        found[_shown(promql.REPLICAS_AVAILABLE, namespace="shop", deployment=name)] = world.always(3)
    gone = world.then(3, ONSET, 2)
    mine, others = (
        {_shown(promql.REPLICAS_AVAILABLE, namespace="shop", deployment=name): gone} for name in ("orders", "search")
    )
    return [
        sudden("One of three replicas is not available.", found | mine),
        quiet("One of another Deployment's isn't.", found | others),
    ]


def _shown(metric: catalog.Metric, **labels: str) -> str:
    return promql.Targets().of(metric, *(promql.equal(name, value) for name, value in labels.items()))


def _check_failing(world: World, _: Labels) -> list[Fault]:
    fails = {world.series(catalog.HEALTH_UP, probe="ready", check="database"): world.then(1, ONSET, 0)}
    return [
        sudden("A check fails on an instance that is ready.", fails),
        quiet("It isn't ready for that.", {**fails, world.series(catalog.READY): world.then(1, ONSET, 0)}),
    ]


ABSENCES: dict[str, Telling] = {
    "ServiceDown": _service_down,
    "ServiceAbsent": _service_absent,
    "InstanceDown": _instance_down,
    "MetricsMissing": _metrics_missing,
    "CrashLoop": _crash_loop,
    "ServiceNotReady": _service_not_ready,
    "InstanceNotReady": _instance_not_ready,
    "CheckFailing": _check_failing,
    "StartupStuck": _startup_stuck,
    "ReplicasMissing": _replicas_missing,
}
