"""The files that ship with scaleobs: one table, from path to the function that makes the text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scaleobs.render import manifests, output, routing, servers

if TYPE_CHECKING:
    from collections.abc import Callable

SHIPPED: dict[str, Callable[[], str]] = {
    "alert_rules/prometheusrule.yaml": lambda: output.rules_text(format_="prometheusrule"),
    "alert_rules/scaleobs.yaml": output.rules_text,
    "dashboards/service.json": lambda: output.dashboard_texts()["service.json"],
    "integrations/alertmanager/alertmanager.yml": routing.alertmanager_config,
    "integrations/granian/log_config.json": servers.log_config,
    "integrations/gunicorn/gunicorn.conf.py": servers.gunicorn,
    "integrations/hypercorn/log_config.json": servers.log_config,
    "integrations/kubernetes/deployment.yaml": manifests.deployment,
    "integrations/kubernetes/prometheusrule.yaml": lambda: output.rules_text(
        manifests.SERVICE, format_="prometheusrule"
    ),
    "integrations/kubernetes/service.yaml": manifests.service,
    "integrations/kubernetes/servicemonitor.yaml": manifests.service_monitor,
    "integrations/prometheus/prometheus.yml": manifests.prometheus_config,
    "integrations/uvicorn/log_config.json": servers.log_config,
}
