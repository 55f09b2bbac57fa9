"""Alerts on targets: instances that don't answer, are gone, start again and again, or aren't ready."""

from __future__ import annotations

from dataclasses import replace

from scaleobs import catalog
from scaleobs._render import promql
from scaleobs._render.alerts import Alert, AlertGroup
from scaleobs._render.promql import STARTED, UP, equal, grouped, joined, summed
from scaleobs._render.recording import Scope, seen
from scaleobs._render.scenario import ONSET, Scenario, Series, SyntheticService, silent, step_change
from scaleobs.catalog import HEALTH_UP, INFO, READY

_MOST_STARTS = 2


def _of_both(service: SyntheticService, metric: catalog.Metric, before: float, after: float | str) -> Series:
    return {service.series(metric, one): service.then(before, after) for one in "ab"}


def _no_info(service: SyntheticService, instances: str = "ab") -> Series:
    return dict.fromkeys(service.without(INFO, instances=instances), service.then(1, "stale"))


def _absent(scope: Scope) -> list[Alert]:
    """Return the alert for a service without a target, which `up == 0` can't see."""
    of_one = Alert(
        name="ServiceAbsent",
        expression=lambda scope: f"absent({scope.targets.of(UP)})",
        # `absent` is true until the first scrape after Prometheus started: never without a wait.
        wait="5m",
        severity="critical",
        summary="{job} has disappeared",
        description=(
            "Prometheus has had no target of {job} for {wait}: it was deleted, or service discovery no longer finds it."
        ),
        scenarios=lambda service: [
            step_change("Both targets disappear.", _no_info(service) | _of_both(service, UP, 1, "stale")),
            silent("Both instances go down.", _of_both(service, UP, 1, 0)),
        ],
    )
    if scope.job:
        return [of_one]
    of_every = replace(
        of_one,
        expression=lambda scope: joined(scope.remembered(), "unless on (job)", UP.name),
        description=(
            "{job} was seen within the last {memory}, with {{ $value }} instances, and Prometheus has had no target of "
            "it for {wait}: it was deleted, or service discovery no longer finds it."
        ),
    )
    return [of_every]


