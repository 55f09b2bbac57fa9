"""The queries of rules and dashboards: generated ones, or those of files."""

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
    """One query."""

    origin: str
    """The alert, recording rule, panel or variable that it belongs to."""
    expression: str
    labels: tuple[str, ...] = ()
    """Labels that the result must have."""


@dataclass(slots=True)
class Questions:
    """The queries of rules and dashboards."""

    groups: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """The rules of each group."""
    panels: list[Question] = field(default_factory=list)
    routes: list[Question] = field(default_factory=list)
    """Queries for the routes of objectives, which the rules do not select themselves."""

    @property
    def rules(self) -> list[Question]:
        """The queries of the rules."""
        return [Question(title(rule), str(rule["expr"])) for rules in self.groups.values() for rule in rules]

    @property
    def recorded(self) -> frozenset[str]:
        """The names of the series that the rules record."""
        return frozenset(rule["record"] for rules in self.groups.values() for rule in rules if "record" in rule)


def title(rule: dict[str, Any]) -> str:
    """Return the title of a rule."""
    return f"alert {rule['alert']}" if "alert" in rule else f"record {rule['record']}"


def read_file(path: Path, questions: Questions) -> None:
    """
    Add the queries of a file: Prometheus rules, a PrometheusRule, a dashboard, or a ConfigMap that contains them.

    Raises:
        ValueError: it can't be read, or contains none of these.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        msg = f"Can't read {str(path)!r}: {error.strerror}."
        raise ValueError(msg) from None
    except UnicodeDecodeError as error:
        msg = f"Can't read {str(path)!r}: {error}."
        raise ValueError(msg) from None
    read_text(text, questions, str(path))


def read_text(text: str, questions: Questions, name: str) -> None:
    """
    Add the queries of such a file's text.

    Raises:
        ValueError: as for `read_file`.
    """
    try:
        documents = [json.loads(text)] if text.lstrip().startswith("{") else list(yaml.safe_load_all(text))
        found = [_add_document(document, questions, name) for document in documents]
    except (yaml.YAMLError, json.JSONDecodeError) as error:
        msg = f"{name!r} is not valid YAML or JSON: {' '.join(str(error).split())}"
        raise ValueError(msg) from None
    except (KeyError, TypeError, AttributeError) as error:
        msg = f"{name!r} is not a rule file or dashboard that Prometheus or Grafana accepts: {error!r}."
        raise ValueError(msg) from None
    if not any(found):
        msg = f"{name!r} contains neither rule groups nor panels: give a rule file, a PrometheusRule or a dashboard."
        raise ValueError(msg)


def _add_document(document: Any, questions: Questions, name: str) -> bool:
    """Add the queries of a document, and return whether it contains rules or panels."""
    if not isinstance(document, dict):
        return False
    if "groups" in document:
        for group in document["groups"]:
            rules = group.get("rules") or []
            for rule in rules:
                title(rule), rule["expr"]
            questions.groups.setdefault(str(group["name"]), []).extend(rules)
        return True
    if "panels" in document or "rows" in document:
        questions.panels += _dashboard(document)
        return True
    inner = [document.get("spec"), document.get("dashboard"), *(document.get("items") or ())]
    found = [_add_document(one, questions, name) for one in inner]
    for key, text in (document.get("data") or {}).items():
        read_text(str(text), questions, f"{name}: {key}")
        found.append(True)
    return any(found)


def _dashboard(document: dict[str, Any]) -> Iterator[Question]:
    for panel in _panels(document):
        for target in panel.get("targets") or ():
            if target.get("expr") and _is_prometheus(target, panel):
                yield Question(f"panel {panel.get('title') or panel.get('id')}", target["expr"])
    for variable in (document.get("templating") or {}).get("list") or ():
        query = variable.get("query")
        query = query.get("query") if isinstance(query, dict) else query
        found = _LABEL_VALUES.fullmatch(str(query).strip())
        if variable.get("type") == "query" and found and found[1]:
            yield Question(f"variable {variable['name']}", found[1], (found[2],))
    for annotation in (document.get("annotations") or {}).get("list") or ():
        if annotation.get("expr"):
            yield Question(f"annotation {annotation.get('name')}", annotation["expr"])


def _panels(parent: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield every panel, also those in folded rows."""
    for panel in [*(parent.get("panels") or ()), *(parent.get("rows") or ())]:
        yield panel
        yield from _panels(panel)


def _is_prometheus(*owners: dict[str, Any]) -> bool:
    sources = [(one.get("datasource") or {}) for one in owners]
    types = [one["type"] for one in sources if isinstance(one, dict) and one.get("type")]
    return not types or types[0] == "prometheus"
