"""Removes secrets from log lines: values by the name of their key, at any depth, and parts of texts."""

from __future__ import annotations

import atexit
import re
from array import array
from collections import deque
from collections.abc import ItemsView, Iterable, KeysView, Mapping, MutableMapping, ValuesView
from datetime import date, datetime, time
from functools import cache
from itertools import islice
from typing import Any
from urllib.parse import unquote_plus
from uuid import UUID

from structlog.typing import EventDict

from scaleobs.logs._encoding import CIRCULAR, MAX_LINE_BYTES, decode, key_text, shorten, text_of, to_plain
from scaleobs.logs._objects import fields_of, has_fields
from scaleobs.logs._secret_names import REDACTED, has_marks, is_harmless, is_secret_name, plain_name
from scaleobs.logs._work import (
    CHARACTERS_OF_NODE,
    LEAST,
    LONG,
    MAX_FIELDS,
    NODES_OF_CUT,
    NODES_OF_KEY,
    NODES_OF_LIST,
    NODES_OF_NAME,
    NODES_OF_TEXT,
    Work,
    first_fields,
    has_no_names,
)

_WORD = re.compile(r"[\w .-]+")
_MAX_DEPTH = 8
_PAIR = 2
_MAX_NAMES, _MAX_NAME, _MAX_KEY = 4096, 100, 200
_REPEATED = ("event", "client", "route")

_HARMLESS, _SECRET, _SKIPPED = range(3)
_OWN_KEYS = dict.fromkeys(("_record", "request_id", "trace_id", "span_id"), _SKIPPED)

_PLAIN = frozenset({int, float, bool, type(None), datetime, date, time, UUID})
_LISTS = (list, tuple, set, frozenset, deque, array, KeysView, ValuesView, ItemsView)
_BYTES = (bytes, bytearray, memoryview)
_NUMBERS_OF_ORJSON = range(-(1 << 63), 1 << 64)

_TAIL, _MARGIN = 4096, 1024
"""Characters of a long text: at its end, and before the cut."""

_PERCENT_NAME = re.compile(r"(?<![^\s?&;\"'])([^\s=&?;\"'<>%]*+%[^\s=&?;\"'<>]*+)=(?!\s|&|\Z)[^\s&\"'<>]*+")
_MAX_PERCENT_NAMES = 100
_NAME_KEYS = ("name", "key", "header", "field", "variable", "param", "k", "id")
_VALUE_KEYS = ("value", "val", "v", "content", "values")


