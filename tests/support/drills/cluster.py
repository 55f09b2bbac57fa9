"""Kubernetes' own series about a pod, in the shapes that cAdvisor and kube-state-metrics give them."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from scaleobs._cli.demo.processes import LOOPBACK
from support.http_server import answering

NAMESPACE, NODE, UID = "shop", "worker-1", "5d2b3c1e-0000-4000-8000-000000000001"
MEMORY_LIMIT = 512 * 1024**2
CPU_LIMIT = 0.5
PERIODS_PER_SECOND = 10
CADVISOR = "/metrics/cadvisor"


@dataclass(slots=True)
class Deployment:
    """
    A deployment with one pod, and its metrics.

    Attributes:
        name: the deployment's.
        cores: how many cores the container keeps busy.
        memory: which share of its limit it holds.
        throttled: which share of the scheduler's periods it is held back in.
        replicas: how many replicas the deployment requests.
        available: how many of them there are.
        alias: what its pod is called, where that is another than the usual name.
    """

    name: str
    cores: float = 0.05
    memory: float = 0.3
    throttled: float = 0.0
    replicas: int = 2
    available: int = 2
    alias: str = ""
    _since: float = field(default_factory=time.monotonic)
    _counted: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])

    @property
    def pod(self) -> str:
        """What its pod is called."""
        return self.alias or f"{self.replica_set}-x2k4p"

    @property
    def replica_set(self) -> str:
        """What its replica set is called."""
        return f"{self.name}-7c9d8b6f5"

    def counted(self) -> list[float]:
        """Return CPU seconds, periods and throttled periods, counted up to now at the present pace."""
        now = time.monotonic()
        passed, self._since = now - self._since, now
        for index, pace in enumerate((self.cores, PERIODS_PER_SECOND, PERIODS_PER_SECOND * self.throttled)):
            self._counted[index] += passed * pace
        return self._counted


@dataclass(slots=True)
class Cluster:
    """The deployments, and the port of their metrics."""

    port: int
    deployments: dict[str, Deployment] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def deploy(self, name: str) -> Deployment:
        """Add a deployment."""
        return self.deployments.setdefault(name, Deployment(name))

    def page(self, path: str) -> str:
        """Return what is shown at a path."""
        with self._lock:
            return "".join(f"{line}\n" for line in shown(list(self.deployments.values()), path))


def scraped_at(port: int) -> list[dict[str, Any]]:
    """Return the scrape configuration of this cluster: pods have the labels of its metrics."""
    address = f"{LOOPBACK}:{port}"
    return [
        {
            "job_name": "kubelet",
            "honor_labels": True,
            "metrics_path": CADVISOR,
            "static_configs": [{"targets": [address]}],
        },
        {
            "job_name": "kube-state-metrics",
            "honor_labels": True,
            # One place under two names: it is run with two replicas, and everything is there twice.
            "static_configs": [{"targets": [address, f"localhost:{port}"]}],
        },
    ]


def shown(deployments: Iterable[Deployment], path: str) -> Iterator[str]:
    """Yield the lines that cAdvisor shows at its path, and kube-state-metrics at every other one."""
    lines_of = _cadvisor if path == CADVISOR else _kube_state_metrics
    for deployment in deployments:
        yield from lines_of(deployment)


def _cadvisor(one: Deployment) -> Iterator[str]:
    used, periods, throttled = one.counted()
    group = f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{UID.replace('-', '_')}.slice"
    pod = f'namespace="{NAMESPACE}",pod="{one.pod}"'
    memory = one.memory * MEMORY_LIMIT
    # The pod's own control group, the pause container, and the container: the first holds what the others do.
    for container, image, share in (
        ("", "", 1.0),
        ("POD", "registry.example/pause:3.9", 0.001),
        (one.name, f"registry.example/{one.name}:1.4.2", 1.0),
    ):
        who = f'container="{container}",id="{group}",image="{image}",name="{container and "8f1c"}",{pod}'
        yield f'container_cpu_usage_seconds_total{{{who},cpu="total"}} {used * share:.6f}'
        yield f"container_memory_working_set_bytes{{{who}}} {memory * share:.0f}"
        yield f"container_memory_usage_bytes{{{who}}} {memory * share * 1.2:.0f}"
        if container != "POD":
            yield f"container_cpu_cfs_periods_total{{{who}}} {periods:.0f}"
            yield f"container_cpu_cfs_throttled_periods_total{{{who}}} {throttled:.0f}"
            yield f"container_spec_cpu_quota{{{who}}} {CPU_LIMIT * 100_000:.0f}"
            yield f"container_spec_cpu_period{{{who}}} 100000"
            yield f"container_spec_memory_limit_bytes{{{who}}} {MEMORY_LIMIT}"


def _kube_state_metrics(one: Deployment) -> Iterator[str]:
    pod = f'namespace="{NAMESPACE}",pod="{one.pod}",uid="{UID}"'
    container = f'{pod},container="{one.name}"'
    deployment = f'namespace="{NAMESPACE}",deployment="{one.name}"'
    replica_set = f'namespace="{NAMESPACE}",replicaset="{one.replica_set}"'
    for kind, limits, requests in (
        ('resource="cpu",unit="core"', CPU_LIMIT, 0.1),
        ('resource="memory",unit="byte"', MEMORY_LIMIT, MEMORY_LIMIT // 2),
    ):
        yield f'kube_pod_container_resource_limits{{{container},node="{NODE}",{kind}}} {limits}'
        yield f'kube_pod_container_resource_requests{{{container},node="{NODE}",{kind}}} {requests}'
    made_by = f'created_by_kind="ReplicaSet",created_by_name="{one.replica_set}"'
    yield f'kube_pod_info{{{pod},host_ip="10.0.0.4",pod_ip="10.1.0.7",node="{NODE}",{made_by},host_network="false"}} 1'
    yield f'kube_pod_owner{{{pod},owner_kind="ReplicaSet",owner_name="{one.replica_set}",owner_is_controller="true"}} 1'
    yield f'kube_pod_labels{{{pod},label_app_kubernetes_io_name="{one.name}"}} 1'
    for condition in ("true", "false", "unknown"):
        yield f'kube_pod_status_ready{{{pod},condition="{condition}"}} {int(condition == "true")}'
    yield f"kube_pod_container_status_restarts_total{{{container}}} 0"
    owner = f'owner_kind="Deployment",owner_name="{one.name}",owner_is_controller="true"'
    yield f"kube_replicaset_owner{{{replica_set},{owner}}} 1"
    yield f"kube_replicaset_spec_replicas{{{replica_set}}} {one.replicas}"
    yield f"kube_replicaset_status_ready_replicas{{{replica_set}}} {one.available}"
    yield f"kube_deployment_spec_replicas{{{deployment}}} {one.replicas}"
    yield f"kube_deployment_status_replicas{{{deployment}}} {one.replicas}"
    yield f"kube_deployment_status_replicas_ready{{{deployment}}} {one.available}"
    yield f"kube_deployment_status_replicas_available{{{deployment}}} {one.available}"
    yield f"kube_deployment_status_replicas_unavailable{{{deployment}}} {one.replicas - one.available}"
    yield f"kube_deployment_status_replicas_updated{{{deployment}}} {one.replicas}"


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """Serve what is deployed for the length of a `with` block."""

    class Showing(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = pods.page(self.path).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

    with answering(Showing) as port:
        pods = Cluster(port)
        yield pods
