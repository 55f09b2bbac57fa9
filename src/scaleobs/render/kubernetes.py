"""Questions to Kubernetes about the containers of a service, as PromQL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scaleobs.catalog import INFO
from scaleobs.render.promql import (
    CONTAINER_CPU,
    CONTAINER_LIMITS,
    CONTAINER_MEMORY,
    Targets,
    joined,
    summed,
)

if TYPE_CHECKING:
    from scaleobs.render.durations import Duration

_POD = ("namespace", "pod")
_CONTAINER = (*_POD, "container")

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


def _share_of_limit(used: str, resource: str) -> str:
    # A limit of 0 means that there is none. Two replicas of kube-state-metrics don't double it: max, not sum.
    limits = summed(Targets().of(CONTAINER_LIMITS, f'resource="{resource}"'), *_CONTAINER, how="max")
    return joined(used, "/", f"({limits} > 0)")


def _of_pods(targets: Targets, share: str) -> str:
    # The targets know their pod, so that no container has to be named. One value per pod on the right keeps
    # the join valid where a pod is scraped under two jobs.
    pods = summed(targets.of(INFO), "job", *_POD, how="group")
    most = summed(share, *_POD, how="max")
    return joined(pods, f"* on ({', '.join(_POD)}) group_left", most)
