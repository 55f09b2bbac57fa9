"""Alerts on targets: instances that don't answer, are gone, start again and again, or aren't ready."""

from __future__ import annotations

from dataclasses import replace

from scaleobs import catalog
from scaleobs._render import promql
from scaleobs._render.alerts import Alert, AlertGroup
from scaleobs._render.promql import STARTED, UP, aggregate, equal, grouped, joined
from scaleobs._render.recording import Scope, instance_count
from scaleobs._render.scenario import ONSET, Scenario, Series, SyntheticService, silent, step_change
from scaleobs.catalog import HEALTH_UP, INFO, READY

_MOST_STARTS = 2


def _on_both(service: SyntheticService, metric: catalog.Metric, before: float, after: float | str) -> Series:
    return {service.series(metric, one): service.changing(before, after) for one in "ab"}


def _no_info(service: SyntheticService, instances: str = "ab") -> Series:
    return dict.fromkeys(service.without(INFO, instances=instances), service.changing(1, "stale"))


def _absent(scope: Scope) -> list[Alert]:
    """Return the alert for a service without a target, which `up == 0` can't detect."""
    of_one = Alert(
        name="ServiceAbsent",
        expression=lambda scope: f"absent({scope.targets.of(UP)})",
        # `absent` is true until the first scrape after a start of Prometheus: it needs a wait.
        wait="5m",
        severity="critical",
        summary="{job} has disappeared",
        description=(
            "Prometheus has had no target of {job} for {wait}: it was deleted, or service discovery no longer finds it."
        ),
        scenarios=lambda service: [
            step_change("Both targets disappear.", _no_info(service) | _on_both(service, UP, 1, "stale")),
            silent("Both instances go down.", _on_both(service, UP, 1, 0)),
        ],
    )
    if scope.job:
        return [of_one]
    of_every = replace(
        of_one,
        expression=lambda scope: joined(scope.last_instances(), "unless on (job)", UP.name),
        description=(
            "{job} had {{ $value }} instances within the last {retention}, and Prometheus has had no target of it for "
            "{wait}: it was deleted, or service discovery no longer finds it."
        ),
    )
    return [of_every]