def _starts(service: SyntheticService) -> list[Scenario]:
    begin = f"-86400x{ONSET - 1} "
    often = begin + " ".join(f"{number}x1" for number in range(service.steps // 2))
    few = begin + " ".join(f"{number}x1" for number in range(_MOST_STARTS - 1)) + f" {_MOST_STARTS}x{service.steps}"
    last = ONSET + 2 * _MOST_STARTS
    return [
        Scenario(
            "An instance starts again and again.", {service.series(STARTED): often}, earliest=last, latest=last + 1
        ),
        silent(f"It starts {_MOST_STARTS} times.", {service.series(STARTED): few}),
    ]


def _replicas(service: SyntheticService) -> list[Scenario]:
    info = service.series(INFO, namespace="shop", pod="orders-1", service_name=service.job)
    found = service.without(INFO) | {info: service.always(1)}
    for name in ("orders", "search"):
        of_it = {"namespace": "shop", "owner_kind": "ReplicaSet", "owner_name": f"{name}-5d"}
        found[_kubernetes(promql.POD_OWNER, **of_it, pod=f"{name}-1")] = service.always(1)
        of_it |= {"owner_kind": "Deployment", "owner_name": name, "replicaset": f"{name}-5d"}
        found[_kubernetes(promql.REPLICASET_OWNER, **of_it)] = service.always(1)
        found[_kubernetes(promql.REPLICAS_WANTED, namespace="shop", deployment=name)] = service.always(3)
        found[_kubernetes(promql.REPLICAS_AVAILABLE, namespace="shop", deployment=name)] = service.always(3)
    mine, others = (
        {_kubernetes(promql.REPLICAS_AVAILABLE, namespace="shop", deployment=name): service.then(3, 2)}
        for name in ("orders", "search")
    )
    return [
        step_change("One of three replicas is not available.", found | mine),
        silent("One of another Deployment's isn't.", found | others),
    ]


def _kubernetes(metric: catalog.Metric, **labels: str) -> str:
    return promql.Targets().of(metric, *(equal(name, value) for name, value in labels.items()))


TARGETS = AlertGroup(
    "targets",
    """\
Is the service there at all? These watch {watched}.
ServiceDown: targets are known and none answers.
ServiceAbsent: no target is known, which up == 0 can't see.
InstanceDown: one of several doesn't answer. MetricsMissing: targets answer and say nothing of scaleobs, so
that all other alerts are blind. CrashLoop: an instance starts again and again. ReplicasMissing: its Deployment
has fewer than it should; the pods of its targets lead to the ReplicaSet that made them, and that to the Deployment.""",
    (
        seen,
        Alert(
            name="ServiceDown",
            expression=lambda scope: scope.instrumented(f"{summed(scope.targets.of(UP), 'job')} == 0"),
            wait="2m",
            severity="critical",
            summary="No instance of {job} answers",
            description="Prometheus knows targets of {job} and has reached none of them for {wait}.",
            scenarios=lambda service: [
                step_change("Both instances go down.", _of_both(service, UP, 1, 0)),
                silent("One instance of two goes down.", {service.series(UP): service.then(1, 0)}),
            ],
        ),
        _absent,
        Alert(
            name="InstanceDown",
            expression=lambda scope: scope.instrumented(f"{scope.targets.of(UP)} == 0"),
            wait="5m",
            severity="warning",
            summary="An instance of {job} doesn't answer",
            description="Prometheus knows {instance} of {job} and has not reached it for {wait}.",
            scenarios=lambda service: [
                step_change("One instance of two goes down.", {service.series(UP): service.then(1, 0)})
            ],
        ),
        # A service that is up and has no series of scaleobs: all other alerts are blind.
        Alert(
            name="MetricsMissing",
            expression=lambda scope: scope.instrumented(
                joined(
                    summed(f"{scope.targets.of(UP)} == 1", "job", how="count"),
                    "unless on (job)",
                    scope.targets.of(INFO),
                )
            ),
            wait="10m",
            severity="warning",
            summary="{job} is up and shows no metrics of scaleobs",
            description=(
                "For {wait} none of the {{ $value }} instances of {job} that answer scrapes has shown service_info: "
                "no other alert can see anything."
            ),
            scenarios=lambda service: [
                step_change("Both instances stop to show service_info.", _no_info(service)),
                silent("One of two does.", _no_info(service, "a")),
            ],
        ),
        Alert(
            name="CrashLoop",
            expression=lambda scope: scope.instrumented(
                f"changes({scope.targets.of(STARTED)}[{scope.over('15m')}]) > {_MOST_STARTS}"
            ),
            wait="1m",
            severity="warning",
            summary="An instance of {job} starts again and again",
            description="{instance} of {job} has started {{ $value }} times within {15m}.",
            scenarios=_starts,
        ),
        # Pods that never ran are no targets: the Deployment has them.
        Alert(
            name="ReplicasMissing",
            expression=lambda scope: promql.replicas_missing(scope.targets),
            # A rolling deploy and an autoscaler are given their time.
            wait="15m",
            severity="warning",
            summary="Replicas of {job} are missing",
            description=(
                "The Deployment {{ $labels.namespace }}/{{ $labels.deployment }} of {job} has had fewer available "
                "replicas than it should have for {wait}, now {{ $value }} fewer."
            ),
            scenarios=_replicas,
        ),
    ),
)


def _not_ready(scope: Scope) -> str:
    return f"{scope.targets.of(READY)} == 0"


def _ready(scope: Scope) -> str:
    return f"{scope.targets.of(READY)} == 1"


def _start_up(scope: Scope) -> str:
    # Readiness is no sign: it is lost later, too. A container that is killed for it and starts again has gaps between
    # its tries, which the range covers. A check that fails once the instance has been at work is CheckFailing's.
    passing = scope.targets.of(HEALTH_UP, 'probe="startup"')
    never = joined(
        f"max_over_time({passing}[{scope.over('10m')}]) == 0", "and on (job, instance)", scope.targets.of(UP)
    )
    is_old = f"{scope.targets.of(STARTED)} < time() - {scope.over('1h').seconds}"
    at_work = joined(_ready(scope), "and on (job, instance)", is_old)
    return scope.instrumented(joined(never, "unless on (job, instance)", grouped(at_work)))


def _start_ups(service: SyntheticService) -> list[Scenario]:
    check = {service.series(HEALTH_UP, probe="startup", check="lifecycle"): service.always(0)}
    starts = {service.series(READY): service.always(0), service.series(STARTED): service.always(0)}
    fails = {service.series(HEALTH_UP, probe="ready", check="database"): service.always(0)}
    return [
        Scenario("An instance doesn't come to the end of its start-up.", check | starts),
        silent("It does, and waits for a database then.", fails | starts),
        silent("It has long been at work when what it started with fails.", check),
    ]


def _checks(service: SyntheticService) -> list[Scenario]:
    fails = {service.series(HEALTH_UP, probe="ready", check="database"): service.then(1, 0)}
    return [
        step_change("A check fails on an instance that is ready.", fails),
        silent("It isn't ready for that.", {**fails, service.series(READY): service.then(1, 0)}),
    ]


READINESS = AlertGroup(
    "readiness",
    """\
Would it take requests? /ready decides whether a load balancer sends any, so an instance that is not ready
fails none: these are the only ones to tell. CheckFailing speaks where readiness doesn't show the fault,
StartupStuck where an instance was never ready.""",
    (
        Alert(
            name="ServiceNotReady",
            expression=lambda scope: joined(
                summed(_not_ready(scope), "job", how="count"), "unless on (job)", _ready(scope)
            ),
            wait="5m",
            severity="critical",
            summary="No instance of {job} is ready",
            description="/ready has been 503 for {wait} on all {{ $value }} instances of {job} that can be scraped.",
            scenarios=lambda service: [
                step_change("No instance is ready.", _of_both(service, READY, 1, 0)),
                silent("One of two isn't.", {service.series(READY): service.then(1, 0)}),
            ],
        ),
        Alert(
            name="InstanceNotReady",
            expression=lambda scope: joined(_not_ready(scope), "and on (job)", _ready(scope)),
            # A slow start is none of its business.
            wait="15m",
            severity="warning",
            summary="An instance of {job} is not ready",
            description="/ready of {instance} of {job} has been 503 for {wait}, while other instances are ready.",
            scenarios=lambda service: [
                step_change("One of two isn't ready.", {service.series(READY): service.then(1, 0)}),
                silent("None is.", _of_both(service, READY, 1, 0)),
            ],
        ),
        Alert(
            name="StartupStuck",
            expression=_start_up,
            wait="10m",
            severity="warning",
            summary="An instance of {job} doesn't come to the end of its start-up",
            description=(
                "{instance} of {job} answers scrapes, and {{ $labels.check }}, which /startup waits for, has not "
                "passed for {wait}."
            ),
            scenarios=_start_ups,
        ),
        Alert(
            name="CheckFailing",
            expression=lambda scope: joined(
                f"{scope.targets.of(HEALTH_UP)} == 0", "and on (job, instance)", _ready(scope)
            ),
            wait="15m",
            severity="warning",
            summary="A check of {job} fails",
            description=(
                "The check {{ $labels.check }} ({{ $labels.probe }}) of {instance} of {job} has failed for {wait}. "
                "/ready is 200 all the same."
            ),
            scenarios=_checks,
        ),
    ),
)
