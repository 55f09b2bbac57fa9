"""Secrets leave no trace in a line: by the name they stand under, wherever that is, and in the middle of a text."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Mapping
from datetime import date, datetime, time
from functools import cache
from typing import Any
from urllib.parse import unquote_plus
from uuid import UUID

from structlog.typing import EventDict

from scaleobs.logs import encoding
from scaleobs.logs.fitting import LONGEST, shortened

REDACTED = "[redacted]"

SECRET_WORDS = (
    *("authorization", "cookie", "credential", "csrf", "xsrf", "jwt", "token", "sessionid", "signature"),
    *("password", "passwd", "passphrase", "passcode", "secret", "apikey", "accesskey", "privatekey"),
)
"""A name that has one of these in it, whatever its case and separators, stands for a secret."""

SECRET_NAMES = frozenset({"auth", "pass", "pwd", "session", "sid", "sig"})
"""Names that do so as a whole."""

_SEPARATORS = re.compile(r"[^a-z0-9]")
_WORD = re.compile(r"[\w .-]+")
_DEEPEST = 8
_PAIR = 2
_MOST_MEMBERS = LONGEST // 2  # More don't fit into a line, whatever they are.
_MOST_NAMES, _LONGEST_NAME = 4096, 100
_REPEATED = ("event", "client", "route")

_HARMLESS, _SECRET, _NOT_LOOKED_AT = range(3)
_OURS = dict.fromkeys(("_record", "request_id", "trace_id", "span_id"), _NOT_LOOKED_AT)

_PLAIN = frozenset({int, float, bool, type(None), datetime, date, time, UUID})

# name=value, as in a query string, a DSN or the text of a dataclass. It begins where a name may begin, so that a long
# text is read once.
_BREAKS = r"\s?&;,\"'(){}\[\]<>|"
_ASSIGNED = rf"(?<![^{_BREAKS}])([^={_BREAKS}]++)=(\\*\"[^\"]*\"|\\*'[^']*'|[^{_BREAKS}]++)"
# "name": "value" and (b"name", b"value"), as in JSON and the text of a dict or of headers.
_QUOTED = r"""(?<![\w\\])(b?\\*+["']([^"'\\\s]{1,64})\\*+["']\s{0,4}[:,]\s{0,4})(b?\\*"[^"]*"|b?\\*'[^']*'|[\w.+-]+)"""
_HEADER = (
    r"(?i)\b((?:proxy-)?authorization|(?:set-)?cookie|[\w-]{0,32}(?:api-?key|auth-token))"
    r"(\s{0,4}:\s{0,4})(?![\"'\s])[^\r\n\"']+"
)
_SCHEME = r"(?i)\b(bearer|basic)(\s{1,4})[a-z0-9._~+/=-]{6,}"
_USERINFO = r"(://[^\s/:@\"']{0,256}:)[^\s/@\"']{1,1024}@"


# Compiled when a text needs them first: that takes longer than the start of most modules.
_compiled = cache(re.compile)


