"""
The text of an exception, with its chain and the members of its groups.

Python's own format is used if it is short, and if the methods of the exception do not raise.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from traceback import StackSummary, TracebackException, walk_tb
from typing import Any

from scaleobs.logs._encoding import name_of, shorten

_MAX_EXCEPTION = 8000
_MAX_CHAIN = 6
_INNERMOST_FRAMES = 5
_MAX_CHAIN_READ = 1000
_MAX_FRAMES = 200
_MAX_LINKED = 30

_CAUSED = "\nThe above exception was the direct cause of the following exception:\n\n"
_DURING = "\nDuring handling of the above exception, another exception occurred:\n\n"


def exception_of(exc_info: Any) -> BaseException | None:
    """Return the exception that `exc_info` means: an exception, the tuple of `sys.exc_info`, or true."""
    if isinstance(exc_info, BaseException):  # Before other tests, since its truth and its `__class__` may raise.
        return exc_info
    if isinstance(exc_info, tuple):
        exc_info = exc_info[1] if len(exc_info) > 1 else None
    elif _is_true(exc_info):
        exc_info = sys.exc_info()[1]
    return exc_info if isinstance(exc_info, BaseException) else None


def _is_true(value: Any) -> bool:
    try:
        return bool(value)
    except Exception:  # An array of numpy has no truth value.
        return False


def as_exc_info(error: BaseException) -> tuple[type[BaseException], BaseException, Any]:
    """Return what `sys.exc_info` would return, without the methods of the error."""
    return type(error), error, traceback_of(error)


def is_printable(error: BaseException) -> bool:
    """Return whether Python prints an exception; if not, a formatter of stdlib logging loses the line."""
    try:
        "".join(TracebackException(type(error), error, traceback_of(error), limit=0).format())
    except BaseException:  # Maybe a `SystemExit`.
        return False
    return True


def exception_text(error: BaseException, redact: Callable[[str], str] = str) -> tuple[str, bool]:
    """
    Return an exception as Python prints it, and whether a part was left out.

    If the text is too long, outer frames are left out, and exceptions in the middle of the chain. The type, the
    message, the innermost frames and the root cause always remain.

    Args:
        error: the exception.
        redact: returns a text without its secrets; called for what is shortened, since a part of a secret may be at
            each end of the part that is left out.
    """
    chain = list(islice(_causes(error), _MAX_CHAIN_READ))
    linked = _linked(error)
    if len(chain) <= _MAX_CHAIN and len(linked) <= _MAX_LINKED and not any(map(_is_huge, linked)):
        limit = -max(_INNERMOST_FRAMES, _MAX_FRAMES * len(chain) // len(linked))
        text = "".join(_format(error, limit=limit, chain=True)).rstrip("\n")
        if len(text) <= _MAX_EXCEPTION:
            return text, _has_more_frames(error)
    picked = chain if len(chain) <= _MAX_CHAIN else [*chain[: _MAX_CHAIN - 1], chain[-1]]
    share = _MAX_EXCEPTION // len(picked)
    pieces = []
    for position, (one, joint) in enumerate(picked):
        # The heading, the frames and the message.
        is_a_group = _is_group(one)
        is_plain = is_a_group or _is_huge(one)
        lines = (_plain_lines if is_plain else _format_alone)(one, -_INNERMOST_FRAMES)
        each = share // (_INNERMOST_FRAMES + 2) // (1 + is_a_group)
        piece = shorten("".join(shorten(redact(line), each) for line in lines), share // (1 + is_a_group))
        if is_a_group:
            piece += _members_text(one, share - len(piece), redact)
        if position == len(picked) - 1 and len(chain) > len(picked):
            piece += f"\n\n…[{len(chain)} exceptions in this chain]…"
        pieces.append(f"{piece.rstrip()}\n{joint}")
    return "".join(reversed(pieces)).rstrip(), True


# The attributes of `BaseException` itself, which no class of an application can replace by code that raises.
_CAUSE, _CONTEXT, _SUPPRESSES, _TRACEBACK, _VALUES = (
    vars(BaseException)[name]
    for name in ("__cause__", "__context__", "__suppress_context__", "__traceback__", "__dict__")
)


def led_to(error: BaseException) -> list[BaseException]:
    """Return the cause of an exception, or else its context, and the members of a group."""
    cause = _CAUSE.__get__(error)
    found = [_CONTEXT.__get__(error) if cause is None else cause]
    if issubclass(type(error), BaseExceptionGroup):
        found += vars(BaseExceptionGroup)["exceptions"].__get__(error)
    return [one for one in found if one is not None]


def traceback_of(error: BaseException) -> Any:
    """Return the traceback of an exception, or `None`."""
    return _TRACEBACK.__get__(error)


def values_of(error: BaseException) -> dict[str, Any]:
    """Return the values that an exception itself has, without what its class makes of them."""
    return _VALUES.__get__(error)  # type: ignore[no-any-return]


def _causes(error: BaseException) -> Iterator[tuple[BaseException, str]]:
    """Yield an exception and those that led to it, each with Python's sentence between it and the one it led to."""
    seen: set[int] = set()
    joint = ""
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following, joint
        cause, context = _CAUSE.__get__(following), _CONTEXT.__get__(following)
        if cause is not None:
            joint, following = _CAUSED, cause
        elif _SUPPRESSES.__get__(following):
            return
        else:
            joint, following = _DURING, context


