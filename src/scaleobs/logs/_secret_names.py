"""Which names are those of secrets, and which values are harmless under any name."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from scaleobs.logs._encoding import text_of

REDACTED = "[redacted]"

SECRET_WORDS = (
    *(
        "authorization",
        "cookie",
        "credential",
        "csrf",
        "xsrf",
        "jwt",
        "token",
        "sessionid",
        "sessionkey",
        "sessid",
        "signature",
    ),
    *("passw", "passphrase", "passcode", "pwd", "secret", "apikey", "accesskey", "privatekey", "authkey"),
    *("subscriptionkey", "signingkey", "encryptionkey", "accountkey", "sharedkey", "masterkey"),
)
"""A name that contains one of these, in any case and with any separators, is the name of a secret."""

SECRET_NAMES = frozenset({"auth", "pass", "session", "sid", "sig", "cred", "creds"})
"""Names of secrets, alone or as the last word of a longer name: `auth`, `connect.sid`, `smtp_pass`."""

_WORDS = re.compile("|".join(SECRET_WORDS))
_LAST_WORDS = tuple(SECRET_NAMES)
_HARMLESS_WORDS = re.compile(r"tokeni[sz]\w+|secretar(?:y|ies|iat)|passwordless|cookiecutter")
_HARMLESS_ENDINGS = frozenset(
    (
        *("type", "types", "count", "length", "len", "size", "limit", "limits", "usage", "budget", "format", "version"),
        *("expiry", "expires", "expiration", "ttl", "age", "lifetime", "enabled", "required", "valid", "policy"),
        *("file", "path", "dir", "stdin", "domain", "name", "names", "endpoint", "algorithm", "alg"),
    )
)
"""Last words of names that are about a secret, and not the secret itself: `token_type`, `cookie_domain`."""

_SEPARATORS = re.compile(r"[^a-z0-9]")
_PARTS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_PASS = tuple(
    f"{start}pass" for start in ("db", "user", "root", "admin", "smtp", "my", "mysql", "redis", "ldap", "mail")
)


def plain_name(name: str) -> str:
    """Return a name in lower case, without separators."""
    return _SEPARATORS.sub("", name.lower())


def is_secret_name(name: str, own_words: Iterable[str] = ()) -> bool:
    """
    Return whether a name is that of a secret.

    Args:
        name: the name.
        own_words: further words of secrets, as `plain_name` returns them.
    """
    plain = plain_name(name)
    if any(word in plain for word in own_words):
        return True
    if _WORDS.search(plain) is None:
        return plain.endswith(_LAST_WORDS) and (
            plain in SECRET_NAMES or plain.endswith(_PASS) or _PARTS.findall(name)[-1].lower() in SECRET_NAMES
        )
    if _HARMLESS_WORDS.search(plain) is not None and _WORDS.search(_HARMLESS_WORDS.sub("", plain)) is None:
        return False
    parts = _PARTS.findall(name)
    return not parts or parts[-1].lower() not in _HARMLESS_ENDINGS


def is_harmless(name: Any, value: Any) -> bool:
    """Return whether a value is no secret under any name: none, empty, a truth value, or a number of tokens."""
    kind = type(value)
    if value is None or kind is bool:
        return True
    if kind in _EMPTY:
        return not value
    # All numbers have this method. An import of Decimal would take a millisecond.
    return hasattr(kind, "as_integer_ratio") and "tokens" in text_of(name).lower()


_EMPTY = frozenset({str, bytes, list, tuple, dict, set, frozenset})


_MARKS = ("=", ":", "'", '"', "%", "--", " -", ">", "&")
_WORDS_BEFORE_SECRETS = ("bearer", "basic", "digest", "password")


def has_marks(text: str) -> bool:
    """Return whether a text may have a name with a value, credentials or a URL: most texts have none."""
    for mark in _MARKS:
        if mark in text:
            return True
    low = text.lower()
    return any(word in low for word in _WORDS_BEFORE_SECRETS)
