"""
Finds the value of a secret's name in notations of their own: XML, YAML, forms, queries, HTML, HAR, errors of pydantic.

Each function returns where the value begins and ends, or `None` if the text has another notation.
"""

from __future__ import annotations

import re

from scaleobs.logs._secret_values import Ends
from scaleobs.logs._work import Steps

Span = tuple[int, int]

_NEAR, _FAR = 200, 8_000  # Characters in which what belongs to a name is searched for.
_CHARACTERS_OF_STEP = 64
_MAX_OBJECTS = 8

_TAG_END = re.compile(r"[^<>]{0,200}>")
_LINE_START = re.compile(r"[ \t]*(?:- )?\Z")
# In a query within a query, in JSON in a query, and in JSON in HTML.
_ENCODED = re.compile(r"(%(?:25)*22)?(?:\+|%20)*%((?:25)*)3[AD](?:\+|%20)*", re.IGNORECASE)
_ENTITY = r"&(?:quot|#34|#39|#x27);"
_IN_HTML = re.compile(rf"{_ENTITY}\s*(?:[:=,]|=&gt;)\s*({_ENTITY})?")
_FORM_FIELD = re.compile(r"(?:\r?\n|\\r\\n)(?:[^\r\n\\]+(?:\r?\n|\\r\\n)){0,8}?(?:\r?\n|\\r\\n)")
_FORM_END = re.compile(r"(?:\r?\n|\\r\\n)--|\Z")
_NAME_KEY = re.compile(r"(?:name|key|header|field|variable|param|k|id)(?:\\*[\"']\s*:|=)\s*b?\\*[\"']\Z", re.IGNORECASE)
_NAME_ATTRIBUTE, _VALUE_ATTRIBUTE = re.compile(r"\bname="), re.compile(r"\bvalue=")
_YAML_NAME, _YAML_VALUE = re.compile(r"\b(?:name|key):[ \t]*\Z"), re.compile(r"[ \t]*\r?\n[ \t]+value:[ \t]*")
_VALUE_KEY = re.compile(r"\\*[\"'](?:value|val|v|content|values)\\*[\"']\s*:\s*", re.IGNORECASE)
_LOCATION = re.compile(r"[\"']loc[\"']\s*[:,]\s*[(\[][^)\]]*\Z")
_INPUT = re.compile(r"\\*[\"']input\\*[\"']\s*:\s*")
_FIELD_ERROR = re.compile(r"[^\n]{0,200}(?:\n  [^\n]*?)?\n  [^\n]*?\[type=\w+, input_value=")


def value(text: str, begin: int, end: int, ends: Ends) -> Span | None:
    """Return where the value of a name is that is not in quotes, and has no `=` or `:` after it."""
    following = text[end : end + 1]
    if following == "%":
        return _in_query(text, end)
    if following == "&":
        return _in_html(text, end, ends)
    if following in ("\n", "\r", " ") and (span := _in_yaml(text, begin, end)):
        return span
    preceding = text[begin - 1] if begin else "\n"
    if preceding in "</:":
        return _in_tag(text, begin, end)
    if preceding == "\n" and (found := _FIELD_ERROR.match(text, end)):
        return _until_input_type(text, found.end())
    return None


def _in_yaml(text: str, begin: int, end: int) -> Span | None:
    found = _YAML_VALUE.match(text, end)
    if found is None or _YAML_NAME.search(text, max(0, begin - _NEAR), begin) is None:
        return None
    last = text.find("\n", found.end())
    return found.end(), last if last >= 0 else len(text)


def _in_tag(text: str, begin: int, end: int) -> Span | None:
    tag = _TAG_END.match(text, end)
    opened = text.rfind("<", max(0, begin - 32), begin)
    if tag is None or opened < 0 or text.startswith("/", opened + 1):
        return None
    position = tag.end()
    last = text.find("]]>" if text.startswith("<![CDATA[", position) else "</", position)
    return position, len(text) if last < 0 else last


def _in_query(text: str, end: int) -> Span | None:
    """Find a value in a query, or in JSON, that is itself the value in a query: `next=%2F%3Ftoken%3Dx`."""
    found = _ENCODED.match(text, end)
    if found is None:
        return None
    # What is in quotes may have an encoded `&`.
    stop = "" if found[1] else f"|%{found[2]}26"
    last = re.compile(rf"[\s&\"'<>]{stop}").search(text, found.end())
    return found.end(), last.start() if last else len(text)


def _in_html(text: str, end: int, ends: Ends) -> Span | None:
    found = _IN_HTML.match(text, end)
    if found is None:
        return None
    if not found[1] and text[found.end() : found.end() + 1] in ("[", "{"):
        return found.end(), ends.brackets(found.end())
    last = re.compile(rf"(?<!\\){found[1]}" if found[1] else r"[\s,}\]]").search(text, found.end())
    return found.end(), last.start() if last else len(text)