class Redact:
    """
    Replaces secrets by `[redacted]`: a processor.

    What stands under a secret's name goes, in the event, in what is nested in it, and in lists of headers, as text or
    bytes. In texts, the values of such names go (`token=…`, `"password": "…"`), bearer tokens, and passwords in URLs.

    Args:
        patterns: a word names further secrets, as `iban` does; anything else is a regular expression, and what it finds
            in a text goes.
    """

    def __init__(self, patterns: Iterable[str] = ()) -> None:
        self._words: tuple[str, ...] = SECRET_WORDS
        self._expressions: list[re.Pattern[str]] = []
        for pattern in patterns:
            if _WORD.fullmatch(pattern):
                self._words += (_SEPARATORS.sub("", pattern.lower()),)
            else:
                self._expressions.append(re.compile(pattern))
        self._reads_all = bool(self._expressions)
        self._harmless: set[str] = set()
        self._names: dict[Any, int] = dict(_OURS)

    def __call__(self, _logger: Any, _method: str, event: EventDict) -> EventDict:
        """Replace what is secret in an event."""
        names, harmless, reads_all = self._names, self._harmless, self._reads_all
        for key, value in event.items():
            try:
                verdict = names[key]
            except KeyError:
                verdict = self._verdict(key)
            if verdict:
                if verdict == _SECRET and not _says_nothing(key, value):
                    event[key] = REDACTED
                continue
            kind = type(value)
            if kind is str:
                # Most texts are a word, or what was said many times before.
                if value not in harmless and (reads_all or not value.isalnum()):
                    if reads_all or "=" in value or ":" in value or "'" in value or '"' in value or "earer" in value:
                        event[key] = self.text(value)
                    elif key in _REPEATED and len(harmless) < _MOST_NAMES and len(value) < _LONGEST_NAME:
                        harmless.add(value)
            elif kind not in _PLAIN:
                event[key] = self._within(value, _DEEPEST)
        return event

    def text(self, text: str) -> str:
        """Return a text without the secrets in it."""
        if len(text) > LONGEST:
            text = shortened(text, LONGEST)
        if "=" in text:
            text = _compiled(_ASSIGNED).sub(self._assigned, text)
        if "'" in text or '"' in text:
            text = _compiled(_QUOTED).sub(self._quoted, text)
        if ":" in text:
            text = _compiled(_HEADER).sub(rf"\1\2{REDACTED}", text)
            text = _compiled(_USERINFO).sub(rf"\1{REDACTED}@", text)
        text = _compiled(_SCHEME).sub(rf"\1\2{REDACTED}", text)
        for expression in self._expressions:
            text = expression.sub(REDACTED, text)
        return text

    def _verdict(self, name: Any) -> int:
        """Return whether a name stands for a secret, and remember it."""
        said = name.decode(errors="replace") if isinstance(name, bytes) else encoding.text(name)
        plain = _SEPARATORS.sub("", said.lower())
        is_secret = plain in SECRET_NAMES or any(word in plain for word in self._words)
        if len(self._names) >= _MOST_NAMES:
            self._names = dict(_OURS)
        with contextlib.suppress(TypeError):  # A name that can't be looked up.
            self._names[name] = _SECRET if is_secret else _HARMLESS
        return _SECRET if is_secret else _HARMLESS

    def _within(self, value: Any, depth: int) -> Any:
        try:
            return self._redacted(value, depth)
        except Exception as error:  # Whatever a mapping or an iterator of the application's raises.
            return f"<{type(value).__name__} that raises {type(error).__name__}>"

    def _redacted(self, value: Any, depth: int) -> Any:
        if type(value) in _PLAIN:
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping | list | tuple | set | frozenset):
            if depth == 0:
                return "…"
            if isinstance(value, Mapping):
                return self._mapping(value, depth)
            members = list(value)
            if len(members) == _PAIR and isinstance(members[0], str | bytes) and self._is_secret(*members):
                return [members[0], REDACTED]
            kept = [self._within(one, depth - 1) for one in members[:_MOST_MEMBERS]]
            return kept if len(members) <= _MOST_MEMBERS else [*kept, f"…[{len(members)} members]…"]
        said = encoding.plain(value)
        if isinstance(said, str):
            return self.text(said)
        return self._redacted(said, depth) if type(said) is not type(value) else said

    def _mapping(self, value: Mapping[Any, Any], depth: int) -> dict[Any, Any]:
        return {
            key: REDACTED if self._is_secret(key, one) else self._within(one, depth - 1)
            for key, one in list(value.items())[:_MOST_MEMBERS]
        }

    def _is_secret(self, name: Any, value: Any) -> bool:
        try:
            verdict = self._names.get(name)
        except TypeError:
            verdict = None
        verdict = self._verdict(name) if verdict is None else verdict
        return verdict == _SECRET and not _says_nothing(name, value)

    def _assigned(self, found: re.Match[str]) -> str:
        # A server reads what is percent-encoded.
        name = unquote_plus(found[1]) if "%" in found[1] else found[1]
        return f"{found[1]}={REDACTED}" if self._is_secret(name, found[2]) else found[0]

    def _quoted(self, found: re.Match[str]) -> str:
        return f'{found[1]}"{REDACTED}"' if self._is_secret(found[2], found[3]) else found[0]


def _says_nothing(name: Any, value: Any) -> bool:
    """Return whether a value is no secret whatever it is called: none at all, yes or no, and how many tokens."""
    if value is None or isinstance(value, bool) or value == "":
        return True
    # As every number has it, a Decimal too, whose module takes a millisecond to load.
    return hasattr(value, "as_integer_ratio") and "tokens" in encoding.text(name).lower()