def _crash_loop_scenarios(service: SyntheticService) -> list[Scenario]:
    begin = f"-86400x{ONSET - 1} "
    often = begin + " ".join(f"{number}x1" for number in range(service.steps // 2))
    few = begin + " ".join(f"{number}x1" for number in range(_MOST_STARTS - 1)) + f" {_MOST_STARTS}x{service.steps}"
    last = ONSET + 2 * _MOST_STARTS
    return [
        Scenario(
            "An instance starts again and again.", {service.series(STARTED): often}, earliest=last, latest=last + 1
        ),
        silent(f"An instance starts {_MOST_STARTS} times.", {service.series(STARTED): few}),
    ]


def _replica_scenarios(service: SyntheticService) -> list[Scenario]:
    info = service.series(INFO, namespace="shop", pod="orders-1", service_name=service.job)
    result = service.without(INFO) | {info: service.constant(1)}
    for name in ("orders", "search"):
        labels = {"namespace": "shop", "owner_kind": "ReplicaSet", "owner_name": f"{name}-5d"}
        result[_kubernetes(promql.POD_OWNER, **labels, pod=f"{name}-1")] = service.constant(1)
        labels |= {"owner_kind": "Deployment", "owner_name": name, "replicaset": f"{name}-5d"}
        result[_kubernetes(promql.REPLICASET_OWNER, **labels)] = service.constant(1)
        result[_kubernetes(promql.REPLICAS_DESIRED, namespace="shop", deployment=name)] = service.constant(3)
        result[_kubernetes(promql.REPLICAS_AVAILABLE, namespace="shop", deployment=name)] = service.constant(3)
    its_own, others = (
        {_kubernetes(promql.REPLICAS_AVAILABLE, namespace="shop", deployment=name): service.changing(3, 2)}
        for name in ("orders", "search")
    )
    return [
        step_change("One of three replicas is not available.", result | its_own),
        silent("A replica of another Deployment is not available.", result | others),
    ]


def _kubernetes(metric: catalog.Metric, **labels: str) -> str:
    return promql.Targets().of(metric, *(equal(name, value) for name, value in labels.items()))


TARGETS = AlertGroup(
    "targets",
    """\
Is the service there at all? These rules are for {scope}.
ServiceDown: there are targets, and none answers.
ServiceAbsent: there is no target, which up == 0 can't detect.
InstanceDown: one of several doesn't answer. MetricsMissing: targets answer without metrics of scaleobs, so that
most other alerts can't fire. CrashLoop: an instance starts again and again. ReplicasMissing: its Deployment has
fewer replicas than it should; the pods of its targets lead to their ReplicaSet, and that to the Deployment.""",
    (
        instance_count,
        Alert(
            name="ServiceDown",
            expression=lambda scope: scope.of_instrumented_jobs(f"{aggregate(scope.targets.of(UP), 'job')} == 0"),
            wait="2m",
            severity="critical",
            summary="No instance of {job} answers",
            description="Prometheus has targets of {job} and could scrape none of them for {wait}.",
            scenarios=lambda service: [
                step_change("Both instances go down.", _on_both(service, UP, 1, 0)),
                silent("One instance of two goes down.", {service.series(UP): service.changing(1, 0)}),
            ],
        ),
        _absent,
        Alert(
            name="InstanceDown",
            expression=lambda scope: scope.of_instrumented_jobs(f"{scope.targets.of(UP)} == 0"),
            wait="5m",
            severity="warning",
            summary="An instance of {job} doesn't answer",
            description="Prometheus could not scrape {instance} of {job} for {wait}.",
            scenarios=lambda service: [
                step_change("One instance of two goes down.", {service.series(UP): service.changing(1, 0)})
            ],
        ),
        # If a service is up and has no series of scaleobs, most other alerts can't fire.
        Alert(
            name="MetricsMissing",
            expression=lambda scope: scope.of_instrumented_jobs(
                joined(
                    aggregate(f"{scope.targets.of(UP)} == 1", "job", operator="count"),
                    "unless on (job)",
                    scope.targets.of(INFO),
                )
            ),
            wait="10m",
            severity="warning",
            summary="{job} is up and exposes no metrics of scaleobs",
            description=(
                "For {wait} none of the {{ $value }} instances of {job} that answer scrapes has exposed "
                "service_info: most other alerts can't fire."
            ),
            scenarios=lambda service: [
                step_change("Both instances stop exposing service_info.", _no_info(service)),
                silent("One of two instances stops exposing service_info.", _no_info(service, "a")),
            ],
        ),
        Alert(
            name="CrashLoop",
            expression=lambda scope: scope.of_instrumented_jobs(
                f"changes({scope.targets.of(STARTED)}[{scope.scaled('15m')}]) > {_MOST_STARTS}"
            ),
            wait="1m",
            severity="warning",
            summary="An instance of {job} starts again and again",
            description="{instance} of {job} has started {{ $value }} times within {15m}.",
            scenarios=_crash_loop_scenarios,
        ),
        # Pods that never ran are no targets, but the Deployment counts them.
        Alert(
            name="ReplicasMissing",
            expression=lambda scope: promql.replicas_missing(scope.targets),
            # Longer than a rolling deploy or an autoscaler usually takes.
            wait="15m",
            severity="warning",
            summary="Replicas of {job} are missing",
            description=(
                "The Deployment {{ $labels.namespace }}/{{ $labels.deployment }} of {job} has had fewer available "
                "replicas than it should have for {wait}, now {{ $value }} fewer."
            ),
            scenarios=_replica_scenarios,
        ),
    ),
)


def _not_ready(scope: Scope) -> str:
    return f"{scope.targets.of(READY)} == 0"


def _ready(scope: Scope) -> str:
    return f"{scope.targets.of(READY)} == 1"


def _startup_stuck(scope: Scope) -> str:
    # Not by readiness, which may also be lost later. A container that is killed for a slow start and starts again has
    # gaps between its samples, which the range covers. A check that fails after the start is CheckFailing's.
    passing = scope.targets.of(HEALTH_UP, 'probe="startup"')
    never = joined(
        f"max_over_time({passing}[{scope.scaled('10m')}]) == 0", "and on (job, instance)", scope.targets.of(UP)
    )
    is_old = f"{scope.targets.of(STARTED)} < time() - {scope.scaled('1h').seconds}"
    at_work = joined(_ready(scope), "and on (job, instance)", is_old)
    return scope.of_instrumented_jobs(joined(never, "unless on (job, instance)", grouped(at_work)))


def _startup_scenarios(service: SyntheticService) -> list[Scenario]:
    check = {service.series(HEALTH_UP, probe="startup", check="lifecycle"): service.constant(0)}
    starts = {service.series(READY): service.constant(0), service.series(STARTED): service.constant(0)}
    fails = {service.series(HEALTH_UP, probe="ready", check="database"): service.constant(0)}
    return [
        Scenario("An instance does not finish its start.", check | starts),
        silent("An instance has started, and is not ready without its database.", fails | starts),
        silent("A check of the start fails long after the start.", check),
    ]


def _check_scenarios(service: SyntheticService) -> list[Scenario]:
    fails = {service.series(HEALTH_UP, probe="ready", check="database"): service.changing(1, 0)}
    not_ready = {service.series(READY): service.changing(1, 0)}
    return [
        step_change("A check fails on an instance that is ready.", fails),
        silent("A check fails, and the instance is not ready.", fails | not_ready),
    ]


READINESS = AlertGroup(
    "readiness",
    """\
Would it accept requests? /ready decides whether a load balancer sends any, so that an instance that is not
ready fails none: only these alerts show it. CheckFailing is for faults that readiness doesn't show, StartupStuck
for instances that were never ready.""",
    (
        Alert(
            name="ServiceNotReady",
            expression=lambda scope: joined(
                aggregate(_not_ready(scope), "job", operator="count"), "unless on (job)", _ready(scope)
            ),
            wait="5m",
            severity="critical",
            summary="No instance of {job} is ready",
            description="/ready has been 503 for {wait} on all {{ $value }} instances of {job} that can be scraped.",
            scenarios=lambda service: [
                step_change("No instance is ready.", _on_both(service, READY, 1, 0)),
                silent("One of two is not ready.", {service.series(READY): service.changing(1, 0)}),
            ],
        ),
        Alert(
            name="InstanceNotReady",
            expression=lambda scope: joined(_not_ready(scope), "and on (job)", _ready(scope)),
            # Longer than a slow start.
            wait="15m",
            severity="warning",
            summary="An instance of {job} is not ready",
            description="/ready of {instance} of {job} has been 503 for {wait}, while other instances are ready.",
            scenarios=lambda service: [
                step_change("One of two is not ready.", {service.series(READY): service.changing(1, 0)}),
                silent("No instance is ready.", _on_both(service, READY, 1, 0)),
            ],
        ),
        Alert(
            name="StartupStuck",
            expression=_startup_stuck,
            wait="10m",
            severity="warning",
            summary="An instance of {job} does not finish its start",
            description=(
                "{instance} of {job} answers scrapes, and the check {{ $labels.check }} of /startup has not passed for "
                "{wait}."
            ),
            scenarios=_startup_scenarios,
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
                "/ready is still 200."
            ),
            scenarios=_check_scenarios,
        ),
    ),
)