def block(text: str, position: int, begin: int, steps: Steps) -> Span | None:
    """Return where the lines are that YAML has below a name: those with a deeper indent, and lists."""
    steps.left -= 2
    line = text.rfind("\n", 0, begin) + 1
    if begin - line > _NEAR or not _LINE_START.match(text[line:begin]):
        return None
    indent = begin - line
    lines = rf"\r?\n(?:[ \t]{{{indent + 1},}}[^\n]*|[ \t]{{{indent}}}- [^\n]*|[ \t]*(?=\n))"
    found = re.compile(rf"[|>]?[+-]?[ \t]*((?:{lines})+)").match(text, position)
    return found.span(1) if found and found[1].strip() else None


def form_field(text: str, begin: int, end: int) -> Span | None:
    """Return where the value of a field is in a form with several parts."""
    if "name=" not in text[max(0, begin - 8) : begin]:
        return None
    found = _FORM_FIELD.match(text, end)
    if found is None:
        return None
    last = _FORM_END.search(text, found.end())
    return found.end(), last.start() if last else len(text)


def is_value(text: str, begin: int) -> bool:
    """Return whether a secret's name is a value itself: of `name`, or of a part of pydantic's `loc`."""
    around = text[max(0, begin - _NEAR) : begin]
    return _NAME_KEY.search(around[-40:]) is not None or ("loc" in around and _is_in_location(around))


def _is_in_location(around: str) -> bool:
    return _LOCATION.search(around.rstrip("\\\"'b")) is not None


def value_beside(text: str, start: int, begin: int, end: int, key_quote: str, steps: Steps) -> int | None:  # noqa: PLR0917
    """
    Return where the value begins that belongs to a name beside it: `{"name": "Cookie", "value": "x"}` in any order.

    Args:
        text: the text.
        start: where the search begins.
        begin: where the name begins.
        end: where its quote ends.
        key_quote: the quote of the name.
        steps: what may be searched.
    """
    if _is_in_location(text[max(0, begin - _NEAR) : begin]):
        return _search(_INPUT, text, end, end + _FAR, steps)
    start = max(start, begin - _FAR)
    if text[max(0, begin - 8) : begin].rstrip("\\\"'b")[-1:] == "=":
        return _attribute_beside(text, start, begin, end, steps)
    object_start = re.compile(rf"\{{\s*{re.escape(key_quote)}")
    if text.startswith(",", end):
        following = object_start.search(text, end, end + _FAR)
        found = _search(_VALUE_KEY, text, end, following.start() if following else end + _FAR, steps)
        if found is not None:
            return found
    steps.left -= (begin - start) // _CHARACTERS_OF_STEP
    for opened in list(object_start.finditer(text, start, begin))[: -_MAX_OBJECTS - 1 : -1]:
        steps.left -= (begin - opened.start()) // _CHARACTERS_OF_STEP + 1
        earlier = [found.end() for found in _VALUE_KEY.finditer(text, opened.start(), begin)]
        if earlier:
            return earlier[-1]
    return None


def _attribute_beside(text: str, start: int, begin: int, end: int, steps: Steps) -> int | None:
    """Return where the value is in `<input name="token" value="x">` or `Cookie(name='sid', value='x')`."""
    following = _NAME_ATTRIBUTE.search(text, end, end + _FAR)
    last = following.start() if following else end + _FAR
    closing = text.find(">", end, last)
    found = _search(_VALUE_ATTRIBUTE, text, end, last if closing < 0 else closing, steps)
    if found is not None:
        return found
    opened = text.rfind("<", start, begin)
    if opened < 0:
        opened = text.find("(", start, begin)
    return _search(_VALUE_ATTRIBUTE, text, opened, begin, steps) if opened >= 0 else None


def _search(expression: re.Pattern[str], text: str, begin: int, end: int, steps: Steps) -> int | None:
    found = expression.search(text, begin, end)
    last = min(end, len(text)) if found is None else found.end()
    steps.left -= (last - begin) // _CHARACTERS_OF_STEP
    return None if found is None else last


def shortened_input(text: str, position: int) -> Span | None:
    """Return where a value is that pydantic has shortened: the part that is missing may be a secret's name."""
    last = text.find(", input_type=", position, position + _FAR)
    value_text = text[position : last if last >= 0 else position + _NEAR]
    if "..." not in value_text or value_text[0] in "\"'0123456789-":
        return None
    return _until_input_type(text, position)


def _until_input_type(text: str, position: int) -> Span:
    last = text.find(", input_type=", position)
    return position, last if last >= 0 else len(text)
