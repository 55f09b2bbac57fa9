"""Alerts on the resources of an instance, and on scaleobs itself."""

from __future__ import annotations

from decimal import Decimal

from scaleobs._render import promql
from scaleobs._render.alerts import Alert, AlertGroup
from scaleobs._render.overrides import LATE_SECONDS, number
from scaleobs._render.promql import MAX_FILES, OPEN_FILES, equal, grouped, joined, slow_share
from scaleobs._render.recording import Scope
from scaleobs._render.scenario import ONSET, Scenario, Series, SyntheticService, around, silent
from scaleobs.catalog import ACTIVE, DROPPED, EVENT_LOOP_LAG, FAULTS, INFO, POOL_WAITING, Metric

_INSTANCE = ("job", "instance")


def _high_cpu(scope: Scope) -> str:
    cores = promql.process_cpu(scope.targets, str(scope.window), by=("job", "instance", "namespace", "pod"))
    # A pod whose container is near its limit has one alert, not another one for its process.
    return joined(
        f"{grouped(promql.cpu_share(scope.targets, scope.window))} {scope.above}",
        "or on (job, namespace, pod)",
        f"{grouped(scope.of_instrumented_instances(cores))} {scope.above}",
    )


def _cpu_scenarios(service: SyntheticService) -> list[Scenario]:
    seconds, counter, full = Decimal(service.step) / 1000, service.series(promql.CPU), service.window + 2
    return [
        *around(
            service.threshold,
            "A process uses slightly more of its core than the threshold.",
            "A process uses slightly less of its core than the threshold.",
            lambda share: {counter: service.growing(share * seconds)},
            latest=full,  # A rate is complete once its window is.
        ),
        *around(
            service.threshold,
            "A container uses slightly more of its CPU limit than the threshold.",
            "A container uses slightly less of its CPU limit than the threshold.",
            lambda share: _container(service, cpu=2 * share * seconds),
            latest=full,
        ),
    ]


def _container(
    service: SyntheticService,
    *,
    cpu: Decimal = Decimal(0),
    memory: Decimal = Decimal(100),
    throttled: Decimal = Decimal(0),
) -> Series:
    """Return a service in one pod, with a container that may use 2 cores and 1000 bytes."""
    pod = {"namespace": "shop", "pod": "orders-1"}
    info = dict.fromkeys(INFO.labels, "1") | {"service_name": service.job}
    result = service.without(INFO) | {service.series(INFO, **pod, **info): service.constant(1)}
    matchers = [equal(name, value) for name, value in {**pod, "container": "orders"}.items()]
    for metric, value in (
        (promql.CONTAINER_CPU, service.growing(cpu)),
        (promql.CONTAINER_MEMORY, service.constant(memory)),
        (promql.CONTAINER_PERIODS, service.growing(300)),
        (promql.CONTAINER_THROTTLED, service.growing(300 * throttled)),
    ):
        result[promql.Targets().of(metric, *matchers)] = value
    for resource, limit in (("cpu", 2), ("memory", 1000)):
        result[promql.Targets().of(promql.CONTAINER_LIMITS, *matchers, equal("resource", resource))] = service.constant(
            limit
        )
    return result


def _loop_lag(scope: Scope) -> str:
    window = str(scope.window)
    in_time = promql.within_rate(scope.targets, EVENT_LOOP_LAG, window, LATE_SECONDS, by=_INSTANCE)
    samples = promql.observed_rate(scope.targets, EVENT_LOOP_LAG, window, by=_INSTANCE)
    return scope.of_instrumented_instances(f"{slow_share(in_time, samples)} {scope.above}")


