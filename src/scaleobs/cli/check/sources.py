"""The expressions of rules and dashboards, as the commands write them or from files that somebody changed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

_LABEL_VALUES = re.compile(r"label_values\(\s*(?:(.*\S)\s*,)?\s*(\w+)\s*\)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Question:
    """An expression, and who asks it: an alert, a recorded series, a panel."""

    who: str
    expression: str
    labels: tuple[str, ...] = ()
    """Labels that the answer must have."""


@dataclass(slots=True)
class Asked:
    """What rules and dashboards ask."""

    groups: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """The rules of each group."""
    panels: list[Question] = field(default_factory=list)
    routes: list[Question] = field(default_factory=list)
    """Those of objectives that the rules don't ask for themselves."""

    @property
    def rules(self) -> list[Question]:
        """The questions of the rules."""
        return [Question(title(rule), str(rule["expr"])) for rules in self.groups.values() for rule in rules]

    @property
    def recorded(self) -> frozenset[str]:
        """The names of the series that the rules record."""
        return frozenset(rule["record"] for rules in self.groups.values() for rule in rules if "record" in rule)


def title(rule: dict[str, Any]) -> str:
    """Return what to call a rule."""
    return f"alert {rule['alert']}" if "alert" in rule else f"record {rule['record']}"


def read_file(path: Path, asked: Asked) -> None:
    """
    Add what a file asks: rules of Prometheus, a PrometheusRule, a dashboard, or a ConfigMap with any of them.

    Raises:
        ValueError: it can't be read, or has none of these.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"Can't read {str(path)!r}: {error}."
        raise ValueError(msg) from None
    read_text(text, asked, str(path))


def read_text(text: str, asked: Asked, name: str) -> None:
    """
    Add what the text of such a file asks.

    Raises:
        ValueError: as for `read_file`.
    """
    try:
        documents = [json.loads(text)] if text.lstrip().startswith("{") else list(yaml.safe_load_all(text))
        found = [_take(document, asked, name) for document in documents]
    except (yaml.YAMLError, json.JSONDecodeError) as error:
        msg = f"{name!r} can't be read: {' '.join(str(error).split())}"
        raise ValueError(msg) from None
    except (KeyError, TypeError, AttributeError) as error:
        msg = f"{name!r} is no file of rules or dashboard that Prometheus or Grafana would take: {error!r}."
        raise ValueError(msg) from None
    if not any(found):
        msg = f"{name!r} has neither groups of rules nor panels: give a rule file, a PrometheusRule or a dashboard."
        raise ValueError(msg)


def _take(document: Any, asked: Asked, name: str) -> bool:
    if not isinstance(document, dict):
        return False
    if "groups" in document:
        for group in document["groups"]:
            rules = group.get("rules") or []
            for rule in rules:
                title(rule), rule["expr"]
            asked.groups.setdefault(str(group["name"]), []).extend(rules)
        return True
    if "panels" in document or "rows" in document:
        asked.panels += _dashboard(document)
        return True
    inner = [document.get("spec"), document.get("dashboard"), *(document.get("items") or ())]
    found = [_take(one, asked, name) for one in inner]
    for key, text in (document.get("data") or {}).items():
        read_text(str(text), asked, f"{name}: {key}")
        found.append(True)
    return any(found)


def _dashboard(page: dict[str, Any]) -> Iterator[Question]:
    for panel in _panels(page):
        for target in panel.get("targets") or ():
            if target.get("expr") and _is_prometheus(target, panel):
                yield Question(f"panel {panel.get('title') or panel.get('id')}", target["expr"])
    for variable in (page.get("templating") or {}).get("list") or ():
        query = variable.get("query")
        query = query.get("query") if isinstance(query, dict) else query
        found = _LABEL_VALUES.fullmatch(str(query).strip())
        if variable.get("type") == "query" and found and found[1]:
            yield Question(f"variable {variable['name']}", found[1], (found[2],))
    for annotation in (page.get("annotations") or {}).get("list") or ():
        if annotation.get("expr"):
            yield Question(f"annotation {annotation.get('name')}", annotation["expr"])


def _panels(holder: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every panel, those of rows that are folded too."""
    for panel in [*(holder.get("panels") or ()), *(holder.get("rows") or ())]:
        yield panel
        yield from _panels(panel)


def _is_prometheus(*holders: dict[str, Any]) -> bool:
    kinds = [(one.get("datasource") or {}) for one in holders]
    named = [one["type"] for one in kinds if isinstance(one, dict) and one.get("type")]
    return not named or named[0] == "prometheus"
