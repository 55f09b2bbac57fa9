"""Finds where a value in a text ends: at its quote, its bracket, or at what follows it."""

from __future__ import annotations

import re

from scaleobs.logs._work import Steps

OPEN_QUOTE = re.compile(r"[bruf]{0,2}(\\*+)([\"'`])", re.IGNORECASE)
_QUOTES = re.compile(r"(?<!\\)(\\*+)([\"'])")
_SAME_QUOTE = {quote: re.compile(rf"(?<!\\)(\\*+){quote}") for quote in "\"'`"}
_BRACKETS = re.compile(r"[\[({})\]]|(?<!\\)\\*+[\"']")
_CALL = re.compile(r"[a-z_][\w.]{0,99}(?=[\[({])", re.IGNORECASE)
# `pprint` continues a long text in the next line.
_CONTINUED = re.compile(r"[ \t]*\r?\n\s*[bru]?(?=([\"'])(?!(?:\\.|(?!\1)[^\n\\])*\1\s*:))", re.IGNORECASE)
# In a shell, 'it'"'"'s' and 'it'\\''s' are one text, and in SQL 'it''s'.
_JOINED = re.compile("'\"'\"'")
_DOUBLED = re.compile(r"(['\"`])\1|'\\\\''")
_PEM_END = re.compile("-----END [A-Z ]{0,64}-----")
_LINE_END = re.compile(r"[\r\n]|\\[rn]|(?<!\\)(\\*+)[\"']")
_OPENING = {")": "(", "]": "[", "}": "{", ">": "<"}
_NEAR = 2_000  # Characters in which the quotes around a value are searched for.


def _end_of_bare(following: str) -> re.Pattern[str]:
    """Return an expression for the ends of a value without quotes; `following` is the name after it."""
    return re.compile(
        rf"[\s&]|[,;|](?=[\s\"']|\Z|{following})|\\+[\"']|[\"']|\\[rn]|"
        rf"[)\]}}>](?=[)\]}}>]*(?:\s|\Z|[.,;:](?:[\s\"']|\Z)|[,;]{following}))"
    )


_BARE_END = {":": _end_of_bare(r"[\w.%+-]{1,64}:\s"), "=": _end_of_bare(r"[\w.%+-]{1,64}=")}


