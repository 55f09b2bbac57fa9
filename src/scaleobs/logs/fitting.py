"""Lines that no container runtime splits: what is too long loses its middle, and says so."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from scaleobs.logs import encoding

LONGEST = 16_384
"""
Bytes of a line with its newline.

Docker's and containerd's log drivers split what is longer (moby/moby#34855).
"""

_STEPS = ((4096, 256, 8), (1024, 64, 6), (256, 16, 4), (48, 6, 2))
"""How many characters a text may keep, how many members a list or an object, and how deep they may go, step by step."""

_TOLD = 8192
"""Characters of an exception in the first step: it has been shortened already, with what matters in it."""

EXCEPTION_KEYS = ("exception", "error.stack_trace")
_MOST_KEYS = 24


def line_of(event: Mapping[str, Any]) -> bytes:
    """Return an event as one line of JSON without its newline, whatever is in it and however much."""
    line = encoding.encoded(event)
    if len(line) < LONGEST:
        return line
    whole = json.loads(line)
    for characters, members, depth in _STEPS:
        fitting = {
            shortened(key, characters): _fitted(
                value, _TOLD if key in EXCEPTION_KEYS and characters == _STEPS[0][0] else characters, members, depth
            )
            for key, value in whole.items()
        }
        fitting["truncated"] = True
        line = encoding.encoded(fitting)
        if len(line) < LONGEST:
            return line
    # So many keys that their names alone are too much. Ours stand first.
    kept = dict(list(fitting.items())[:_MOST_KEYS])
    kept |= {key: fitting[key] for key in EXCEPTION_KEYS if key in fitting}
    return encoding.encoded({**kept, "keys": len(whole), "truncated": True})


def shortened(text: str, longest: int) -> str:
    """Return a text without its middle where it is longer than that; how long it was stands there instead."""
    if len(text) <= longest:
        return text
    head = longest * 3 // 4
    return f"{text[:head]}…[{len(text)} characters]…{text[len(text) - (longest - head) :]}"


def _fitted(value: Any, characters: int, members: int, depth: int) -> Any:
    if isinstance(value, str):
        return shortened(value, characters)
    if type(value) is int and len(digits := str(value)) > characters:
        return shortened(digits, characters)
    if not isinstance(value, dict | list):
        return value
    if depth == 0:
        return f"…[{len(value)} members]…" if value else value
    if isinstance(value, list):
        kept = [_fitted(one, characters, members, depth - 1) for one in value[:members]]
        return kept if len(value) <= members else [*kept, f"…[{len(value)} members]…"]
    items = list(value.items())
    found = {shortened(key, characters): _fitted(one, characters, members, depth - 1) for key, one in items[:members]}
    return found if len(items) <= members else {**found, "…": f"[{len(items)} members]"}
