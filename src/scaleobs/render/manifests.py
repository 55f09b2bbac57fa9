"""Files for Kubernetes and Prometheus, for the service `orders` that all examples speak of."""

from __future__ import annotations

from typing import Any

from scaleobs.render.text import comment, yaml_text

SERVICE = "orders"
PORT = 3000
_METRICS_PORT = 9090
_NAME = {"app.kubernetes.io/name": SERVICE}
_METADATA = {"name": SERVICE, "labels": _NAME}


def deployment() -> str:
    """Return a Deployment with the three probes, for a container that may write nothing but /tmp."""
    data = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _METADATA,
        "spec": {
            "replicas": 3,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "selector": {"matchLabels": _NAME},
            "template": {"metadata": {"labels": _NAME}, "spec": _pod()},
        },
    }
    return _header("A Deployment whose probes match what the service answers.") + yaml_text(
        data,
        {
            "maxUnavailable": "A new pod is ready before an old one goes.",
            "terminationGracePeriodSeconds": "The drain (5 s) and the server's own stop have to fit into it.",
            "topologySpreadConstraints": "Not all on one node, where there are several.",
            "resources": (
                "A memory limit, so that a leak ends one container and not its neighbours. No CPU limit: it would\n"
                "throttle requests while the node is idle. With one, HighCPUUsage measures against it."
            ),
            "startupProbe": "Up to two minutes to start; the other probes wait until it has succeeded.",
            "readinessProbe": "Traffic stays away while a dependency is missing or the service stops.",
            "livenessProbe": "No dependency is asked: a database that is away must not restart every pod.",
            "readOnlyRootFilesystem": "Whoever gets in finds nowhere to write but /tmp.",
        },
    )


def service() -> str:
    """Return a Service with a port for requests and one for scrapes."""
    data = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _METADATA,
        "spec": {
            "selector": _NAME,
            "ports": [
                {"name": "http", "port": PORT, "targetPort": "http"},
                {"name": "metrics", "port": _METRICS_PORT, "targetPort": "http"},
            ],
        },
    }
    return _header(
        "A Service. Both ports lead to the same container port, since the service answers /metrics itself;\n"
        "the name `metrics` is what the ServiceMonitor looks for."
    ) + yaml_text(data)


def service_monitor() -> str:
    """Return a ServiceMonitor that scrapes the service under its own name."""
    data = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "ServiceMonitor",
        "metadata": _METADATA,
        "spec": {
            "jobLabel": "app.kubernetes.io/name",
            "selector": {"matchLabels": _NAME},
            "endpoints": [{"port": "metrics", "path": "/metrics", "interval": "30s"}],
        },
    }
    return _header("A ServiceMonitor for the Prometheus Operator.") + yaml_text(
        data,
        {
            "jobLabel": 'The job is the value of this label on the Service: job="orders", as in the rules.',
            "interval": "The rules take rates over 5m: a quarter of that is the longest interval that works well.",
        },
    )


def prometheus_config() -> str:
    """Return a configuration of Prometheus that scrapes two instances and loads the rules."""
    data = {
        "global": {"scrape_interval": "30s", "evaluation_interval": "30s"},
        "rule_files": ["scaleobs.yaml"],
        "scrape_configs": [
            {
                "job_name": SERVICE,
                "static_configs": [{"targets": [f"{SERVICE}-1:{PORT}", f"{SERVICE}-2:{PORT}"]}],
            }
        ],
    }
    return _header("A configuration of Prometheus for a service at fixed addresses.") + yaml_text(
        data,
        {
            "rule_files": "alert_rules/scaleobs.yaml, copied beside this file.",
            "job_name": "The job is the service's name: that is what the rules of one service select.",
        },
    )


def _pod() -> dict[str, Any]:
    return {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 30,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": _NAME},
            }
        ],
        "containers": [_container()],
        "volumes": [{"name": "tmp", "emptyDir": {"sizeLimit": "64Mi"}}],
    }


def _container() -> dict[str, Any]:
    return {
        "name": SERVICE,
        "image": f"registry.example.com/{SERVICE}:1.0.0",
        "ports": [{"name": "http", "containerPort": PORT}],
        "env": [
            {"name": "SCALEOBS_SERVICE", "value": SERVICE},
            {"name": "SCALEOBS_ENVIRONMENT", "value": "production"},
        ],
        "resources": {"requests": {"cpu": "250m", "memory": "256Mi"}, "limits": {"memory": "512Mi"}},
        "startupProbe": _probe("/startup", period=2, failures=60),
        "readinessProbe": _probe("/ready", period=5, failures=2),
        "livenessProbe": _probe("/health", period=10, failures=3),
        "securityContext": {
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
    }


def _probe(path: str, *, period: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": "http"},
        "periodSeconds": period,
        "timeoutSeconds": 2,
        "failureThreshold": failures,
    }


def _header(words: str) -> str:
    return comment(f"{words}\nGenerated by: scaleobs render --out .")
