"""Finds the secret in the user info of a URL, also if it has characters that a URL must not have there."""

from __future__ import annotations

import re

_SCHEME_BACKWARDS = re.compile(r"[a-z0-9+.-]*", re.IGNORECASE)
_RUN = re.compile(r"[^\s<>\"'`]*")
_RUN_WITH_QUOTES = re.compile(r"[^\s<>]*")
_AUTHORITY_END = re.compile(r"[/?#\"'\\]")
_PORT = re.compile(r"\d{1,5}")
_USER = re.compile(r"[a-z]+(?:[._-][a-z]+)*", re.IGNORECASE)
_WEB = ("http", "https", "ws", "wss")
_WEB_USERS = ("git", "user", "username", "anonymous", "guest")
_TOKEN = re.compile(r"(?:gh[a-z]|github_pat|glpat|sk|pk|xox[a-z])[_-]", re.IGNORECASE)
_MAX_SCHEME = 32
_LONG_USER, _SHORT_TOKEN = 16, 20
_NO_PASSWORDS = ("", "x", "x-oauth-basic", "x-token-auth", "oauth2")
MAX_USER_INFO = 4096


def user_info(text: str, start: int, end: int) -> tuple[int, int] | None:
    """
    Return where the secret of a URL begins and ends, or `None` if it has none.

    A URL with a password ends at its last `@`, also behind a `/`: the password may have any character.

    Args:
        text: the text that the URL is in.
        start: where `://` begins.
        end: where it ends.
    """
    run = _RUN.match(text, end, end + MAX_USER_INFO)[0]  # type: ignore[index] # It matches the empty text, too.
    before = text[max(0, start - _MAX_SCHEME) : start][::-1]
    scheme = _SCHEME_BACKWARDS.match(before)[0][::-1].lower()  # type: ignore[index]
    quote = before[len(scheme) : len(scheme) + 1]
    following = text[end + len(run) : end + len(run) + 1]
    if "@" not in run and following in ("'", '"') and quote != following:
        run = _RUN_WITH_QUOTES.match(text, end, end + MAX_USER_INFO)[0]  # type: ignore[index]
    another = run.find("://")
    if another >= 0:
        run = run[:another].rstrip("abcdefghijklmnopqrstuvwxyz+")
    if "@" not in run:
        return None
    stop = _AUTHORITY_END.search(run)
    authority = run[: stop.start()] if stop else run
    user, colon, password = authority.partition(":")
    if "@" in user:  # There is no password; what follows the `@` is the host.
        name = user.partition("@")[0]
        if scheme in _WEB:
            is_name = name in _WEB_USERS
        else:
            is_name = len(name) <= _LONG_USER and _USER.fullmatch(name) is not None and not _TOKEN.match(name)
        return None if not name or is_name else (end, end + len(name))
    if not colon or authority.startswith("["):
        return None
    if "@" not in authority and scheme in _WEB and _PORT.fullmatch(password):
        return None  # A host and its port; the `@` is in the path.
    last = run.rindex("@")
    is_token = len(user) >= _SHORT_TOKEN or _TOKEN.match(user) is not None or run[len(user) + 1 : last] in _NO_PASSWORDS
    is_token = is_token and (not _USER.fullmatch(user) or _TOKEN.match(user) is not None)
    begin = 0 if is_token else len(user) + 1
    return None if begin == last else (end + begin, end + last)
