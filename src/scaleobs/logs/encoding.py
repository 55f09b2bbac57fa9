"""From any object to JSON on one line, never an error."""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Callable, Mapping
from datetime import date, time
from typing import Any

_DEEPEST = 8
_LISTS = (list, tuple, set, frozenset)
_EXACT: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (str, str.__str__),
    (int, int.__pos__),
    (float, float.__pos__),
)

DELETE = 0x7F
"""DEL in a line. A number is looked for ten times as fast as a piece of bytes."""

# What ends a line for some readers (NEL, U+2028, U+2029), or steers a terminal (DEL and the other C1 controls), is
# written as JSON's escape.
_STEERING = re.compile("[\x7f-\x9f\u2028\u2029]")


def encode(value: Any) -> str:
    """Return a value as JSON without a line break; see `encoded`."""
    return encoded(value).decode()


def encoded(value: Any) -> bytes:
    """
    Return a value as JSON without a line break, in UTF-8.

    What JSON has no word for becomes text, and a number that is not finite becomes `null`. Where the quick way fails
    (odd keys, a circle, great depth) the value is taken apart down to eight levels.
    """
    try:
        line = dumps(value, plain, OPTION)
    except Exception:  # Whatever a __str__, a __dict__ or a mapping of the application's raises.
        line = _slow(_taken_apart(value, _DEEPEST)).encode()
    if line.isascii() and DELETE not in line:
        return line
    return _STEERING.sub(_escape, line.decode()).encode()


def _escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def text(value: Any) -> str:
    """Return what a value says of itself, or that it can't."""
    try:
        return str(value)
    except Exception as error:
        return f"<{type(value).__name__} whose text raises {type(error).__name__}>"


def plain(value: Any) -> Any:
    """Return what JSON can say of a value that an encoder doesn't know."""
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).decode(errors="backslashreplace")
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {_key(key): item for key, item in value.items()}
    if isinstance(value, _LISTS):
        return list(value)
    for kind, exact in _EXACT:  # orjson hands over subclasses of these.
        if isinstance(value, kind):
            return exact(value)
    return text(value)


def _key(key: Any) -> str:
    """Return a key as the standard library writes it, and as text where it refuses."""
    if key is None or isinstance(key, bool):
        return {None: "null", True: "true", False: "false"}[key]
    for kind, exact in _EXACT:
        if isinstance(key, kind):
            return text(exact(key))
    return text(key)


def _taken_apart(value: Any, depth: int) -> Any:
    try:
        return _apart(value, depth)
    except Exception as error:  # An iterator, a property, an integer of more digits than Python writes.
        return f"<{type(value).__name__} that raises {type(error).__name__}>"


def _apart(value: Any, depth: int) -> Any:
    if isinstance(value, float):
        return value if -float("inf") < value < float("inf") else None
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        int.__repr__(value)
        return value
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        if depth == 0:
            return "…"
        if isinstance(value, Mapping):
            return {_key(key): _taken_apart(item, depth - 1) for key, item in value.items()}
        return [_taken_apart(item, depth - 1) for item in value]
    said = plain(value)
    return said if isinstance(said, str) else text(said)


def _encoder() -> tuple[Callable[[Any, Callable[[Any], Any], int], bytes], int]:
    """Return orjson's encoder where it is installed (`scaleobs[fast]`), and with which option both write the same."""
    try:
        import orjson
    except ImportError:
        write = json.JSONEncoder(default=plain, allow_nan=False, separators=(",", ":")).encode
        return lambda value, _default, _option: write(value).encode(), 0
    option = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS
    return orjson.dumps, option


dumps, OPTION = _encoder()
"""
The encoder itself, to be called with `plain` and `OPTION`, by place, which saves a third of its time.

It raises what values raise, and escapes only what JSON wants escaped.
"""
_slow = json.JSONEncoder(separators=(",", ":")).encode
