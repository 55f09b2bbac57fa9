"""Removes secrets from log lines: values by the name of their key, at any depth, and parts of texts."""

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

from scaleobs.logs._encoding import MAX_LINE_BYTES, shorten, text_of, to_plain

REDACTED = "[redacted]"

SECRET_WORDS = (
    *("authorization", "cookie", "credential", "csrf", "xsrf", "jwt", "token", "sessionid", "signature"),
    *("password", "passwd", "passphrase", "passcode", "secret", "apikey", "accesskey", "privatekey"),
)
"""A name that contains one of these, in any case and with any separators, is the name of a secret."""

SECRET_NAMES = frozenset({"auth", "pass", "pwd", "session", "sid", "sig"})
"""Whole names of secrets."""

_SEPARATORS = re.compile(r"[^a-z0-9]")
_WORD = re.compile(r"[\w .-]+")
_MAX_DEPTH = 8
_PAIR = 2
_MAX_MEMBERS = MAX_LINE_BYTES // 2  # A line has no room for more.
_MAX_NAMES, _MAX_NAME = 4096, 100
_REPEATED = ("event", "client", "route")

_HARMLESS, _SECRET, _SKIPPED = range(3)
_OWN_KEYS = dict.fromkeys(("_record", "request_id", "trace_id", "span_id"), _SKIPPED)

_PLAIN = frozenset({int, float, bool, type(None), datetime, date, time, UUID})

# name=value, as in a query string, a DSN or the text of a dataclass. A match begins only at the first character of a
# name, so that a long text is read once.
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


# Compiled at the first use: this takes longer than the import of most modules.
_compiled = cache(re.compile)


class Redact:
    """
    Replaces secrets by `[redacted]`: a processor.

    The value of a key with a secret's name is replaced in the event, in nested values, and in lists of headers (text or
    bytes). In texts, the values of such names are replaced (`token=…`, `"password": "…"`), and bearer tokens and the
    passwords in URLs.

    Args:
        patterns: a word, such as `iban`, adds a name of secrets; any other pattern is a regular expression, whose
            matches in texts are replaced.
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
        self._names: dict[Any, int] = dict(_OWN_KEYS)

    def __call__(self, _logger: Any, _method: str, event: EventDict) -> EventDict:
        """Return the event with its secrets replaced."""
        names, harmless, reads_all = self._names, self._harmless, self._reads_all
        for key, value in event.items():
            try:
                verdict = names[key]
            except KeyError:
                verdict = self._verdict(key)
            if verdict:
                if verdict == _SECRET and not _is_harmless(key, value):
                    event[key] = REDACTED
                continue
            kind = type(value)
            if kind is str:
                # Most texts are one word, or were logged many times before.
                if value not in harmless and (reads_all or not value.isalnum()):
                    if reads_all or "=" in value or ":" in value or "'" in value or '"' in value or "earer" in value:
                        event[key] = self.text(value)
                    elif key in _REPEATED and len(harmless) < _MAX_NAMES and len(value) < _MAX_NAME:
                        harmless.add(value)
            elif kind not in _PLAIN:
                event[key] = self._redact(value, _MAX_DEPTH)
        return event

    def text(self, text: str) -> str:
        """Return a text without the secrets in it."""
        if len(text) > MAX_LINE_BYTES:
            text = shorten(text, MAX_LINE_BYTES)
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
        """Return whether a name is a secret's, and cache that."""
        text = name.decode(errors="replace") if isinstance(name, bytes) else text_of(name)
        plain = _SEPARATORS.sub("", text.lower())
        is_secret = plain in SECRET_NAMES or any(word in plain for word in self._words)
        if len(self._names) >= _MAX_NAMES:
            self._names = dict(_OWN_KEYS)
        with contextlib.suppress(TypeError):  # A name without a hash.
            self._names[name] = _SECRET if is_secret else _HARMLESS
        return _SECRET if is_secret else _HARMLESS

    def _redact(self, value: Any, depth: int) -> Any:
        """Return a value without its secrets; a text replaces each part that raises."""
        try:
            return self._redact_or_raise(value, depth)
        except Exception as error:  # A mapping or an iterator of the application raised.
            return f"<{type(value).__name__} that raises {type(error).__name__}>"

    def _redact_or_raise(self, value: Any, depth: int) -> Any:
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
            kept = [self._redact(one, depth - 1) for one in members[:_MAX_MEMBERS]]
            return kept if len(members) <= _MAX_MEMBERS else [*kept, f"…[{len(members)} members]…"]
        plain = to_plain(value)
        if isinstance(plain, str):
            return self.text(plain)
        return self._redact_or_raise(plain, depth) if type(plain) is not type(value) else plain

    def _mapping(self, value: Mapping[Any, Any], depth: int) -> dict[Any, Any]:
        return {
            key: REDACTED if self._is_secret(key, one) else self._redact(one, depth - 1)
            for key, one in list(value.items())[:_MAX_MEMBERS]
        }

    def _is_secret(self, name: Any, value: Any) -> bool:
        try:
            verdict = self._names.get(name)
        except TypeError:
            verdict = None
        verdict = self._verdict(name) if verdict is None else verdict
        return verdict == _SECRET and not _is_harmless(name, value)

    def _assigned(self, found: re.Match[str]) -> str:
        # A server decodes percent-encoded names.
        name = unquote_plus(found[1]) if "%" in found[1] else found[1]
        return f"{found[1]}={REDACTED}" if self._is_secret(name, found[2]) else found[0]

    def _quoted(self, found: re.Match[str]) -> str:
        return f'{found[1]}"{REDACTED}"' if self._is_secret(found[2], found[3]) else found[0]


def _is_harmless(name: Any, value: Any) -> bool:
    """Return whether a value is no secret under any name: none, empty, a truth value, or a number of tokens."""
    if value is None or isinstance(value, bool) or value == "":
        return True
    # All numbers have this method. An import of Decimal would take a millisecond.
    return hasattr(value, "as_integer_ratio") and "tokens" in text_of(name).lower()
