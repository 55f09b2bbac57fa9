"""Alerts on what an instance runs out of, and on scaleobs itself."""

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


def _cpu(scope: Scope) -> str:
    cores = promql.process_cpu(scope.targets, str(scope.window), by=("job", "instance", "namespace", "pod"))
    # A pod whose container is near its limit is named once, not once more for its process.
    return joined(
        f"{grouped(promql.cpu_share(scope.targets, scope.window))} {scope.above}",
        "or on (job, namespace, pod)",
        f"{grouped(scope.exposing(cores))} {scope.above}",
    )


def _busy(service: SyntheticService) -> list[Scenario]:
    seconds, counter, full = Decimal(service.step) / 1000, service.series(promql.CPU), service.window + 2
    return [
        *around(
            service.threshold,
            "A process uses more of its core than it should.",
            "It uses a little less than that.",
            lambda share: {counter: service.growing(share * seconds)},
            latest=full,  # A rate is whole once its window is.
        ),
        *around(
            service.threshold,
            "A container uses more of its limit.",
            "It uses a little less of it.",
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
    found = service.without(INFO) | {service.series(INFO, **pod, **info): service.always(1)}
    matchers = [equal(name, value) for name, value in {**pod, "container": "orders"}.items()]
    for metric, value in (
        (promql.CONTAINER_CPU, service.growing(cpu)),
        (promql.CONTAINER_MEMORY, service.always(memory)),
        (promql.CONTAINER_PERIODS, service.growing(300)),
        (promql.CONTAINER_THROTTLED, service.growing(300 * throttled)),
    ):
        found[promql.Targets().of(metric, *matchers)] = value
    for resource, limit in (("cpu", 2), ("memory", 1000)):
        found[promql.Targets().of(promql.CONTAINER_LIMITS, *matchers, equal("resource", resource))] = service.always(
            limit
        )
    return found


def _loop(scope: Scope) -> str:
    window = str(scope.window)
    in_time = promql.within_rate(scope.targets, EVENT_LOOP_LAG, window, LATE_SECONDS, by=_INSTANCE)
    samples = promql.observed_rate(scope.targets, EVENT_LOOP_LAG, window, by=_INSTANCE)
    return scope.exposing(f"{slow_share(in_time, samples)} {scope.above}")


def _pool(service: SyntheticService) -> list[Scenario]:
    waiting, at = service.series(POOL_WAITING, pool="anyio"), ONSET + service.window
    return [
        Scenario("Calls wait for a thread.", {waiting: service.then(0, 3)}, earliest=at - 1, latest=at + 1),
        silent("They wait now and then.", {waiting: " ".join(["3x1 0x1"] * (service.steps // 4))}),
    ]


def _files(service: SyntheticService) -> list[Scenario]:
    held, most = service.series(OPEN_FILES), {service.series(MAX_FILES): service.always(1000)}
    return around(
        service.threshold,
        "An instance holds more files than it should.",
        "It holds a little less than that.",
        lambda share: {held: service.always(1000 * share), **most},
    )


def _open(scope: Scope) -> str:
    window, requests = scope.over("15m"), scope.targets.of(ACTIVE, 'protocol="http"')
    is_open = f"min_over_time({requests}[{window}]) > 0"
    finishes = f"{promql.request_rate(scope.targets, str(window), by=_INSTANCE)} > 0"
    return scope.exposing(joined(is_open, "unless on (job, instance)", finishes))


def _stuck(service: SyntheticService) -> list[Scenario]:
    opened = {"http": service.always(0), "websocket": service.always(9)}
    sockets = {service.series(ACTIVE, protocol=name): samples for name, samples in opened.items()}
    none = service.requests("a", each=Decimal(0))
    return [
        Scenario("Requests are open, and none finishes.", none),
        silent("WebSockets are open, and no request comes.", {**none, **sockets}),
    ]


SATURATION = AlertGroup(
    "saturation",
    """\
What may be the cause? Users may feel nothing yet: CPU is information, memory a warning, since the kernel
kills a container at its limit. Containers (cAdvisor, kube-state-metrics) are found by the pod of the
service's targets. Elsewhere an instance is measured against one core, which is what Python code in one process
can use under the interpreter lock.
Event loops and worker threads are an ASGI application's.""",
    (
        Alert(
            name="HighCPUUsage",
            expression=_cpu,
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
            scenarios=_busy,
        ),
        # An average of its use doesn't show that a limit holds a container back.
        Alert(
            name="CPUThrottled",
            expression=lambda scope: f"{grouped(promql.throttled_share(scope.targets, scope.window))} {scope.above}",
            threshold=Decimal("0.25"),
            wait="15m",
            severity="info",
            summary="{job} is held back by its CPU limit",
            description=(
                "A container in pod {pod} of {job} had used up its CPU limit in {share} of the scheduler's periods "
                "over the last {window}, and waited for the next; the line is {threshold}."
            ),
            scenarios=lambda service: around(
                service.threshold,
                "A container is held back a little more often than it should.",
                "It is a little less often.",
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
                "A container in pod {pod} of {job} holds {share} of its memory limit; at the limit the kernel kills it."
            ),
            scenarios=lambda service: around(
                service.threshold,
                "A container holds more of its memory than it should.",
                "It holds a little less than that.",
                lambda share: _container(service, memory=1000 * share),
            ),
        ),
        Alert(
            name="EventLoopLag",
            expression=_loop,
            threshold=Decimal("0.1"),
            wait="10m",
            severity="warning",
            summary="Something blocks the event loop of {job}",
            description=(
                "{instance} of {job}: {share} of the looks at its event loops over the last {window} were more than "
                f"{number(LATE_SECONDS)} s late; the line is {{threshold}}. Every request of the worker waits as long."
            ),
            scenarios=lambda service: around(
                service.threshold,
                "A little more looks at a loop are late than the line allows.",
                "A little less are.",
                lambda share: service.loops(late=share),
            ),
        ),
        Alert(
            name="ThreadPoolSaturated",
            expression=lambda scope: scope.exposing(
                f"min_over_time({scope.targets.of(POOL_WAITING)}[{scope.window}]) > 0"
            ),
            wait="5m",
            severity="warning",
            summary="{job} has too few worker threads",
            description=(
                "{instance} of {job}: at least {{ $value }} calls waited for a thread of the pool {{ $labels.pool }} "
                "at each scrape of the last {window}, and so for {wait}."
            ),
            scenarios=_pool,
        ),
        Alert(
            name="HighFileDescriptorUsage",
            expression=lambda scope: scope.exposing(
                f"{promql.open_files_share(scope.targets, by=_INSTANCE)} {scope.above}"
            ),
            threshold=Decimal("0.8"),
            wait="5m",
            severity="warning",
            summary="{job} is about to run out of file descriptors",
            description=(
                "{instance} of {job} holds {share} of the file descriptors that it may; without one it can take no "
                "connection."
            ),
            scenarios=_files,
        ),
        Alert(
            name="ConnectionsStuck",
            expression=_open,
            wait="5m",
            severity="info",
            summary="An instance of {job} has requests open and finishes none",
            description=(
                "{instance} of {job} has had at least {{ $value }} requests open for {15m} and finished none."
            ),
            scenarios=_stuck,
        ),
    ),
)


def _increases(service: SyntheticService, metric: Metric) -> list[Scenario]:
    counter = service.series(metric)
    begins = f"0x{ONSET - 1} 0+1x{service.steps}"
    return [
        Scenario("There are more and more.", {counter: begins}, earliest=ONSET, latest=ONSET + 2),
        silent("There were some, long ago.", {counter: service.always(7)}),
    ]


LIBRARY = AlertGroup(
    "library",
    """\
Does scaleobs itself work? Per instance: a sum over a fleet hides the one whose routes are no templates.""",
    (
        Alert(
            name="LabelSetsDropped",
            expression=lambda scope: f"increase({scope.targets.of(DROPPED)}[{scope.over('15m')}]) > 0",
            wait="1m",
            severity="warning",
            summary="{job} has more routes than scaleobs keeps apart",
            description=(
                "{instance} of {job} has counted about {{ $value | humanize }} requests under the route _overflow "
                "within {15m}, since their label sets are past its limit: some route is not a template."
            ),
            scenarios=lambda service: _increases(service, DROPPED),
        ),
        Alert(
            name="InternalFaults",
            expression=lambda scope: f"increase({scope.targets.of(FAULTS)}[{scope.over('15m')}]) > 0",
            wait="1m",
            severity="info",
            summary="scaleobs has a fault in {job}",
            description=(
                "{instance} of {job} had about {{ $value | humanize }} faults inside scaleobs within {15m}. Requests "
                "were answered; some may be missing in metrics or logs."
            ),
            scenarios=lambda service: _increases(service, FAULTS),
        ),
    ),
)
