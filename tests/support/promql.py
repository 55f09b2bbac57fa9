"""What a PromQL expression names, and what the catalog lets it name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import promql_parser

from scaleobs.catalog import EXPOSED, OUTSIDE, PROCESS, RUNTIME, TARGET_LABELS

FAMILIES = (*EXPOSED, *RUNTIME, *PROCESS, *OUTSIDE)
# A native histogram is one series, under the name of its family.
FAMILY_OF = {series: metric for metric in FAMILIES for series in (*metric.series, metric.name)}

# A recorded series is named level:metric:operations; its level lists its labels.
_OF_LEVEL = {
    "job": {"job"},
    "job_route": {"job", "route"},
    "job_route_status_code": {"job", "route", "status_code"},
}
_CHILDREN = ("lhs", "rhs", "expr", "param", "args", "vector_selector")


def nodes(expression: str) -> Iterator[Any]:
    """Yield every part of an expression, from the whole down to its selectors."""
    todo = [promql_parser.parse(expression)]
    while todo:
        node = todo.pop()
        yield node
        for name in _CHILDREN:
            child = getattr(node, name, None)
            todo.extend(child if isinstance(child, list) else [child] if child is not None else [])


def selectors(expression: str) -> list[tuple[str, set[str]]]:
    """Return the name of every series that an expression selects, and the labels that it selects by."""
    return [
        (node.name, {matcher.name for matcher in node.matchers.matchers})
        for node in nodes(expression)
        if isinstance(node, promql_parser.VectorSelector)
    ]


def grouping_labels(expression: str) -> set[str]:
    """Return every label that an expression groups or matches by."""
    labels: set[str] = set()
    for node in nodes(expression):
        modifier = getattr(node, "modifier", None)
        labels |= set(getattr(modifier, "labels", ()))
        labels |= set(getattr(getattr(modifier, "matching", None), "labels", ()))
        labels |= set(getattr(getattr(modifier, "group_labels", None), "labels", ()))
    return labels


def strangers(expression: str, recorded: frozenset[str] = frozenset()) -> list[str]:
    """Return what an expression names that neither the catalog nor a rule of ours makes."""
    found, known = [], set(TARGET_LABELS)
    for name, labels in selectors(expression):
        if name in recorded:
            allowed = _OF_LEVEL[name.partition(":")[0]]
        elif name in FAMILY_OF:
            allowed = {*FAMILY_OF[name].labels, *TARGET_LABELS}
            allowed |= {"le"} if name.endswith("_bucket") else set()
        else:
            found.append(name)
            continue
        known |= allowed
        found += [f"{name}{{{label}}}" for label in labels - allowed]
    return found + sorted(grouping_labels(expression) - known)


def families(expression: str) -> set[str]:
    """Return the catalogued families that an expression uses."""
    return {FAMILY_OF[name].name for name, _ in selectors(expression) if name in FAMILY_OF}