def _format(error: BaseException, *, limit: int, chain: bool) -> list[str]:
    try:
        found = TracebackException(
            type(error), error, traceback_of(error), limit=limit, compact=True, max_group_width=_MAX_LINKED
        )
        return list(found.format(chain=chain))
    except BaseException:  # A method of the error raises, maybe a `SystemExit`; or the source can't be read.
        return _plain_lines(error, limit)


def _format_alone(error: BaseException, limit: int) -> list[str]:
    return _format(error, limit=limit, chain=False)


def _has_more_frames(error: BaseException) -> bool:
    frames, traceback = 0, traceback_of(error)
    while traceback is not None and frames <= _MAX_FRAMES:
        frames, traceback = frames + 1, traceback.tb_next
    return frames > _MAX_FRAMES


# Groups.

_MAX_MEMBERS = 1000
_MAX_NESTED, _MAX_LABEL = 100_000, 20
_ATTEMPTS = ((1000, True), (300, True), (120, True), (120, False), (60, False), (40, False))
"""The characters of each member, and whether all causes are written, or only that of the last member."""

_MAX_TEXT = 65_536
_MAX_ROWS, _MAX_STEPS = 180, 2000
_MAX_REDACTED, _MOST_REDACTED, _LEAST_REDACTED = 6000, 2000, 100
"""The characters that are searched for secrets: of all members, at most of one, and of each that comes after those."""

_LAST, _MAX_TYPES, _MAX_MIDDLE, _MIN_FOR_PLACE = 10, 10, 300, 120
_ARGUMENTS = vars(BaseException)["args"]
_QUALNAME, _MODULE = vars(type)["__qualname__"], vars(type)["__module__"]
_MEMBERS = vars(BaseExceptionGroup)["exceptions"]


def _is_group(error: BaseException) -> bool:
    """Return whether an exception has members."""
    return issubclass(type(error), BaseExceptionGroup)


def _linked(error: BaseException) -> list[BaseException]:
    """Return the exceptions that an exception refers to, itself first; if they are many, too many of them."""
    found, seen = [error], {id(error)}
    for one in found:
        linked = led_to(one)
        if len(linked) > _MAX_LINKED:  # Perhaps the same exception many times.
            return [*found, *linked]
        for other in linked:
            if id(other) not in seen and len(found) <= _MAX_LINKED:
                seen.add(id(other))
                found.append(other)
    return found


def _is_huge(error: BaseException) -> bool:
    """Return whether the text of an exception would take long."""
    return any(type(one) in (str, bytes) and len(one) > _MAX_TEXT for one in _ARGUMENTS.__get__(error)[:10])


def _plain_lines(error: BaseException, limit: int) -> list[str]:
    """Return the stack and the last line of an exception, without its chain, its members and its notes."""
    lines = []
    try:
        frames = StackSummary.extract(walk_tb(traceback_of(error)), limit=limit).format()
        lines = ["Traceback (most recent call last):\n", *frames] if frames else []
    except Exception:  # The source can't be read, e.g. while the interpreter ends.
        lines = _frames_without_source(traceback_of(error), -limit)
    return [*lines, f"{_summary(error)}\n"]


def _summary(error: BaseException) -> str:
    """Return the type and the message of an exception, as Python prints them."""
    kind = type(error)
    try:
        module = _MODULE.__get__(kind)
        name = _QUALNAME.__get__(kind)
        name = name if module in ("builtins", "__main__") else f"{module}.{name}"
    except Exception:
        name = name_of(error)
    try:
        text = _beginning(error) if _is_huge(error) else str(error)[:_MAX_TEXT]
    except BaseException as fault:  # Maybe a `SystemExit`.
        text = f"<its text raises {name_of(fault)}>"
    return f"{name}: {text}" if text else name


def _beginning(error: BaseException) -> str:
    """Return the beginning of the text of an exception with very long arguments."""
    arguments = [one[:_MAX_TEXT] if type(one) in (str, bytes) else one for one in _ARGUMENTS.__get__(error)[:10]]
    return str(arguments[0] if len(arguments) == 1 else tuple(arguments))[:_MAX_TEXT]


