"""
What a PromQL expression selects and groups by.

promql-parser reads it. Grafana's variables, which it doesn't know, are replaced before, and so are the quotes of texts
whose backslashes are no escapes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice, product
from typing import Any

_PIECE = re.compile(
    r"""(?P<text>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|\#[^\n]*)
    |`(?P<raw>[^`]*)`
    |(?P<variable>[\w:]*(?:(?:\$\w+|\$\{[^}]*\})[\w:]*)+)""",
    re.VERBOSE | re.ASCII,
)
_PLAIN = re.compile(r"[A-Za-z_:][\w:]*", re.ASCII)
_VARIABLE = re.compile(r"\$\w|\$\{|\[\[\w")
_STANDS_FOR = "scaleobs_variable_"
_MOST_READINGS = 256
_MAKES_LABELS = frozenset({"label_replace", "label_join", "count_values", "info"})
_CHILDREN = ("lhs", "rhs", "expr", "param", "args", "vector_selector")
_SIGNS = {"Equal": "=", "NotEqual": "!=", "Re": "=~", "NotRe": "!~"}


@dataclass(frozen=True, slots=True)
class Matcher:
    """One condition of a selector, as in `status_code=~"5.."`."""

    label: str
    sign: str
    value: str

    def __str__(self) -> str:
        """Return it as PromQL."""
        escaped = self.value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
        return f'{self.label}{self.sign}"{escaped}"'

    @property
    def is_variable(self) -> bool:
        """Whether a dashboard fills it in."""
        return bool(_VARIABLE.search(self.value))

    def matches(self, value: str) -> bool:
        """Return whether a label with that value, empty where there is none, fits."""
        if self.is_variable:
            return True
        if "~" not in self.sign:
            return (self.value == value) is (self.sign == "=")
        try:
            return bool(re.fullmatch(self.value, value)) is (self.sign == "=~")
        except re.error:  # Prometheus reads some that Python doesn't.
            return True


@dataclass(frozen=True, slots=True)
class Selector:
    """The name of series, empty or with a `$` where it can't be known, and the conditions on their labels."""

    name: str
    matchers: tuple[Matcher, ...] = ()

    def __str__(self) -> str:
        """Return it as PromQL."""
        is_plain = _PLAIN.fullmatch(self.name)
        matchers = self.matchers if is_plain else (Matcher("__name__", "=", self.name), *self.matchers)
        conditions = f"{{{','.join(map(str, matchers))}}}" if matchers else ""
        return f"{self.name}{conditions}" if is_plain else conditions


@dataclass(frozen=True, slots=True)
class Expression:
    """What an expression selects, the labels that it groups and matches by, and whether it makes labels itself."""

    selectors: tuple[Selector, ...]
    grouping: frozenset[str]
    makes_labels: bool


def read(expression: str) -> Expression:
    """
    Return what an expression asks for.

    Raises:
        ValueError: it can't be PromQL.
    """
    parsed, variables = _parsed(expression)
    selectors: list[Selector] = []
    grouping: set[str] = set()
    makes_labels = False
    for node in _nodes(parsed):
        if hasattr(node, "matchers"):
            selectors.append(_selector(node, variables))
        grouping |= {label for labels in _modifier(node) for label in labels}
        makes_labels |= _operation(node) in _MAKES_LABELS
    return Expression(tuple(selectors), frozenset(grouping - variables.keys()), makes_labels)


def same(one: str, other: str) -> bool:
    """Return whether two expressions ask the same; if one can't be read, whether their texts are equal."""
    try:
        parsed = [_parsed(text)[0] for text in (one, other)]
    except ValueError:
        return one == other
    first, second = ([_key(node) for node in _nodes(tree)] for tree in parsed)
    return first == second


def _parsed(expression: str) -> tuple[Any, dict[str, str]]:
    """
    Return the parsed expression, and what the names that stand for variables were.

    A variable may be a number, a duration or a name: the first reading that the parser accepts counts.
    """
    import promql_parser

    variables: dict[str, str] = {}
    names: dict[str, str] = {}
    for found in _PIECE.finditer(expression):
        if (text := found["variable"]) and text not in names:
            names[text] = f"{_STANDS_FOR}{len(names)}"
            variables[names[text]] = text
    error: Exception | None = None
    for reading in islice(product((True, False), repeat=len(names)), _MOST_READINGS):
        chosen = {text: "5m" if is_number else names[text] for text, is_number in zip(names, reading, strict=True)}
        try:
            return promql_parser.parse(_PIECE.sub(lambda found: _plain(found, chosen), expression)), variables  # noqa: B023
        except ValueError as refused:
            error = error or refused
    vague = str(error) == "invalid promql query"
    msg = "it doesn't follow the grammar" if vague else " ".join(str(error).split())
    raise ValueError(msg)


def _plain(found: re.Match[str], chosen: dict[str, str]) -> str:
    if found["variable"]:
        return chosen[found["variable"]]
    if found["raw"] is None:
        return found[0]
    escaped = found["raw"].replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def _nodes(parsed: Any) -> list[Any]:
    """Return every part of an expression, the whole first."""
    # The parser's own `walk` copies what is below each part: a sum of 300 terms takes it a gigabyte.
    found, pending = [], [parsed]
    while pending:
        node = pending.pop()
        found.append(node)
        children = [getattr(node, name, None) for name in _CHILDREN]
        for child in reversed(children):
            pending += reversed(child) if isinstance(child, list) else [] if child is None else [child]
    return found


def _selector(node: Any, variables: dict[str, str]) -> Selector:
    matchers = [Matcher(one.name, _SIGNS[_last(one.op)], one.value) for one in node.matchers.matchers]
    named = [one.value for one in matchers if one.label == "__name__" and one.sign == "="]
    name = node.name or "".join(named[:1])
    kept = (one for one in matchers if one.label != "__name__" and one.label not in variables)
    return Selector(variables.get(name, name), tuple(kept))


def _modifier(node: Any) -> tuple[list[str], list[str]]:
    """Return the labels that a part groups or matches by, and those that a join adds."""
    modifier = getattr(node, "modifier", None)
    labels = getattr(modifier, "labels", None) or getattr(getattr(modifier, "matching", None), "labels", None)
    return list(labels or ()), list(getattr(modifier, "group_labels", None) or ())


def _operation(node: Any) -> str:
    """Return the function or the operator of a part."""
    return node.func.name if hasattr(node, "func") else str(getattr(node, "op", ""))


def _key(node: Any) -> tuple[object, ...]:
    """Return what makes a part differ from others, apart from the parts within it."""
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
