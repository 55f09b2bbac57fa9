"""JSON on one line: any value, and an event that is truncated if it is too long."""

from __future__ import annotations

import enum
import json
import re
from codecs import utf_8_decode
from collections.abc import Callable, Mapping
from datetime import date, time
from itertools import islice
from typing import Any

MAX_LINE_BYTES = 16_384
"""
The length of a line with its newline.

Docker's and containerd's log drivers split longer lines (moby/moby#34855).
"""

DELETE = 0x7F
"""DEL in a line. The search for a number in bytes takes a tenth of the time of a search for bytes."""

# These end a line for some readers (NEL, U+2028, U+2029) or control a terminal (DEL, the other C1 controls). They are
# written as JSON's escapes.
_CONTROL = re.compile("[\x7f-\x9f\u2028\u2029]")

_MAX_DEPTH = 8
_MAX_NODES = 10_000
CIRCULAR = "…[circular reference]…"
_LISTS = (list, tuple, set, frozenset)
_MAX_BYTES, _MAX_INVALID_BYTES = 65_536, 1024
_ESCAPES = {0xDC00 + byte: f"\\x{byte:02x}" for byte in range(0x80, 0x100)}
_EXACT: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (str, str.__str__),
    (int, int.__pos__),
    (float, float.__pos__),
)


def encode(value: Any) -> str:
    """Return a value as JSON text without a line break; see `encode_utf8`."""
    return encode_utf8(value).decode()


def encode_utf8(value: Any) -> bytes:
    """
    Return a value as JSON without a line break, in UTF-8; never raises.

    A value that JSON does not have becomes text, and a number that is not finite becomes `null`. If the encoder fails
    (odd keys, a circle, great depth), the value is first copied, down to eight levels.
    """
    return _escape_control(_dump(value))


def _dump(value: Any) -> bytes:
    try:
        return dumps(value, to_plain, OPTION)
    except Exception:  # A __str__, a __dict__ or a mapping of the application raised.
        return _encode_slowly(_copy(value, _MAX_DEPTH, _Budget(_MAX_NODES))).encode()


def _escape_control(line: bytes) -> bytes:
    if line.isascii() and DELETE not in line:
        return line
    return _CONTROL.sub(_escape, line.decode()).encode()


def _escape(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"


def text_of(value: Any) -> str:
    """Return `str(value)`, or a text that names the exception which that raises."""
    try:
        return str(value)
    except Exception as error:
        return f"<{name_of(value)} whose text raises {name_of(error)}>"


def name_of(value: object) -> str:
    """Return the name of a value's class, also if the class has an attribute of that name that raises."""
    return _NAME.__get__(type(value))  # type: ignore[no-any-return]


_NAME = vars(type)["__name__"]


def to_plain(value: Any) -> Any:
    """Return a value of JSON's types for one that an encoder does not support."""
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, bytes | bytearray | memoryview):
        return decode(value)
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Mapping):
        return {key_text(key): item for key, item in value.items()}
    if isinstance(value, _LISTS):
        return list(value)
    for kind, exact in _EXACT:  # orjson passes subclasses of these.
        if isinstance(value, kind):
            return exact(value)
    return text_of(value)


def decode(value: bytes | bytearray | memoryview, limit: int = _MAX_BYTES) -> str:
    """Return the first bytes as a text, with escapes for those that are no UTF-8."""
    if isinstance(value, memoryview):
        value = value.cast("B") if value.contiguous else value.tobytes()
    length = len(value)
    data = bytes(value[:limit])
    try:
        text = utf_8_decode(data, "strict", length == len(data))[0]
    except UnicodeDecodeError:
        # The handler `backslashreplace` takes a tenth of a microsecond for each byte.
        data = data[:_MAX_INVALID_BYTES]
        text = data.decode(errors="surrogateescape").translate(_ESCAPES)
    return text if len(data) == length else f"{text}…[{length} bytes]…"


def key_text(key: Any) -> str:
    """Return a key as the standard library writes it, and as text if that refuses it."""
    if key is None or isinstance(key, bool):
        return {None: "null", True: "true", False: "false"}[key]
    for kind, exact in _EXACT:
        if isinstance(key, kind):
            return text_of(exact(key))
    return text_of(key)


class _Budget:
    """
    What may still be visited.

    Attributes:
        nodes: values, at any depth.
        path: the ids of the objects around the current one.
    """

    __slots__ = ("nodes", "path")

    def __init__(self, nodes: int) -> None:
        self.nodes = nodes
        self.path: set[int] = set()


def _copy(value: Any, depth: int, budget: _Budget) -> Any:
    """Return a copy of JSON's types; a text replaces each part that raises."""
    try:
        return _copy_or_raise(value, depth, budget)
    except Exception as error:  # An iterator, a property, an integer of more digits than Python writes.
        return f"<{name_of(value)} that raises {name_of(error)}>"