class Ends:
    """
    Returns where values of one text end.

    Args:
        text: the text.
        steps: how much may be examined; a value ends with the text after that.
    """

    __slots__ = ("_steps", "_text")

    def __init__(self, text: str, steps: Steps) -> None:
        self._text = text
        self._steps = steps

    def quoted(self, opened: re.Match[str], start: int = 0) -> tuple[int, int]:
        """
        Return where a value in quotes ends, and where its closing quote ends.

        Args:
            opened: the opening quote, as `OPEN_QUOTE` finds it.
            start: where the value begins, if that is not behind the quote.
        """
        text, quote = self._text, opened[2]
        is_plain = not opened[1]
        position = start or opened.end()
        if is_plain and not start and text.startswith(quote * 3, position - 1):
            last = text.find(quote * 3, position + 2)
            if last >= 0:
                return last, last + 3
        while (found := _SAME_QUOTE[quote].search(text, position)) is not None:
            self._steps.left -= 1
            if self._steps.left < 0:
                break
            position = found.end()
            if is_plain and (joined := _JOINED.match(text, position - 1)):
                position = joined.end()
                continue
            level = self._level(found, opened)
            if level < 0:
                return found.start(), found.start()
            if level % 2:
                continue
            if is_plain and (joined := _DOUBLED.match(text, position - 1)):
                position = joined.end()
                continue
            if (
                is_plain
                and (more := _CONTINUED.match(text, position))
                and (following := OPEN_QUOTE.match(text, more.end()))
            ):
                end = self.quoted(following)[1]
                return end - 1, end
            return position - 1 - len(opened[1]), position
        return len(text), len(text)

    def _level(self, found: re.Match[str], opened: re.Match[str]) -> int:
        """
        Return how many backslashes a quote has in the innermost text; if the number is odd, it is a part of the value.

        Each text around doubles the backslashes, and escapes the quotes that are the same as its own. The result is -1
        if the quote ends a text around the value.
        """
        backslashes = len(found[1])
        for _ in range(len(opened[1]).bit_length()):
            if backslashes % 2 == 0:
                return -1
            backslashes //= 2
        if backslashes and backslashes % 2 == 0:
            around = self._quote_around(opened.start())
            if around and around[-1] != opened[2]:
                backslashes >>= len(around).bit_length()
        return backslashes

    def brackets(self, position: int) -> int:
        """Return where the brackets end that open here."""
        text, depth = self._text, 0
        while (found := _BRACKETS.search(text, position)) is not None:
            self._steps.left -= 1
            if self._steps.left < 0:
                break
            what = found[0]
            position = found.end()
            if what in "[{(":
                depth += 1
            elif what in "]})":
                depth -= 1
                if depth == 0:
                    return position
            elif text[found.start() - 1] in " \t\n,[({:=bBrRuU":
                opened = OPEN_QUOTE.match(text, found.start())
                position = self.quoted(opened)[1] if opened else position
                position = max(position, found.end())
        return len(text)

    def bare(self, position: int, begin: int, *, stops_at_quotes: bool = False, is_after_colon: bool = False) -> int:
        """Return where a value without quotes ends."""
        text, start = self._text, position
        around: str | None = None
        call = _CALL.match(text, position)
        if call is not None:
            end = self.brackets(call.end())
            if end < len(text) or text[-1:] in ")]}":
                position = end
        search = _BARE_END[":" if is_after_colon else "="].search
        while (found := search(text, position)) is not None:
            self._steps.left -= 1
            if self._steps.left < 0:
                break
            what, position = found[0], found.end()
            if what in _OPENING:
                is_end = text.count(_OPENING[what], start, position) < text.count(what, start, position)
            elif what[-1] in "\"'" or what[0] == "\\":
                around = self._quote_around(begin) if around is None else around
                is_end = stops_at_quotes or len(what) > 1 or what == around[-1:]
                is_end = bool(around) if what[-1] in "rn" else is_end
            else:
                is_end = True
            if is_end:
                return found.start()
        return len(text)

    def pem(self, position: int) -> int:
        """Return where a key in PEM ends."""
        found = _PEM_END.search(self._text, position)
        return len(self._text) if found is None else found.end()

    def line(self, position: int, begin: int) -> int:
        """Return where a header ends: at the end of its line, or of the text in quotes that it is in."""
        text = self._text
        around = self._quote_around(begin)
        for end in _LINE_END.finditer(text, position):
            self._steps.left -= 1
            if self._steps.left < 0:
                break
            what = end[0]
            is_quote = what[-1] in "\"'"
            if what in "\r\n" or (around and (not is_quote or (what[-1] == around[-1] and len(what) <= len(around)))):
                return end.start()
        return len(text)

    def _quote_around(self, begin: int) -> str:
        """Return the innermost quote that is open at a position, with its backslashes, or an empty text."""
        text = self._text
        start = max(text.rfind("\n", 0, begin) + 1, begin - _NEAR)
        open_quotes: list[str] = []
        for found in _QUOTES.finditer(text, start, begin):
            self._steps.left -= 1
            backslashes = len(found[1])  # Those of the quote itself are 1, 3, 7 …; others are before it in the value.
            what = "\\" * ((backslashes ^ (backslashes + 1)) >> 1) + found[2]
            if what in open_quotes:
                del open_quotes[open_quotes.index(what) :]
                continue
            before = text[found.start() - 1 : found.start()] if found.start() else ""
            if before in ("b", "B", "r", "u", "f"):
                before = text[max(0, found.start() - 2) : found.start() - 1]
            if not before or not (before.isalnum() or before in ")]}.,!?"):
                open_quotes.append(what)
        return open_quotes[-1] if open_quotes else ""
