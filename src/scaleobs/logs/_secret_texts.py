"""
Replaces secrets in a text: what follows a secret's name in any usual notation, credentials, and user info of URLs.

A text may be a part of another one: JSON in JSON, the `repr` of a dict in a message, a header in a shell command. So
the quotes, brackets and escapes around a value decide where it ends. If they leave a doubt, the longer value is
replaced.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

from scaleobs.logs import _secret_notations as notations
from scaleobs.logs._secret_names import REDACTED
from scaleobs.logs._secret_values import OPEN_QUOTE, Ends
from scaleobs.logs._url_secrets import MAX_USER_INFO, user_info
from scaleobs.logs._work import Steps

_GAP = "[-_. +]?"
_KEYS = ("api", "access", "private", "auth", "subscription", "signing", "encryption", "account", "shared", "master")
_BEFORE_KEY = "|".join(f"(?<={name}key)|(?<={name}[-_. +]key)" for name in _KEYS)
_SITES = (
    r"auth(?=oriz|[^a-z]|\Z)|cookie|cred(?=ential|s)|csrf|xsrf|jwt|token|sid(?![a-z])|sig(?=nature|[^a-z]|\Z)|secret|"
    rf"sess(?=id|ion{_GAP}id|ion{_GAP}key|ion[^a-z]|ion\Z)|key(?:{_BEFORE_KEY})|-----begin [a-z ]*private key|pwd|"
    rf"pass(?=w|{_GAP}phrase|{_GAP}code|{_GAP}word|[^a-z]|\Z)|bearer(?=[ \t+]|%20)|basic(?=[ \t+]|%20)|"
    r"digest(?=[ \t+]|%20)|--user(?=[ =])| -u(?= )|identified by(?= [\"'])|:\\?/\\?/|input_value="
)


@cache
def sites(words: tuple[str, ...] = ()) -> re.Pattern[str]:
    """Return an expression for where a secret may begin in a text in lower case; `words` are further names."""
    return re.compile("|".join((_SITES, *(_GAP.join(map(re.escape, word)) for word in words))))


_SCHEMES = ("bearer", "basic", "digest")
_USER_FLAGS = ("--user", " -u")  # Of curl.
_USER = re.compile(r"[ =](?:\\*[\"'])?[^\s:\"']{1,64}:")
_LOGIN = re.compile(r"\blogin\s+\S+\s+\Z")  # In a .netrc file.
_IN_CONNECTION_STRING = re.compile(r"[^;\n\"']*(?=;\s*\w[\w ]*=)")
_NAME_REST = re.compile(r"[\w.+-]*")
_MAX_NAME_START = 64
_NEAR, _FAR = 16, 20_000

_CLOSED = {quote: re.compile(rf"(\\*){quote}\s*") for quote in "\"'"}
_AFTER_QUOTED = re.compile(r"(?:\](?=\s*=))?\s*(=>|:=|[:=,])\s*")
_ASSIGNED = re.compile(
    r"(?:\]|\[[\w.-]{0,32}\]|%5D|%5B[\w.-]{0,32}%5D)*[ \t]*(=>|:=|[=!]==?|=|:(?!:|//))[ \t]*", re.IGNORECASE
)
_SPACE = re.compile(r"[ \t]+")
_AFTER_SCHEME = re.compile(r"(?:[ \t+]|%20)+")
_ANGLES = re.compile(r"<[^<>\n]*+(?:<[^<>\n]*+>[^<>\n]*+)*+>")
_MORE_COOKIES = re.compile(r"(?:[ \t]*[;,][ \t]*[^\s;,=\"']+=[^\s;,\"']*)+")
_SCHEME = re.compile(
    r"(?:bearer|basic|digest|token|negotiate|ntlm|api-?key|hawk|mac|hmac|dpop|jwt|aws4-hmac-sha256|"
    r"sharedaccesssignature|gnap|scram-sha-\d+)(?=[ \t])",
    re.IGNORECASE,
)
_PARAMETER = r"[\w-]{1,64}=(?:\\*+\"[^\"]*+\"|'[^']*+'|(?:[^\s,;\"']|;(?=[^\s;]))++)"
_PARAMETERS = re.compile(rf"{_PARAMETER}(?:[ \t]*[,;][ \t]*{_PARAMETER})*")
_CHALLENGE = re.compile(r"(?:realm|scope|error|charset|nonce|qop|domain|algorithm|stale)=", re.IGNORECASE)
_ANNOTATED = re.compile(r"(?:[ \t]*\|[ \t]*[\w.]+)*[ \t]*=(?!=)[ \t]*")
_CONSTANT = re.compile(r"none|null|nil|true|false|undefined|nan|\*{3,}|\[redacted\]|\.\.\.|%s|%r|", re.IGNORECASE)
_NUMBER = re.compile(r"[-+]?[\d_]+(?:\.\d*)?(?:e[-+]?\d+)?", re.IGNORECASE)
_PORT = re.compile(r"\d{1,5}(?![\w.@-])")
_WORD = re.compile(r"[A-Z]?[a-z]+[.,:;!?]?(?=\s|\Z)")
_IN_PROSE = frozenset(
    (
        *("token", "tokens", "authentication", "authorization", "scheme", "schemes", "credential", "credentials"),
        *("header", "headers", "format", "access", "certificate", "without", "instead", "security", "bearer"),
        *("required", "missing", "invalid", "expired", "support", "method", "methods", "should", "cannot"),
    )
)
_MIN_TOKEN = 6


def lower(text: str) -> str:
    """Return a text in lower case, of the same length."""
    return (text if text.isascii() else text.replace("\u0130", "I")).lower()


class Scan:
    """
    Reads a text once, from the left.

    Args:
        text: the text.
        low: the same in lower case.
        is_secret: returns whether a name is a secret's.
        expression: see `sites`.
        steps: how much may be examined; what is left after that is cut off.

    Attributes:
        is_open: whether a secret value has no end in this text.
    """

    def __init__(
        self, text: str, low: str, is_secret: Callable[[str], bool], expression: re.Pattern[str], steps: Steps
    ) -> None:
        self.is_open = False
        self._text = text
        self._low = low
        self._is_secret = is_secret
        self._expression = expression
        self._steps = steps
        self._ends = Ends(text, steps)
        self._pieces: list[str] = []
        self._done = 0

    def run(self, first: re.Match[str]) -> str:
        """Return the text without its secrets; the first place where one may begin is given."""
        text, low, search, steps = self._text, self._low, self._expression.search, self._steps
        found: re.Match[str] | None = first
        while found is not None:
            steps.left -= 1
            if steps.left < 0:
                begin = max(self._done, found.start() - _MAX_NAME_START)
                self._replace(begin, len(text), f"…[{len(text) - begin} characters]…")
                self.is_open = True
                break
            what = found[0]
            if what[0] == ":":
                position = self._url(found.start(), found.end())
            elif what in _USER_FLAGS:
                position = self._user(found.start(), found.end())
            elif what == "identified by":
                position = self._value(found.end() + 1, found.start(), "", name="password")
            elif what[0] == "-":
                position = self._replace(found.start(), self._ends.pem(found.start()), REDACTED)
            elif what in _SCHEMES:
                position = self._credentials_after(found.start(), found.end())
            elif what == "input_value=":
                span = notations.shortened_input(text, found.end())
                position = self._replace(*span, REDACTED) if span else found.end()
            else:
                position = self._name(found.start(), found.end())
            found = search(low, position)
        return "".join((*self._pieces, text[self._done :]))

    def _replace(self, begin: int, end: int, replacement: str) -> int:
        self._pieces += (self._text[self._done : begin], replacement)
        self._done = end
        self.is_open = self.is_open or end >= len(self._text)
        return end

    # Where a secret begins.

    def _name(self, start: int, end: int) -> int:
        """Replace the value of a name that has a secret's word in it; return where to continue."""
        text = self._text
        end = _NAME_REST.match(text, end).end()  # type: ignore[union-attr] # It matches the empty text, too.
        before = text[max(self._done, start - _MAX_NAME_START) : start][::-1]
        begin = start - _NAME_REST.match(before).end()  # type: ignore[union-attr]
        name = text[begin:end].rstrip(".")
        if not self._is_secret(name):
            return end
        self._steps.left -= 1
        end = begin + len(name)
        preceding = text[begin - 1] if begin else ""
        if preceding in ('"', "'") and (closed := _CLOSED[preceding].match(text, end)):
            return self._after_quoted_name(begin, closed, name)
        span = notations.value(text, begin, end, self._ends)
        if span is not None:
            return self._replace(*span, REDACTED) if span[1] > span[0] else span[1]
        if found := _ASSIGNED.match(text, end):
            return self._assigned(begin, found, name)
        if found := _SPACE.match(text, end):
            is_value = name[0] == "-" and not text.startswith("--", found.end())
            if not is_value and _is_password(name):
                is_value = text[found.end() : found.end() + 1] in ("'", '"')
                is_value = is_value or _LOGIN.search(text[max(0, begin - _MAX_NAME_START) : begin]) is not None
            if is_value:
                return self._value(found.end(), begin, "", name=name)
        return end

    def _after_quoted_name(self, begin: int, closed: re.Match[str], name: str) -> int:
        text, end = self._text, closed.end()
        self._steps.left -= 1
        key_quote = f"{closed[1]}{text[begin - 1]}"
        span = notations.form_field(text, begin, closed.end(1) + 1)
        if span is not None:
            return self._replace(*span, REDACTED)
        if notations.is_value(text, begin):
            beside = notations.value_beside(text, self._done, begin, end, key_quote, self._steps)
            return end if beside is None else max(end, self._value(beside, begin, key_quote, name=name))
        found = _AFTER_QUOTED.match(text, end)
        if found is None or (found[1] == "," and not self._is_pair(begin, found.end(), name)):
            return end
        return self._value(found.end(), begin, key_quote, name=name)

    def _is_pair(self, begin: int, position: int, name: str) -> bool:
        """Return whether a name and a value make a pair: not if it is one name in a list of names."""
        opened = OPEN_QUOTE.match(self._text, position)
        if name[0] == "-":
            return opened is not None
        lead = self._text[max(0, begin - _NEAR) : begin].rstrip("\\\"'bB \n\t")
        if lead[-1:] not in ("(", "["):
            return False
        end = self._ends.quoted(opened)[1] if opened else self._ends.bare(position, position, stops_at_quotes=True)
        following = self._text[end : end + _NEAR].lstrip()
        return not following or following[0] in ")]"

    def _assigned(self, begin: int, found: re.Match[str], name: str) -> int:
        text, position, operator = self._text, found.end(), found[1]
        if operator == ":":
            return self._after_colon(begin, position, name, has_space=position > found.end(1))
        is_argument = name[0] == "-" or name.isupper()  # Or a variable of the environment.
        if operator[0] == "=" and is_argument and begin and text[begin - 1] in "\"'":
            return self._rest_of_argument(found.start(1) + 1, begin)
        if text[begin - 1 : begin] == ";" and (rest := _IN_CONNECTION_STRING.match(text, position)):
            return self._replace(position, rest.end(), REDACTED) if rest[0] else position
        is_comparison = operator[-2:] == "==" or operator[0] == "!"
        if is_comparison and position > found.end(1) and text[position : position + 1] not in ("'", '"'):
            return position
        return self._value(position, begin, "", name=name)

    def _after_colon(self, begin: int, position: int, name: str, *, has_space: bool) -> int:
        text, low = self._text, name.lower()
        first = text[position : position + 1]
        if first in ("\n", "\r", "|", ">", ""):
            span = notations.block(text, position, begin, self._steps)
            return self._replace(*span, f" {REDACTED}") if span else position
        is_line = any(word in low for word in ("authorization", "cookie", "phrase"))
        if is_line and first not in "[{(" and OPEN_QUOTE.match(text, position) is None:
            end = self._ends.line(position, begin)
            return end if _CONSTANT.fullmatch(text, position, end) else self._replace(position, end, REDACTED)
        is_host = "." in name or "-" in name or text[begin - 1 : begin] in ("/", "@")
        if is_host and not has_space and _PORT.match(text, position):
            return position
        if low in ("auth", "session", "pass") and _WORD.match(text, position):
            return position  # In prose: "auth: failed".
        return self._value(position, begin, "", name=name, is_annotated=True)

    def _credentials_after(self, start: int, end: int) -> int:
        """Replace credentials after their scheme, if these are credentials."""
        text = self._text
        if start and (text[start - 1].isalnum() or text[start - 1] in "_-"):
            return end
        position = _AFTER_SCHEME.match(text, end).end()  # type: ignore[union-attr] # It is a part of the site.
        if _CHALLENGE.match(text, position):
            return position
        parameters = _PARAMETERS.match(text, position)
        last = self._ends.bare(position, start, stops_at_quotes=True)
        value = text[position:last]
        scheme = self._low[start:end]
        if scheme == "digest":
            is_secret = parameters is not None and ("response=" in parameters[0] or "username=" in parameters[0])
        elif value.isalpha() and (value.islower() or value.istitle()):
            is_secret = scheme == "bearer" and len(value) >= _MIN_TOKEN and value.lower() not in _IN_PROSE
        else:
            is_secret = len(value.rstrip(".,:;!?-")) > 1 and not _WORD.fullmatch(value)
        if not is_secret:
            return position
        return self._replace(position, max(last, parameters.end() if parameters else 0), REDACTED)

    def _user(self, start: int, end: int) -> int:
        """Replace the password in `curl -u user:password`; other programs have a group there."""
        found = _USER.match(self._text, end)
        if found is None or self._low.rfind("curl", max(0, start - _FAR), start) < 0:
            return end
        last = self._ends.bare(found.end(), start)
        return self._replace(found.end(), last, REDACTED) if last > found.end() else last

    def _url(self, start: int, end: int) -> int:
        if self._text.find("@", end, end + MAX_USER_INFO) < 0:
            return end
        self._steps.left -= 2
        found = user_info(self._text, start, end)
        if found is None:
            return end
        return self._replace(*found, REDACTED)

    def _rest_of_argument(self, position: int, begin: int) -> int:
        """Replace the rest of an argument in a list of arguments: `['mysql', '--password=a b']`."""
        quote = begin - 1
        while quote > max(0, begin - _MAX_NAME_START) and self._text[quote - 1] == "\\":
            quote -= 1
        opened = OPEN_QUOTE.match(self._text, quote)
        end = self._ends.quoted(opened, position)[0] if opened else position
        return self._replace(position, end, REDACTED) if end > position else end

    # Its value.

    def _value(self, position: int, begin: int, key_quote: str, *, name: str, is_annotated: bool = False) -> int:
        """Replace the value at a position; return where to continue."""
        text = self._text
        opened = OPEN_QUOTE.match(text, position)
        if opened is not None:
            inner_end, end = self._ends.quoted(opened)
            if self._is_harmless(text[opened.end() : inner_end], name):
                return end
            return self._replace(opened.end(), inner_end, REDACTED) and self._skip_to(inner_end, end)
        first = text[position : position + 1]
        if first and first in "[{(":
            end = self._ends.brackets(position)
            if not text[position + 1 : end - 1].strip() or text[position:end] == REDACTED:
                return end
            return self._replace(position, end, f"{key_quote}{REDACTED}{key_quote}")
        if first == "<" and (angles := _ANGLES.match(text, position)):
            return self._replace(position, angles.end(), f"{key_quote}{REDACTED}{key_quote}")
        return self._bare(position, begin, key_quote, name=name, is_annotated=is_annotated)

    def _skip_to(self, inner_end: int, end: int) -> int:
        """Continue after the quote that ends a value, which stays."""
        closing = self._text[inner_end:end]
        self._pieces.append(closing)
        self._done = end
        return end

    def _bare(
        self,
        position: int,
        begin: int,
        key_quote: str,
        *,
        name: str,
        is_annotated: bool = False,
    ) -> int:
        text = self._text
        if text.startswith("-----BEGIN", position):
            return self._replace(position, self._ends.pem(position), f"{key_quote}{REDACTED}{key_quote}")
        end = self._ends.bare(position, begin, is_after_colon=is_annotated)
        if end == position or self._is_harmless(text[position:end].rstrip(".,;:"), name):
            return max(end, position)
        scheme = _SCHEME.match(text, position)
        if scheme is not None:
            end = _SPACE.match(text, scheme.end()).end()  # type: ignore[union-attr]
            parameters = _PARAMETERS.match(text, end)
            end = max(self._ends.bare(end, begin), parameters.end() if parameters else 0)
        elif "cookie" in name.lower() and (more := _MORE_COOKIES.match(text, end)):
            end = more.end()
        elif is_annotated and (annotated := _ANNOTATED.match(text, end)):
            return self._value(annotated.end(), begin, key_quote, name=name)
        while end > position + 1 and text[end - 1] in ".,;:":
            end -= 1
        return self._replace(position, end, f"{key_quote}{REDACTED}{key_quote}")

    def _is_harmless(self, value: str, name: str) -> bool:
        if _CONSTANT.fullmatch(value):
            return True
        return "tokens" in name.lower() and _NUMBER.fullmatch(value) is not None


def _is_password(name: str) -> bool:
    low = name.lower()
    return "passw" in low or "phrase" in low or "pwd" in low