def _members_text(group: BaseException, limit: int, redact: Callable[[str], str]) -> str:
    """
    Return one line for each member of a group, in so many characters: its type, message and place, and its root cause.

    Equal members share a line. If there are too many others, the last of them have one, and the first as far as there
    is room; the types of the others are counted.
    """
    labels: dict[tuple[str, str, str], list[str]] = {}
    steps = _MAX_STEPS
    for label, one in _members(group):
        cause, steps = _root_cause(one, steps)
        text = _summary(one), _place(one), "" if cause is None else _summary(cause)
        labels.setdefault(text, []).append(label)
    texts = list(labels.items())
    between = texts[_MAX_ROWS:-_LAST]
    room, rows = _MAX_REDACTED, []
    for text, own in [*texts[:_MAX_ROWS], *texts[max(_MAX_ROWS, len(texts) - _LAST) :]]:
        message, cause_text = (
            _head(one, max(min(room, _MOST_REDACTED), _LEAST_REDACTED)) for one in (text[0], text[2])
        )
        room -= len(message) + len(cause_text)
        rows.append((_joined(own), redact(message), text[1], redact(cause_text)))
    for characters, has_causes in _ATTEMPTS:
        lines = [_line(*row, characters, has_cause=has_causes or row is rows[-1]) for row in rows]
        if sum(map(len, lines)) <= limit and not between:
            return "".join(lines)
    last = lines[-_LAST:]
    room, first = limit - _MAX_MIDDLE - sum(map(len, last)), list[str]()
    for line in lines[:-_LAST]:
        if len(line) > room:
            break
        room -= len(line)
        first.append(line)
    left_out = [row[1] for row in rows[len(first) : -_LAST]] + [text[0] for text, _ in between]
    kinds = Counter(one.partition(":")[0] for one in left_out)
    counts = shorten(", ".join(f"{name} x {count}" for name, count in kinds.most_common(_MAX_TYPES)), _MAX_MIDDLE - 60)
    return "".join([*first, f"  | …[{len(left_out)} more members: {counts}]…\n", *last])


def _head(text: str, limit: int) -> str:
    """Return the beginning of a text, which has no part of a URL: a password in it is found by what follows."""
    if len(text) <= limit:
        return text
    words, space, last = text[:limit].rpartition(" ")
    return f"{words}{space}{'' if '://' in last else last}…[{len(text)} characters]…"


def _joined(labels: list[str]) -> str:
    return labels[0] if len(labels) == 1 else f"{labels[0]} and {len(labels) - 1} more"


def _line(label: str, own: str, place: str, cause: str, characters: int, *, has_cause: bool) -> str:
    line = f"  | {label} {_cut(own, characters)}{place if characters >= _MIN_FOR_PLACE else ''}\n"
    return line + f"  |    caused by {shorten(cause, max(characters, 120))}\n" if has_cause and cause else line


def _cut(text: str, limit: int) -> str:
    """Return a text in so many characters, without its length if that would take half of them."""
    if limit >= _MIN_FOR_PLACE:
        return shorten(text, limit)
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _place(error: BaseException) -> str:
    """Return the innermost frame of an exception."""
    traceback = traceback_of(error)
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return ""
    code = traceback.tb_frame.f_code
    return f" ({shorten(code.co_filename, 100)}:{traceback.tb_lineno}, in {code.co_name})"


def _members(group: BaseException) -> Iterator[tuple[str, BaseException]]:
    """Yield the members of a group and of the groups in it, with their numbers; the innermost last one in any case."""
    last = group
    for _ in range(_MAX_NESTED):
        if not _is_group(last):
            break
        last = _MEMBERS.__get__(last)[-1]
    pending, count = [("", group)], 0
    while pending:
        label, one = pending.pop()
        if one is not group:
            count += 1
            yield (label if len(label) <= _MAX_LABEL else f"…{label[-_MAX_LABEL:]}"), one
            if count >= _MAX_MEMBERS:
                if one is not last:
                    yield "…", last
                return
        if _is_group(one):
            prefix = f"{label[-_MAX_LABEL * 2 :]}." if label else ""
            members = list(enumerate(_MEMBERS.__get__(one)[:_MAX_MEMBERS], 1))
            pending += [(f"{prefix}{number}", member) for number, member in reversed(members)]


def _root_cause(error: BaseException, steps: int) -> tuple[BaseException | None, int]:
    """Return the first exception that led to a member, `None` if there is no other, and the steps that are left."""
    found, seen = error, {id(error)}
    while steps > 0:
        following = _cause_of(found)
        if following is None or id(following) in seen:
            break
        seen.add(id(following))
        found = following
        steps -= 1
    return (None if found is error else found), steps


def _cause_of(error: BaseException) -> BaseException | None:
    """Return the cause of an exception, or else its context unless that is suppressed."""
    cause: BaseException | None = _CAUSE.__get__(error)
    if cause is not None or _SUPPRESSES.__get__(error):
        return cause
    context: BaseException | None = _CONTEXT.__get__(error)
    return context


def _frames_without_source(traceback: Any, limit: int) -> list[str]:
    frames = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        frames.append(f'  File "{code.co_filename}", line {traceback.tb_lineno}, in {code.co_name}\n')
        traceback = traceback.tb_next
    return ["Traceback (most recent call last):\n", *frames[-limit:]] if frames else []