def _pool_scenarios(service: SyntheticService) -> list[Scenario]:
    waiting, at = service.series(POOL_WAITING, pool="anyio"), ONSET + service.window
    return [
        Scenario("Calls wait for a thread.", {waiting: service.changing(0, 3)}, earliest=at - 1, latest=at + 1),
        silent("Calls wait for a thread now and then.", {waiting: " ".join(["3x1 0x1"] * (service.steps // 4))}),
    ]


def _file_scenarios(service: SyntheticService) -> list[Scenario]:
    used, limit = service.series(OPEN_FILES), {service.series(MAX_FILES): service.constant(1000)}
    return around(
        service.threshold,
        "An instance has slightly more open files than the threshold.",
        "An instance has slightly fewer open files than the threshold.",
        lambda share: {used: service.constant(1000 * share), **limit},
    )


def _stuck_connections(scope: Scope) -> str:
    window, requests = scope.scaled("15m"), scope.targets.of(ACTIVE, 'protocol="http"')
    is_open = f"min_over_time({requests}[{window}]) > 0"
    finishes = f"{promql.request_rate(scope.targets, str(window), by=_INSTANCE)} > 0"
    return scope.of_instrumented_instances(joined(is_open, "unless on (job, instance)", finishes))


def _connection_scenarios(service: SyntheticService) -> list[Scenario]:
    open_ = {"http": service.constant(0), "websocket": service.constant(9)}
    sockets = {service.series(ACTIVE, protocol=name): samples for name, samples in open_.items()}
    none = service.requests("a", each=Decimal(0))
    return [
        Scenario("Requests are open, and none finishes.", none),
        silent("WebSockets are open, and no request comes.", {**none, **sockets}),
    ]


SATURATION = AlertGroup(
    "saturation",
    """\
What may be the cause? Users may not notice anything yet: CPU is information, memory a warning, since the
kernel kills a container at its limit. Containers (cAdvisor, kube-state-metrics) are found by the pod of the
service's targets. Without them an instance is compared with one core, which is what Python code in one process
can use under the interpreter lock.
Event loops and worker threads exist in ASGI applications only.""",
    (
        Alert(
            name="HighCPUUsage",
            expression=_high_cpu,
            threshold=Decimal("0.8"),
            wait="5m",
            severity="info",
            summary="{job} is short of CPU",
            description=(
                "{{ if $labels.instance }}"
                "An instance of {job} ({instance}) keeps {share} of one core busy, all its workers together. One core "
                "is what Python code in one process can use under the interpreter lock; C code that releases it, and "
                "more workers, can use more."
                "{{ else }}"
                "A container in pod {pod} of {job} uses {share} of its CPU limit."
                "{{ end }}"
            ),
            scenarios=_cpu_scenarios,
        ),
        # The mean CPU use of a container doesn't show that its limit throttles it.
        Alert(
            name="CPUThrottled",
            expression=lambda scope: f"{grouped(promql.throttled_share(scope.targets, scope.window))} {scope.above}",
            threshold=Decimal("0.25"),
            wait="15m",
            severity="info",
            summary="{job} is throttled by its CPU limit",
            description=(
                "A container in pod {pod} of {job} was throttled in {share} of the scheduler's periods over the last "
                "{window}; the threshold is {threshold}."
            ),
            scenarios=lambda service: around(
                service.threshold,
                "A container is throttled slightly more often than the threshold.",
                "A container is throttled slightly less often than the threshold.",
                lambda share: _container(service, throttled=share),
            ),
        ),
        Alert(
            name="HighMemoryUsage",
            expression=lambda scope: f"{grouped(promql.memory_share(scope.targets))} {scope.above}",
            threshold=Decimal("0.9"),
            wait="5m",
            severity="warning",
            summary="{job} is about to run out of memory",
            description=(
                "A container in pod {pod} of {job} uses {share} of its memory limit; at the limit the kernel kills it."
            ),
            scenarios=lambda service: around(
                service.threshold,
                "A container uses slightly more of its memory limit than the threshold.",
                "A container uses slightly less of its memory limit than the threshold.",
                lambda share: _container(service, memory=1000 * share),
            ),
        ),
        Alert(
            name="EventLoopLag",
            expression=_loop_lag,
            threshold=Decimal("0.1"),
            wait="10m",
            severity="warning",
            summary="Something blocks the event loop of {job}",
            description=(
                "{instance} of {job}: {share} of the measurements of its event loops over the last {window} were more "
                f"than {number(LATE_SECONDS)} s late; the threshold is {{threshold}}. Every request of the worker "
                "waits as long."
            ),
            scenarios=lambda service: around(
                service.threshold,
                "Slightly more measurements of a loop are late than the threshold allows.",
                "Slightly fewer measurements of a loop are late than the threshold allows.",
                lambda share: service.loops(late=share),
            ),
        ),
        Alert(
            name="ThreadPoolSaturated",
            expression=lambda scope: scope.of_instrumented_instances(
                f"min_over_time({scope.targets.of(POOL_WAITING)}[{scope.window}]) > 0"
            ),
            wait="5m",
            severity="warning",
            summary="{job} has too few worker threads",
            description=(
                "{instance} of {job}: at least {{ $value }} calls waited for a thread of the pool {{ $labels.pool }} "
                "at each scrape of the last {window}; this has lasted for {wait}."
            ),
            scenarios=_pool_scenarios,
        ),
        Alert(
            name="HighFileDescriptorUsage",
            expression=lambda scope: scope.of_instrumented_instances(
                f"{promql.open_files_share(scope.targets, by=_INSTANCE)} {scope.above}"
            ),
            threshold=Decimal("0.8"),
            wait="5m",
            severity="warning",
            summary="{job} is about to run out of file descriptors",
            description=(
                "{instance} of {job} uses {share} of its file descriptors; without a free one it can accept no "
                "connection."
            ),
            scenarios=_file_scenarios,
        ),
        Alert(
            name="ConnectionsStuck",
            expression=_stuck_connections,
            wait="5m",
            severity="info",
            summary="An instance of {job} has requests open and finishes none",
            description=(
                "{instance} of {job} has had at least {{ $value }} requests open for {15m} and finished none."
            ),
            scenarios=_connection_scenarios,
        ),
    ),
)


def _counter_scenarios(service: SyntheticService, metric: Metric) -> list[Scenario]:
    counter = service.series(metric)
    increasing = f"0x{ONSET - 1} 0+1x{service.steps}"
    return [
        Scenario("The counter increases.", {counter: increasing}, earliest=ONSET, latest=ONSET + 2),
        silent("The counter increased long ago.", {counter: service.constant(7)}),
    ]


LIBRARY = AlertGroup(
    "library",
    """\
Does scaleobs itself work? Per instance: a sum over a fleet hides the instance whose routes are no templates.""",
    (
        Alert(
            name="LabelSetsDropped",
            expression=lambda scope: f"increase({scope.targets.of(DROPPED)}[{scope.scaled('15m')}]) > 0",
            wait="1m",
            severity="warning",
            summary="{job} has more label sets than scaleobs keeps",
            description=(
                "{instance} of {job} has counted about {{ $value | humanize }} requests under the route _overflow "
                "within {15m}, since it has reached its limit of label sets: some route is not a template."
            ),
            scenarios=lambda service: _counter_scenarios(service, DROPPED),
        ),
        Alert(
            name="InternalFaults",
            expression=lambda scope: f"increase({scope.targets.of(FAULTS)}[{scope.scaled('15m')}]) > 0",
            wait="1m",
            severity="info",
            summary="scaleobs has a fault in {job}",
            description=(
                "{instance} of {job} had about {{ $value | humanize }} faults inside scaleobs within {15m}. Requests "
                "were answered; some may be missing in metrics or logs."
            ),
            scenarios=lambda service: _counter_scenarios(service, FAULTS),
        ),
    ),
)