class Redact:
    """
    Replaces secrets by `[redacted]`: a processor.

    The value of a key with a secret's name is replaced in the event, in nested values, and in lists of headers (text or
    bytes). In texts, the values of such names are replaced (`token=…`, `"password": "…"`), and bearer tokens and the
    passwords in URLs.

    The work for a record is bounded: values beyond a number of members and characters are left out, and a text is cut
    before it is read if it is longer.

    Args:
        patterns: a word, such as `iban`, adds a name of secrets; any other pattern is a regular expression, whose
            matches in texts are replaced.
    """

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        self._own_words: tuple[str, ...] = ()
        self._expressions: list[re.Pattern[str]] = []
        for pattern in patterns:
            if _WORD.fullmatch(pattern):
                self._own_words += (plain_name(pattern),)
            else:
                self._expressions.append(re.compile(pattern))
        self._reads_all = bool(self._expressions)
        self._harmless: set[str] = set()
        self._names: dict[Any, int] = dict(_OWN_KEYS)

    # In one function, since most lines need no other.
    def __call__(self, _logger: Any, _method: str, event: EventDict) -> EventDict:  # noqa: C901, PLR0912
        """Return the event with its secrets replaced."""
        names, harmless, reads_all = self._names, self._harmless, self._reads_all
        later: list[str] = []
        work: Work | None = None
        if len(event) > MAX_FIELDS:
            event = first_fields(event)
        for key, value in event.items():
            try:
                verdict = names[key]
            except KeyError:
                verdict = self._verdict(key)
            if verdict:
                if verdict == _SECRET and not is_harmless(key, value):
                    event[key] = REDACTED
                continue
            kind = type(value)
            if kind is str:
                if len(value) > LONG:
                    later.append(key)
                # Most texts are one word, or were logged many times before.
                elif value not in harmless and (reads_all or not value.isalnum()):
                    if reads_all or "=" in value or ":" in value or "'" in value or '"' in value or " " in value:
                        work = work or Work()
                        event[key] = found = self._text(value, work)
                        if found is not value:
                            continue
                    if key in _REPEATED and not reads_all and len(harmless) < _MAX_NAMES and len(value) < _MAX_NAME:
                        harmless.add(value)
            elif kind not in _PLAIN:
                later.append(key)
        if later:
            self._redact_fields(event, later, work or Work())
        if "value" in event:
            self._redact_pairs(event)
        return event

    def text(self, text: str) -> str:
        """Return a text without the secrets in it."""
        return self._text(text, Work())

    def part(self, text: str) -> str:
        """Return the same of a text of which only a part will be shown."""
        return self._text(text, Work(MAX_LINE_BYTES))

    def _redact_fields(self, event: EventDict, keys: list[str], work: Work) -> None:
        """Redact what takes long: the shorter texts first, and then what has members."""
        keys.sort(key=lambda key: len(event[key]) if type(event[key]) is str else 1 << 62)
        for key in keys:
            event[key] = self._redact(event[key], _MAX_DEPTH, work)
        if work.is_cut:
            event["truncated"] = True

    def _text(self, text: str, work: Work) -> str:
        allowed = work.characters
        if len(text) > allowed:
            if allowed < LEAST:
                allowed = LEAST
                work.nodes -= NODES_OF_CUT
            return self._cut(text, allowed, work)
        found, _ = self._read(text, work)
        if len(found) <= MAX_LINE_BYTES:
            return found
        work.is_cut = True
        return shorten(found, MAX_LINE_BYTES // 2)

    def _read(self, text: str, work: Work) -> tuple[str, bool]:
        """Return a text without its secrets, and whether a secret has no end in it."""
        work.characters -= len(text)
        if "%" in text and "=" in text:
            text = self._without_percent_names(text)
        is_open = False
        if has_marks(text):
            work.nodes -= len(text) // CHARACTERS_OF_NODE
            texts = _texts()
            low = texts.lower(text)
            expression = texts.sites(self._own_words)
            found = expression.search(low)
            if found is not None:
                work.nodes -= NODES_OF_TEXT
                if work.nodes < -NODES_OF_TEXT:
                    work.is_cut = True
                    return f"…[{len(text)} characters]…", True
                scan = texts.Scan(text, low, self._names_secret, expression, work)
                text, is_open = scan.run(found), scan.is_open
        for own in self._expressions:
            text = own.sub(REDACTED, text)
        return text, is_open

    def _cut(self, text: str, allowed: int, work: Work) -> str:
        """
        Return a text of which only a part is read.

        A secret may end after the cut, so the last characters before it are left out. The end of the text is only kept
        if nothing between the two can be the name of a secret.
        """
        work.is_cut = True
        length, has_tail = len(text), allowed > 4 * _TAIL
        end = allowed - _TAIL if has_tail else allowed
        head, is_open = self._read(text[:end], work)
        head = head[: max(0, len(head) - min(_MARGIN, end // 2))]
        tail = ""
        if has_tail and not is_open and has_no_names(text, end - 1, length - _TAIL):
            tail = text[-_TAIL:]
            if text.find(" ", end, length - _TAIL) >= 0:
                tail = tail.partition(" ")[2]
            tail = self._read(tail, work)[0][-MAX_LINE_BYTES // 8 :]
        return f"{head[: MAX_LINE_BYTES // 8 * 3]}…[{length} characters]…{tail}"

    def _without_percent_names(self, text: str) -> str:
        """Replace the values of percent-encoded names, which a server decodes."""
        pieces: list[str] = []
        position = 0
        for count, found in enumerate(_PERCENT_NAME.finditer(text)):
            if count == _MAX_PERCENT_NAMES:
                return "".join((*pieces, f"…[{len(text) - position} characters]…"))
            if self._names_secret(unquote_plus(found[1][:_MAX_NAME])):
                pieces += (text[position : found.end(1)], "=", REDACTED)
                position = found.end()
        return "".join((*pieces, text[position:])) if pieces else text

    def _names_secret(self, name: str) -> bool:
        verdict = self._names.get(name) if len(name) <= _MAX_NAME else None
        return (self._verdict(name) if verdict is None else verdict) == _SECRET

    def _verdict(self, name: Any) -> int:
        """Return whether a name is a secret's, and cache that."""
        text = name if type(name) is str else key_text(name)
        if len(text) > _MAX_KEY:
            text = text[: _MAX_KEY // 2] + text[-_MAX_KEY // 2 :]
        verdict = _SECRET if is_secret_name(text, self._own_words) else _HARMLESS
        # Names may be in what clients send, and may keep large objects alive.
        if type(name) is str and len(name) <= _MAX_NAME:
            if len(self._names) >= _MAX_NAMES:
                self._names = dict(_OWN_KEYS)
            self._names[name] = verdict
        return verdict

    def _redact(self, value: Any, depth: int, work: Work) -> Any:
        """Return a value without its secrets; a text replaces each part that raises."""
        try:
            return self._redact_or_raise(value, depth, work)
        except Exception as error:  # A mapping or an iterator of the application raised.
            return f"<{type(value).__name__} that raises {type(error).__name__}>"

    def _redact_or_raise(self, value: Any, depth: int, work: Work) -> Any:
        kind = type(value)
        work.nodes -= 1
        if kind in _PLAIN:
            return value if kind is not int or value in _NUMBERS_OF_ORJSON else work.number(value)
        work.nodes -= 1
        if work.nodes < 0:
            work.is_cut = True
            return "…"
        if isinstance(value, str):
            return self._text(value if kind is str else str.__str__(value), work)
        if isinstance(value, _BYTES):
            text = decode(value, max(work.characters, LEAST))
            work.characters -= 8 * min(len(value), LONG)  # The escapes for invalid bytes take long.
            return self._text(text, work)
        if isinstance(value, Mapping):
            return self._members(value, depth, work, self._mapping)
        if isinstance(value, _LISTS):
            return self._members(value, depth, work, self._list)
        if isinstance(value, BaseException):
            return self._exception(value, depth, work)
        if has_fields(value):
            return self._members(value, depth, work, self._object)
        plain = to_plain(value)
        if isinstance(plain, str):
            return self._text(plain, work)
        return self._redact_or_raise(plain, depth, work) if type(plain) is not kind else plain

    def _members(self, value: Any, depth: int, work: Work, copy_of: Any) -> Any:
        """Return the copy of a mapping or a list; one that was copied before costs only its place in the line."""
        identity = id(value)
        if identity in work.path:
            return CIRCULAR
        if identity in work.copies:
            _, copy, nodes, characters = work.copies[identity]
            if nodes > work.nodes or characters > max(0, work.characters):
                work.is_cut = True
                return f"…[{len(copy)} members]…"
            work.nodes -= nodes
            work.characters -= characters
            return copy
        if depth == 0:
            work.is_cut = True
            return "…"
        nodes, characters = work.nodes, work.characters
        work.nodes -= NODES_OF_LIST
        work.path.add(identity)
        try:
            copy = copy_of(value, depth, work)
        finally:
            work.path.discard(identity)
        work.copies[identity] = value, copy, nodes - work.nodes, characters - work.characters
        return copy

    def _mapping(self, value: Mapping[Any, Any], depth: int, work: Work) -> dict[Any, Any]:
        names, copy = self._names, {}
        for key, one in value.items():
            if work.nodes <= 0:
                work.is_cut = True
                copy["…"] = f"[{len(value)} members]"
                break
            name = key if type(key) is str and len(key) <= _MAX_NAME else self._key(key, depth, work)
            verdict = names.get(name)
            if verdict is None:
                work.nodes -= NODES_OF_NAME
                verdict = self._verdict(name)
            if not name.isidentifier():
                name = self._text(name, work)
            if verdict == _SECRET and not is_harmless(key, one):
                copy[name] = REDACTED
                work.nodes -= 1
            else:
                copy[name] = self._redact(one, depth - 1, work)
        self._redact_pairs(copy)
        if "loc" in copy and "input" in copy and self._locates_secret(copy["loc"]):
            copy["input"] = REDACTED
        return copy

    def _object(self, value: Any, depth: int, work: Work) -> dict[Any, Any]:
        return self._mapping(fields_of(value), depth, work)

    def _key(self, key: Any, depth: int, work: Work) -> str:
        """Return the text of a key that is no short text."""
        work.nodes -= NODES_OF_KEY
        if isinstance(key, tuple | frozenset):
            key = str(self._redact(key, min(depth, 2), work))
        text = decode(key, 2 * _MAX_KEY) if isinstance(key, bytes) else key_text(key)
        if len(text) <= _MAX_KEY:
            return text
        work.is_cut = True
        return f"{text[:_MAX_KEY]}…[{len(text)} characters]…"

    def _locates_secret(self, location: Any) -> bool:
        """Return whether a name is in `loc`, where pydantic has the path to a field."""
        return type(location) is list and any(type(one) is str and self._names_secret(one) for one in location)

    def _redact_pairs(self, copy: MutableMapping[Any, Any]) -> None:
        """Replace the value of a name: `{"name": "Cookie", "value": "x"}`."""
        if len(copy) > _MAX_NAME:
            return
        keys = {key.lower(): key for key in copy if type(key) is str}
        names = [copy[keys[key]] for key in _NAME_KEYS if key in keys]
        names = [name for name in names if type(name) is str and self._names_secret(name)]
        for key in _VALUE_KEYS:
            if names and key in keys and not is_harmless(names[0], copy[keys[key]]):
                copy[keys[key]] = REDACTED

    def _list(self, value: Any, depth: int, work: Work) -> list[Any]:
        total = len(value)
        members = list(islice(value, max(0, work.nodes)))
        first = members[0] if members else None
        if len(members) == _PAIR and _is_short(first) and self._is_secret(first, members[1]):
            return [self._redact(first, 1, work), REDACTED]
        fields = getattr(type(value), "_fields", None)
        copy: list[Any] = []
        is_argument_of_secret = False
        for position, one in enumerate(members):
            if work.nodes <= 0:
                break
            if isinstance(fields, tuple) and position < len(fields) and self._is_secret(fields[position], one):
                copy.append(REDACTED)
                continue
            is_text = isinstance(one, str | bytes)
            if is_argument_of_secret and is_text and one[:2] not in ("--", b"--"):
                copy.append(REDACTED)
                is_argument_of_secret = False
                continue
            copy.append(self._redact(one, depth - 1, work))
            is_argument_of_secret = (
                is_text and one[:1] in ("-", b"-") and _is_short(one) and self._announces_secret(one)
            )
        if len(copy) == total:
            return copy
        work.is_cut = True
        return [*copy, f"…[{total} members]…"]

    def _announces_secret(self, name: Any) -> bool:
        """Return whether the next argument is a secret: not if that is in this one (`--token=x`)."""
        text = name.decode(errors="replace") if isinstance(name, bytes) else name
        return "=" not in text and self._is_secret(text, "x")

    def _exception(self, error: BaseException, depth: int, work: Work) -> str:
        """Return the text of an exception; if it is that of its arguments, of copies of these."""
        if type(error).__str__ is not BaseException.__str__ or all(type(one) is str for one in error.args):
            return self._text(text_of(error), work)
        arguments = [self._redact(one, depth, work) for one in error.args]
        return str(arguments[0]) if len(arguments) == 1 else str(tuple(arguments))

    def _is_secret(self, name: Any, value: Any) -> bool:
        name = name.decode(errors="replace") if isinstance(name, bytes) else name
        return self._names_secret(str(name)) and not is_harmless(name, value)


@cache
def _texts() -> Any:
    """Import the module at the first use: it compiles expressions, which takes longer than most imports."""
    from scaleobs.logs import _secret_texts

    return _secret_texts


atexit.register(_texts)  # While the interpreter ends, nothing can be imported.


def _is_short(value: Any) -> bool:
    """Return whether a value may be a name."""
    return isinstance(value, str | bytes) and len(value) <= _MAX_NAME
