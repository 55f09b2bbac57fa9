"""Questions to Kubernetes about the containers of a service, as PromQL."""

from __future__ import annotations

from textwrap import indent
from typing import TYPE_CHECKING

from scaleobs.catalog import INFO, Metric
from scaleobs.render.promql import (
    CONTAINER_CPU,
    CONTAINER_LIMITS,
    CONTAINER_MEMORY,
    CONTAINER_PERIODS,
    CONTAINER_THROTTLED,
    POD_OWNER,
    REPLICAS_AVAILABLE,
    REPLICAS_WANTED,
    REPLICASET_OWNER,
    Targets,
    grouped,
    joined,
    summed,
)

if TYPE_CHECKING:
    from scaleobs.render.durations import Duration

_POD = ("namespace", "pod")
_CONTAINER = (*_POD, "container")
_DEPLOYMENT = ("namespace", "deployment")

# cAdvisor also reports each pod's own control group, without a container, and the pause container as POD:
# both would count twice what the containers use.
_CONTAINERS = Targets(('container!=""', 'container!="POD"'))


def cpu_share(targets: Targets, window: Duration) -> str:
    """Ask which share of its CPU limit the busiest container of each pod uses."""
    used = summed(f"rate({_CONTAINERS.of(CONTAINER_CPU)}[{window}])", *_CONTAINER)
    return _of_pods(targets, _share_of_limit(used, "cpu"))


def memory_share(targets: Targets) -> str:
    """Ask which share of its memory limit the fullest container of each pod holds."""
    used = summed(_CONTAINERS.of(CONTAINER_MEMORY), *_CONTAINER, how="max")
    return _of_pods(targets, _share_of_limit(used, "memory"))


def throttled_share(targets: Targets, window: Duration) -> str:
    """Ask in which share of the scheduler's periods the most throttled container of each pod was held back."""
    held_back, periods = (
        summed(f"rate({_CONTAINERS.of(metric)}[{window}])", *_CONTAINER)
        for metric in (CONTAINER_THROTTLED, CONTAINER_PERIODS)
    )
    return _of_pods(targets, joined(held_back, "/", f"({periods} > 0)"))


def replicas_missing(targets: Targets) -> str:
    """Ask how many replicas the Deployments lack that made the pods of these targets."""
    wanted, available = (
        summed(Targets().of(metric), *_DEPLOYMENT, how="max") for metric in (REPLICAS_WANTED, REPLICAS_AVAILABLE)
    )
    replicasets = _makers(_pods(targets), POD_OWNER, "ReplicaSet", ("pod", "replicaset"))
    deployments = _makers(replicasets, REPLICASET_OWNER, "Deployment", ("replicaset", "deployment"))
    missing = joined(wanted, "-", available)
    return joined(deployments, f"* on ({', '.join(_DEPLOYMENT)}) group_left ()", f"{grouped(missing)} > 0")


def _makers(made: str, owner: Metric, kind: str, labels: tuple[str, str]) -> str:
    """Return what made them, by job and namespace: the first label names what was made, the second what made it."""
    one, maker = labels
    owners = summed(Targets().of(owner, f'owner_kind="{kind}"'), "namespace", one, "owner_name", how="group")
    named = f'label_replace(\n{indent(owners, "  ")},\n  "{maker}", "$1", "owner_name", "(.+)"\n)'
    found = joined(made, f"* on (namespace, {one}) group_left ({maker})", named)
    return summed(found, "job", "namespace", maker, how="group")


def _share_of_limit(used: str, resource: str) -> str:
    # A limit of 0 means that there is none. Two replicas of kube-state-metrics don't double it: max, not sum.
    limits = summed(Targets().of(CONTAINER_LIMITS, f'resource="{resource}"'), *_CONTAINER, how="max")
    return joined(used, "/", f"({limits} > 0)")


def _of_pods(targets: Targets, share: str) -> str:
    # One value per pod on the right keeps the join valid where a pod is scraped under two jobs.
    most = summed(share, *_POD, how="max")
    return joined(_pods(targets), f"* on ({', '.join(_POD)}) group_left", most)


def _pods(targets: Targets) -> str:
    # The targets know their pod, so that no container has to be named.
    return summed(targets.of(INFO), "job", *_POD, how="group")
