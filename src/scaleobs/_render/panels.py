"""The parts of a dashboard: panels, variables and annotations."""

from __future__ import annotations

from typing import Any

from scaleobs._render.promql import ALERTS, ROUTE, STARTED, Targets
from scaleobs.catalog import INFO, REQUESTS

Panel = dict[str, Any]
Query = tuple[str, str]
"""An expression, and the legend of its series."""

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
_PAGE_WIDTH = 24
_PANEL_HEIGHT = 8


def timeseries(
    title: str, description: str, unit: str, *queries: Query, stacked: bool = False, top: float | None = None
) -> Panel:
    """Return a panel of lines over time, from 0 up to `top` if it is given."""
    custom: dict[str, Any] = {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 10, "showPoints": "never"}
    if stacked:
        custom |= {"fillOpacity": 40, "stacking": {"mode": "normal", "group": "A"}}
    defaults: dict[str, Any] = {"unit": unit, "min": 0, "custom": custom}
    if top is not None:
        defaults["max"] = top
    options = {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return _panel("timeseries", title, description, defaults, options, list(queries))


def heatmap(title: str, description: str, unit: str, query: Query) -> Panel:
    """Return a panel of the number in each bucket, as colour over time."""
    options = {
        "calculate": False,
        "cellGap": 1,
        "color": {"mode": "scheme", "scheme": "Blues", "steps": 64, "reverse": False},
        "yAxis": {"axisPlacement": "left", "unit": unit},
        "tooltip": {"mode": "single", "yHistogram": True},
        "legend": {"show": True},
    }
    panel = _panel("heatmap", title, description, {"unit": "short"}, options, [query])
    panel["targets"][0]["format"] = "heatmap"
    return panel


def table(
    title: str,
    description: str,
    queries: list[Query],
    *,
    units: dict[str, str] | None = None,
    hidden: tuple[str, ...] = (),
) -> Panel:
    """
    Return a table of the whole time range, with a column for each query beside their common labels.

    Args:
        title: the panel's title.
        description: the panel's description.
        queries: each with the name of its column.
        units: the unit of a column, by its name.
        hidden: columns that are not shown.
    """
    columns = {_column(index, len(queries)): name for index, (_, name) in enumerate(queries)}
    panel = _panel("table", title, description, {"unit": "short"}, {"showHeader": True}, queries)
    panel["fieldConfig"]["overrides"] = [
        {
            "matcher": {"id": "byName", "options": name},
            "properties": [{"id": "unit", "value": unit}, {"id": "decimals", "value": 2}],
        }
        for name, unit in (units or {}).items()
    ]
    panel["transformations"] = [
        {"id": "merge", "options": {}},
        {
            "id": "organize",
            "options": {
                "excludeByName": dict.fromkeys(("Time", *hidden), True),
                "renameByName": columns,
            },
        },
    ]
    for target in panel["targets"]:
        target |= {"instant": True, "range": False, "format": "table"}
    return panel


def layout(rows: dict[str, list[list[Panel]]]) -> list[Panel]:
    """Return the panels of each titled row, line by line, with the numbers and positions for Grafana."""
    page: list[Panel] = []
    top = 0
    for title, lines in rows.items():
        row = {"type": "row", "title": title, "collapsed": False, "panels": []}
        page.append({"id": len(page) + 1, **row, "gridPos": {"x": 0, "y": top, "w": _PAGE_WIDTH, "h": 1}})
        top += 1
        for line in lines:
            width = _PAGE_WIDTH // len(line)
            for index, panel in enumerate(line):
                position = {"x": index * width, "y": top, "w": width, "h": _PANEL_HEIGHT}
                page.append({"id": len(page) + 1, **panel, "gridPos": position})
            top += _PANEL_HEIGHT
    return page


def _panel(  # noqa: PLR0917
    kind: str,
    title: str,
    description: str,
    defaults: dict[str, Any],
    options: dict[str, Any],
    queries: list[Query],
) -> Panel:
    return {
        "type": kind,
        "title": title,
        "description": description,
        "datasource": DATASOURCE,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": DATASOURCE, "expr": expr, "legendFormat": legend}
            for index, (expr, legend) in enumerate(queries)
        ],
    }


def _column(index: int, count: int) -> str:
    # Grafana names the values of one query `Value`, those of several `Value #A` and so on.
    return "Value" if count == 1 else f"Value #{chr(ord('A') + index)}"


SELECTED = Targets(('job=~"$job"', 'instance=~"$instance"'), route=f'{ROUTE}=~"${ROUTE}"')
"""The targets that the variables select."""


def variables(job: str | None) -> list[dict[str, Any]]:
    """Return the variables: data source, job, instance and route, of one job or of all."""
    every = Targets((f'job="{job}"',)) if job else Targets()
    chosen = Targets(('job=~"$job"',))
    return [
        {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"},
        # The variable of one service has no All, which would be every job.
        _variable("job", "Service", f"label_values({every.of(INFO)}, job)", only=job),
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
        "refresh": 2,  # When the time range changes, so that series that have ended are found in it.
        "sort": 1,
        "multi": only is None,
        "includeAll": only is None,
        "allValue": ".+",
        "current": {"text": only or "All", "value": only or "$__all"},
    }


def restarts_and_alerts() -> list[dict[str, Any]]:
    """Return the annotations: restarts and firing alerts."""
    # A new pod is a new series, so that `changes()` would miss most restarts: young processes are marked.
    started = f"time() - {SELECTED.of(STARTED)} < 120"
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
