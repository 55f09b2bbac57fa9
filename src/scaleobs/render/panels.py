"""Grafana's panels as plain data: what all of ours have in common, and where they stand on the page."""

from __future__ import annotations

from typing import Any

Panel = dict[str, Any]
Query = tuple[str, str]
"""An expression, and the legend of what it shows."""

DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
_PAGE = 24
_HEIGHT = 8


def timeseries(
    title: str, description: str, unit: str, *queries: Query, stacked: bool = False, top: float | None = None
) -> Panel:
    """Return a panel of lines over time, from 0 up to `top` where there is one."""
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
    """Return a panel that shows how many fell into each bucket, as colour over time."""
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
    Return a table of the whole time range, one column per query next to the labels that they share.

    Args:
        title: as everywhere.
        description: as everywhere.
        queries: each with the name of its column.
        units: the unit of a column, by its name.
        hidden: columns that are not shown.
    """
    columns = {_value(index, len(queries)): name for index, (_, name) in enumerate(queries)}
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
    """Return the panels of each titled row, line by line, with the numbers and places that Grafana wants."""
    page: list[Panel] = []
    top = 0
    for title, lines in rows.items():
        row = {"type": "row", "title": title, "collapsed": False, "panels": []}
        page.append({"id": len(page) + 1, **row, "gridPos": {"x": 0, "y": top, "w": _PAGE, "h": 1}})
        top += 1
        for line in lines:
            width = _PAGE // len(line)
            for index, panel in enumerate(line):
                place = {"x": index * width, "y": top, "w": width, "h": _HEIGHT}
                page.append({"id": len(page) + 1, **panel, "gridPos": place})
            top += _HEIGHT
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


def _value(index: int, count: int) -> str:
    # Grafana names the values of one query `Value`, those of several `Value #A` and so on.
    return "Value" if count == 1 else f"Value #{chr(ord('A') + index)}"
