"""An exception as text: its type, message, innermost frames and root cause are there however long it is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import islice
from traceback import TracebackException
from typing import Any

from scaleobs.logs.fitting import shortened

_LONGEST = 8000
_MOST_IN_CHAIN = 6
_INNERMOST = 5
_DEEPEST_CHAIN = 1000
_FRAMES_AT_ONCE = 200

_CAUSED = "\nThe above exception was the direct cause of the following exception:\n\n"
_DURING = "\nDuring handling of the above exception, another exception occurred:\n\n"


def exception_of(exc_info: Any) -> BaseException | None:
    """Return the exception that `exc_info` of a log call means: an exception, what `sys.exc_info` returns, or true."""
    if isinstance(exc_info, tuple):
        exc_info = exc_info[1] if len(exc_info) > 1 else None
    elif exc_info and not isinstance(exc_info, BaseException):
        exc_info = sys.exc_info()[1]
    return exc_info if isinstance(exc_info, BaseException) else None


def told(error: BaseException) -> tuple[str, bool]:
    """
    Return an exception as Python prints it, and whether something was left out of it.

    Where that is too long, frames are left out from the outside, and exceptions from the middle of the chain.
    """
    chain = list(islice(_chain(error), _DEEPEST_CHAIN))
    if len(chain) <= _MOST_IN_CHAIN:
        text = "".join(_lines(error, limit=-_FRAMES_AT_ONCE, chain=True)).rstrip("\n")
        if len(text) <= _LONGEST:
            return text, _has_more_frames(error)
    picked = chain if len(chain) <= _MOST_IN_CHAIN else [*chain[: _MOST_IN_CHAIN - 1], chain[-1]]
    share = _LONGEST // len(picked)
    pieces = []
    for place, (one, joint) in enumerate(picked):
        # Its heading, its frames and its message.
        lines = _lines(one, limit=-_INNERMOST, chain=False)
        each = share // (_INNERMOST + 2)
        piece = shortened("".join(shortened(line, each) for line in lines), share)
        if place == len(picked) - 1 and len(chain) > len(picked):
            piece += f"\n\n…[{len(chain)} exceptions in this chain]…"
        pieces.append(f"{piece.rstrip()}\n{joint}")
    return "".join(reversed(pieces)).rstrip(), True


def _chain(error: BaseException) -> Iterator[tuple[BaseException, str]]:
    """Yield an exception and those that led to it, each with the words between it and what it led to."""
    seen: set[int] = set()
    joint = ""
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following, joint
        if following.__cause__ is not None:
            joint, following = _CAUSED, following.__cause__
        elif following.__suppress_context__:
            return
        else:
            joint, following = _DURING, following.__context__


def _lines(error: BaseException, *, limit: int, chain: bool) -> list[str]:
    try:
        found = TracebackException(type(error), error, error.__traceback__, limit=limit, compact=True)
        return list(found.format(chain=chain))
    except Exception as fault:  # Its attributes are properties that raise, or its source code can't be read.
        return [f"{type(error).__name__}, of which {type(fault).__name__} hides the rest\n"]


def _has_more_frames(error: BaseException) -> bool:
    frames, traceback = 0, error.__traceback__
    while traceback is not None and frames <= _FRAMES_AT_ONCE:
        frames, traceback = frames + 1, traceback.tb_next
    return frames > _FRAMES_AT_ONCE