def _copy_or_raise(value: Any, depth: int, budget: _Budget) -> Any:
    budget.nodes -= 1
    if isinstance(value, float):
        return value if -float("inf") < value < float("inf") else None
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        int.__repr__(value)
        return value
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        identity = id(value)
        if identity in budget.path:
            return CIRCULAR
        if depth == 0 or budget.nodes < 0:
            return "…"
        budget.path.add(identity)
        try:
            if isinstance(value, Mapping):
                items = islice(value.items(), budget.nodes)
                return {key_text(key): _copy(item, depth - 1, budget) for key, item in items}
            return [_copy(item, depth - 1, budget) for item in islice(value, budget.nodes)]
        finally:
            budget.path.discard(identity)
    plain = to_plain(value)
    return plain if isinstance(plain, str) else text_of(plain)


def _encoder() -> tuple[Callable[[Any, Callable[[Any], Any], int], bytes], int]:
    """Return orjson's encoder if it is installed (`scaleobs[fast]`), and the option with which both write the same."""
    try:
        import orjson
    except ImportError:
        write = json.JSONEncoder(default=to_plain, allow_nan=False, separators=(",", ":")).encode
        return lambda value, _default, _option: write(value).encode(), 0
    option = orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS
    return orjson.dumps, option


dumps, OPTION = _encoder()
"""
The encoder itself. Called with `to_plain` and `OPTION` by position, which saves a third of its time.

It raises what values raise, and escapes only what JSON requires.
"""
_encode_slowly = json.JSONEncoder(separators=(",", ":")).encode


# Truncation.

_LIMITS = ((4096, 256, 8, 1000), (1024, 64, 6, 600), (256, 16, 4, 300), (48, 6, 2, 200))
"""Of each attempt: the characters of a text, the members of a list or an object, the depth, and the values of all."""

_EXCEPTION_CHARACTERS = 8192
"""The characters of an exception in the first attempt: `exception_text` has already shortened it."""

EXCEPTION_KEYS = ("exception", "error.stack_trace")
_MAX_KEYS = 24


def encode_line(event: Mapping[str, Any]) -> bytes:
    """Return an event as one line of JSON without its newline, truncated if it is too long; never raises."""
    line = _dump(event)
    if len(line) < MAX_LINE_BYTES and len(escaped := _escape_control(line)) < MAX_LINE_BYTES:
        return escaped
    whole = json.loads(line)
    fields = max(len(whole), whole.get("keys", 0) if type(whole.get("keys")) is int else 0)
    for characters, members, depth, nodes in _LIMITS:
        budget = _Budget(nodes)
        truncated = {
            shorten(key, characters): _truncate(
                value,
                _EXCEPTION_CHARACTERS if key in EXCEPTION_KEYS and characters == _LIMITS[0][0] else characters,
                members,
                depth,
                budget,
            )
            for key, value in whole.items()
        }
        truncated["truncated"] = True
        line = _dump(truncated)
        if len(line) < MAX_LINE_BYTES and len(escaped := _escape_control(line)) < MAX_LINE_BYTES:
            return escaped
    # The names of the keys alone are too long. The standard keys are the first ones.
    kept = dict(list(truncated.items())[:_MAX_KEYS])
    kept |= {key: truncated[key] for key in EXCEPTION_KEYS if key in truncated}
    return encode_utf8({**kept, "keys": fields, "truncated": True})


def shorten(text: str, limit: int) -> str:
    """Return a text with `limit` of its characters; its original length replaces the middle if it is longer."""
    if len(text) <= limit:
        return text
    head = limit * 3 // 4
    earlier = _SHORTENED.search(text)  # A part is missing already.
    length = len(text) if earlier is None else earlier[1]
    return f"{text[:head]}…[{length} characters]…{text[len(text) - (limit - head) :]}"


_SHORTENED = re.compile(r"…\[(\d+) characters\]…")


def _truncate(value: Any, characters: int, members: int, depth: int, budget: _Budget) -> Any:
    budget.nodes -= 1
    if isinstance(value, str):
        return shorten(value, characters)
    if type(value) is int and value.bit_length() > characters:
        return shorten(str(value), characters)
    if not isinstance(value, dict | list):
        return value
    if depth == 0 or budget.nodes < 0:
        return f"…[{len(value)} members]…" if value else value
    members = min(members, budget.nodes)
    if isinstance(value, list):
        kept = [_truncate(one, characters, members, depth - 1, budget) for one in value[:members]]
        return kept if len(value) <= members else [*kept, f"…[{len(value)} members]…"]
    first = {
        shorten(key, characters): _truncate(one, characters, members, depth - 1, budget)
        for key, one in islice(value.items(), members)
    }
    return first if len(value) <= members else {**first, "…": f"[{len(value)} members]"}
