"""The few words of protobuf's wire format that metrics need (protobuf.dev/programming-guides/encoding)."""

from __future__ import annotations

import struct

_SMALL = [bytes((number,)) for number in range(0x80)]
_double = struct.Struct("<d").pack


def varint(number: int) -> bytes:
    """Return an integer that isn't negative, seven bits a byte, the lowest first."""
    if number < 0x80:  # noqa: PLR2004 - Seven bits.
        return _SMALL[number]
    if number < 0x4000:  # noqa: PLR2004 - Fourteen.
        return bytes((number & 0x7F | 0x80, number >> 7))
    digits = bytearray()
    while number >= 0x80:  # noqa: PLR2004
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    digits.append(number)
    return bytes(digits)


def zigzag(number: int) -> bytes:
    """Return an integer of either sign, small where it is near zero."""
    return varint(number << 1 if number >= 0 else -(number << 1) - 1)


def signed(number: int) -> bytes:
    """Return an integer of either sign as int64 has it: in two's complement."""
    return varint(number & 0xFFFF_FFFF_FFFF_FFFF)


def integer(field: int, number: int) -> bytes:
    """Return a field that holds a varint."""
    return varint(field << 3) + varint(number)


def double(field: int, number: float) -> bytes:
    """Return a field that holds a floating-point number."""
    return varint(field << 3 | 1) + _double(number)


def message(field: int, content: bytes) -> bytes:
    """Return a field that holds a message, a text or a packed list."""
    return b"%b%b%b" % (varint(field << 3 | 2), varint(len(content)), content)


def text(field: int, content: str) -> bytes:
    """Return a field that holds a text; a lone surrogate becomes a question mark."""
    return message(field, str(content).encode("utf-8", "replace"))
