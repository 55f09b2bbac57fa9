"""The files that ship with scaleobs: rendered ones, with the function that makes their text, and static ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scaleobs._render import output

if TYPE_CHECKING:
    from collections.abc import Callable

RENDERED: dict[str, Callable[[], str]] = {
    "alert_rules/prometheusrule.yaml": lambda: output.rules_text(format_="prometheusrule"),
    "alert_rules/scaleobs.yaml": output.rules_text,
    "dashboards/service.json": lambda: output.dashboard_texts()["service.json"],
    "integrations/kubernetes/prometheusrule.yaml": lambda: output.rules_text("orders", format_="prometheusrule"),
}
STATIC = (
    "integrations/alertmanager/alertmanager.yml",
    "integrations/granian/log_config.json",
    "integrations/gunicorn/gunicorn.conf.py",
    "integrations/hypercorn/log_config.json",
    "integrations/kubernetes/deployment.yaml",
    "integrations/kubernetes/service.yaml",
    "integrations/kubernetes/servicemonitor.yaml",
    "integrations/prometheus/prometheus.yml",
    "integrations/uvicorn/log_config.json",
)
