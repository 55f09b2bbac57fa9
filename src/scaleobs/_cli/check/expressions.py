"""
The selectors and grouping labels of a PromQL expression.

promql-parser parses it. Before that, placeholders replace Grafana's variables, which are not PromQL, and double quotes
replace backquotes, in which backslashes are no escapes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice, product
from typing import Any

_TOKEN = re.compile(
    r"""(?P<text>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|\#[^\n]*)
    |`(?P<raw>[^`]*)`
    |(?P<variable>[\w:]*(?:(?:\$\w+|\$\{[^}]*\})[\w:]*)+)""",
    re.VERBOSE | re.ASCII,
)
_PLAIN = re.compile(r"[A-Za-z_:][\w:]*", re.ASCII)
_VARIABLE = re.compile(r"\$\w|\$\{|\[\[\w")
_PLACEHOLDER = "scaleobs_variable_"
_MAX_READINGS = 256
_LABEL_FUNCTIONS = frozenset({"label_replace", "label_join", "count_values", "info"})
_CHILDREN = ("lhs", "rhs", "expr", "param", "args", "vector_selector")
_OPERATORS = {"Equal": "=", "NotEqual": "!=", "Re": "=~", "NotRe": "!~"}


@dataclass(frozen=True, slots=True)
class Matcher:
    """One condition of a selector, as in `status_code=~"5.."`."""

    label: str
    operator: str
    value: str

    def __str__(self) -> str:
        """Return the PromQL."""
        escaped = self.value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'{self.label}{self.operator}"{escaped}"'

    @property
    def is_variable(self) -> bool:
        """Whether the value contains a variable of a dashboard."""
        return bool(_VARIABLE.search(self.value))

    def matches(self, value: str) -> bool:
        """Return whether a label with that value matches; an absent label has an empty value."""
        if self.is_variable:
            return True
        if "~" not in self.operator:
            return (self.value == value) is (self.operator == "=")
        try:
            return bool(re.fullmatch(self.value, value)) is (self.operator == "=~")
        except re.error:  # Python does not support every expression of Prometheus.
            return True


@dataclass(frozen=True, slots=True)
class Selector:
    """The name of series and the conditions on their labels; an unknown name is empty or contains a `$`."""

    name: str
    matchers: tuple[Matcher, ...] = ()

    def __str__(self) -> str:
        """Return the PromQL."""
        is_plain = _PLAIN.fullmatch(self.name)
        matchers = self.matchers if is_plain else (Matcher("__name__", "=", self.name), *self.matchers)
        conditions = f"{{{','.join(map(str, matchers))}}}" if matchers else ""
        return f"{self.name}{conditions}" if is_plain else conditions


@dataclass(frozen=True, slots=True)
class Expression:
    """The selectors, the labels for grouping and matching, and whether the expression creates labels."""

    selectors: tuple[Selector, ...]
    grouping: frozenset[str]
    creates_labels: bool


def read(expression: str) -> Expression:
    """
    Return the parts of an expression that select and group.

    Raises:
        ValueError: it is not valid PromQL.
    """
    parsed, variables = _parse(expression)
    selectors: list[Selector] = []
    grouping: set[str] = set()
    creates_labels = False
    for node in _nodes(parsed):
        if hasattr(node, "matchers"):
            selectors.append(_selector(node, variables))
        grouping |= {label for labels in _modifier(node) for label in labels}
        creates_labels |= _operation(node) in _LABEL_FUNCTIONS
    return Expression(tuple(selectors), frozenset(grouping - variables.keys()), creates_labels)


def same(one: str, other: str) -> bool:
    """Return whether two expressions are equivalent; if one is not valid, whether their texts are equal."""
    try:
        parsed = [_parse(text)[0] for text in (one, other)]
    except ValueError:
        return one == other
    first, second = ([_key(node) for node in _nodes(tree)] for tree in parsed)
    return first == second


def _parse(expression: str) -> tuple[Any, dict[str, str]]:
    """
    Return the parsed expression, and the variable of each placeholder.

    A variable may be a number, a duration or a name: the parser gets the combinations of these in turn, and the first
    one that it accepts counts.
    """
    import promql_parser

    variables: dict[str, str] = {}
    names: dict[str, str] = {}
    for found in _TOKEN.finditer(expression):
        if (text := found["variable"]) and text not in names:
            names[text] = f"{_PLACEHOLDER}{len(names)}"
            variables[names[text]] = text
    error: Exception | None = None
    for reading in islice(product((True, False), repeat=len(names)), _MAX_READINGS):
        chosen = {text: "5m" if is_number else names[text] for text, is_number in zip(names, reading, strict=True)}
        try:
            text = _TOKEN.sub(lambda found: _without_variables(found, chosen), expression)  # noqa: B023
            return promql_parser.parse(text), variables
        except ValueError as refused:
            error = error or refused
    has_no_reason = str(error) == "invalid promql query"
    msg = "it does not follow the grammar" if has_no_reason else " ".join(str(error).split())
    raise ValueError(msg)


def _without_variables(found: re.Match[str], chosen: dict[str, str]) -> str:
    if found["variable"]:
        return chosen[found["variable"]]
    if found["raw"] is None:
        return found[0]
    escaped = found["raw"].replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _nodes(parsed: Any) -> list[Any]:
    """Return every node of the syntax tree, the root first."""
    # The parser's own `walk` copies the subtree of each node: a sum of 300 terms needs a gigabyte.
    found, pending = [], [parsed]
    while pending:
        node = pending.pop()
        found.append(node)
        children = [getattr(node, name, None) for name in _CHILDREN]
        for child in reversed(children):
            pending += reversed(child) if isinstance(child, list) else [] if child is None else [child]
    return found


def _selector(node: Any, variables: dict[str, str]) -> Selector:
    matchers = [Matcher(one.name, _OPERATORS[_last(one.op)], one.value) for one in node.matchers.matchers]
    named = [one.value for one in matchers if one.label == "__name__" and one.operator == "="]
    name = node.name or "".join(named[:1])
    kept = (one for one in matchers if one.label != "__name__" and one.label not in variables)
    return Selector(variables.get(name, name), tuple(kept))


def _modifier(node: Any) -> tuple[list[str], list[str]]:
    """Return the labels that a node groups or matches by, and those that a join adds."""
    modifier = getattr(node, "modifier", None)
    labels = getattr(modifier, "labels", None) or getattr(getattr(modifier, "matching", None), "labels", None)
    return list(labels or ()), list(getattr(modifier, "group_labels", None) or ())


def _operation(node: Any) -> str:
    """Return the function or the operator of a node."""
    return node.func.name if hasattr(node, "func") else str(getattr(node, "op", ""))


def _key(node: Any) -> tuple[object, ...]:
    """Return everything that distinguishes a node from others, except its children."""
    modifier, at = getattr(node, "modifier", None), getattr(node, "at", None)
    matching = getattr(modifier, "matching", None)
    return (
        type(node).__name__,
        _operation(node),
        len(getattr(node, "args", ())),
        # Prometheus sorts matchers.
        sorted(map(str, node.matchers.matchers)) if hasattr(node, "matchers") else [],
        *(getattr(node, name, None) for name in ("name", "val", "range", "step", "offset")),
        (str(at.type), at.at) if at else None,
        *_modifier(node),
        str(getattr(modifier, "type", None)),
        str(getattr(matching, "type", None)),
        str(getattr(modifier, "card", None)),
        getattr(modifier, "return_bool", None),
    )


def _last(member: Any) -> str:
    return str(member).rpartition(".")[2]
