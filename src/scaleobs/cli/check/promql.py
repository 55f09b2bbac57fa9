"""
What a PromQL expression selects and groups by.

A scanner rather than a parser: it finds every selector of an expression that Prometheus accepts, and leaves it to
Prometheus to refuse the others. `tests/check/test_promql.py` holds it to a whole parser.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""(?P<space>\s+|\#[^\n]*)
    |(?P<text>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`[^`]*`)
    |(?P<range>\[[^\]]*\])
    |(?P<variable>\$\w+|\$\{[^}]*\})
    |(?P<number>(?:\d+\.?\d*|\.\d+)[eE][+-]?\d+|\d[\w.]*|\.\d+)
    |(?P<name>[A-Za-z_:][\w:]*)
    |(?P<sign>=~|!~|!=|==|>=|<=|[-+*/%^<>=(){},@])""",
    re.VERBOSE | re.ASCII,
)
_PLAIN = re.compile(r"[A-Za-z_:][\w:]*", re.ASCII)
_VARIABLE = re.compile(r"\$\w|\$\{|\[\[\w")
_LISTS = frozenset({"by", "without", "on", "ignoring", "group_left", "group_right"})
_WORDS = frozenset({"and", "or", "unless", "atan2", "bool", "offset", "inf", "nan"})
_MAKES_LABELS = frozenset({"label_replace", "label_join", "count_values", "info"})
_ESCAPED = re.compile(r"\\[^abfnrtvxuU0-7\\'\"]")


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
    tokens = [*_tokens(expression), ("end", "")]
    selectors: list[Selector] = []
    grouping: set[str] = set()
    makes_labels = False
    at = depth = 0
    while at < len(tokens) - 1:
        kind, text = tokens[at]
        following = tokens[at + 1][1]
        depth += (text == "(") - (text == ")")
        at += 1
        if text == "{" or (kind in {"name", "variable"} and following == "{"):
            at, matchers = _matchers(tokens, at if text == "{" else at + 1)
            selectors.append(_selector("" if text == "{" else text, matchers))
        elif kind != "name" or text.lower() in _WORDS:
            continue
        elif text.lower() in _LISTS:
            if following == "(":
                at, labels = _list(tokens, at + 1)
                grouping |= labels
        elif following == "(" or following.lower() in {"by", "without"}:
            makes_labels |= text.lower() in _MAKES_LABELS
        else:
            selectors.append(Selector(text))
    if depth:
        msg = f"its parentheses don't match: {expression!r}"
        raise ValueError(msg)
    return Expression(tuple(selectors), frozenset(grouping), makes_labels)


def same(one: str, other: str) -> bool:
    """Return whether two expressions differ in nothing but white space and comments, as far as can be seen."""
    try:
        return _plain(one) == _plain(other)
    except ValueError:
        return one == other


def _plain(expression: str) -> list[object]:
    # Prometheus sorts matchers, writes an empty list behind group_left, and 1e-05 for 0.00001.
    plain: list[object] = []
    conditions: list[list[str]] | None = None
    for kind, text in _tokens(expression):
        token = _spelled(kind, text)
        if text == "{":
            conditions = [[]]
        elif conditions is None:
            is_empty_list = text == ")" and plain[-1:] == ["("] and plain[-2:-1] in (["group_left"], ["group_right"])
            plain = plain[:-1] if is_empty_list else [*plain, token]
        elif text == "}":
            plain.append(sorted(filter(None, conditions)))
            conditions = None
        elif text == ",":
            conditions.append([])
        else:
            conditions[-1].append(token)
    return plain


def _spelled(kind: str, text: str) -> str:
    if kind == "text":
        return repr(_unquoted(text))
    try:
        return repr(float(text)) if kind == "number" else re.sub(r"\s", "", text)
    except ValueError:  # It is a duration.
        return text


def _tokens(expression: str) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(expression):
        found = _TOKEN.match(expression, at)
        if found is None:
            msg = f"it can't be read from {expression[at : at + 20]!r} on"
            raise ValueError(msg)
        at = found.end()
        if found.lastgroup != "space":
            yield str(found.lastgroup), found[0]


def _matchers(tokens: list[tuple[str, str]], at: int) -> tuple[int, list[Matcher]]:
    """Return what follows an opening brace, a name alone as a matcher of `__name__`, and where it ends."""
    found = []
    while tokens[at][1] != "}":
        (kind, label), (_, sign), (value_kind, value) = (*tokens[at : at + 3], *[("end", "")] * 2)[:3]
        if kind == "text" and sign in {",", "}"}:
            found.append(Matcher("__name__", "=", _unquoted(label)))
            at += 1
        elif kind in {"name", "text"} and sign in {"=", "!=", "=~", "!~"} and value_kind == "text":
            found.append(Matcher(_unquoted(label) if kind == "text" else label, sign, _unquoted(value)))
            at += 3
        else:
            msg = f"a selector can't be read from {label!r} on"
            raise ValueError(msg)
        if tokens[at][1] == ",":
            at += 1
    return at + 1, found


def _selector(name: str, matchers: list[Matcher]) -> Selector:
    named = [one.value for one in matchers if one.label == "__name__" and one.sign == "="]
    return Selector(name or "".join(named[:1]), tuple(one for one in matchers if one.label != "__name__"))


def _list(tokens: list[tuple[str, str]], at: int) -> tuple[int, set[str]]:
    labels = set()
    while tokens[at][1] != ")":
        kind, text = tokens[at]
        if kind == "end":
            msg = "a list of labels doesn't end"
            raise ValueError(msg)
        if kind in {"name", "text"}:
            labels.add(_unquoted(text) if kind == "text" else text)
        at += 1
    return at + 1, labels


def _unquoted(text: str) -> str:
    if text.startswith("`"):
        return text[1:-1]
    if _ESCAPED.search(text.replace("\\\\", "")):
        msg = f"Prometheus knows no such escape: {text}"
        raise ValueError(msg)
    return str(ast.literal_eval(text))
