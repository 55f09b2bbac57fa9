"""What is around the panels of a dashboard: the variables that choose, and the annotations that mark."""

from __future__ import annotations

from typing import Any

from scaleobs.catalog import INFO, REQUESTS
from scaleobs.render.panels import DATASOURCE
from scaleobs.render.promql import ALERTS, ROUTE, STARTED, Targets

SHOWN = Targets(('job=~"$job"', 'instance=~"$instance"'), route=f'{ROUTE}=~"${ROUTE}"')
"""What the variables leave to be shown."""


def variables(job: str | None) -> list[dict[str, Any]]:
    """Return the variables: data source, job, instance and route, of one job or of all."""
    known = Targets((f'job="{job}"',)) if job else Targets()
    chosen = Targets(('job=~"$job"',))
    return [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
        # For one service there is no All, which would be every job.
        _variable("job", "Service", f"label_values({known.of(INFO)}, job)", only=job),
        _variable("instance", "Instance", f"label_values({chosen.of(INFO)}, instance)"),
        _variable(ROUTE, "Route", f"label_values({chosen.of(REQUESTS)}, {ROUTE})"),
    ]


def _variable(name: str, label: str, query: str, *, only: str | None = None) -> dict[str, Any]:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": DATASOURCE,
        "query": query,
        "refresh": 2,  # When the time range changes: what isn't there any more is still found where it was.
        "sort": 1,
        "multi": only is None,
        "includeAll": only is None,
        "allValue": ".+",
        "current": {"text": only or "All", "value": only or "$__all"},
    }


def marks() -> list[dict[str, Any]]:
    """Return the annotations: restarts and firing alerts."""
    # A new pod is a new series, so that `changes()` would miss most restarts: young processes are marked.
    started = f"time() - {SHOWN.of(STARTED)} < 120"
    firing = Targets(('job=~"$job"',)).of(ALERTS, 'alertstate="firing"')
    return [
        _annotation("Restarts", started, "orange", title="Started", text="{{job}} {{instance}}"),
        _annotation("Alerts", firing, "red", title="{{alertname}}", text="{{job}} {{severity}}"),
    ]


def _annotation(name: str, expression: str, colour: str, *, title: str, text: str) -> dict[str, Any]:
    return {
        "name": name,
        "datasource": DATASOURCE,
        "enable": True,
        "iconColor": colour,
        "expr": expression,
        "step": "60s",
        "titleFormat": title,
        "textFormat": text,
    }
