"""What a client says of its trace (W3C Trace Context, level 2)."""

from __future__ import annotations

import re
from typing import NamedTuple

SAMPLED = 0x01

_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII
)
_MEMBER = re.compile(
    r"([0-9a-z][_0-9a-z\-*/@]{0,255})=([\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e])"
)
_MOST_MEMBERS = 32


class Span(NamedTuple):
    """A span of a trace: its ids as lower-case hexadecimal, and whether it is recorded somewhere."""

    trace_id: str
    span_id: str
    is_sampled: bool


def parse_traceparent(header: str) -> Span | None:
    """
    Return the parent span that a `traceparent` header names, or `None` where it is not valid.

    Version 00 has four fields; a later version may add more (sections 3.2.2 and 4.3).
    """
    header = header.strip(" \t")
    match = _TRACEPARENT.fullmatch(header)
    if match is None or (match[4] is not None and header.startswith("00")):
        return None
    return Span(match[1], match[2], bool(int(match[3], 16) & SAMPLED))


def parse_tracestate(header: str) -> dict[str, str]:
    """
    Return the members of a `tracestate` header in their order, and none of an invalid one.

    Several headers are joined by commas before. Of members with the same key the first one is kept (section 3.3.1).
    """
    members: dict[str, str] = {}
    for listed in header.split(","):
        member = listed.strip(" \t")
        if not member:
            continue
        match = _MEMBER.fullmatch(member)
        if match is None:
            return {}
        members.setdefault(match[1], match[2])
    return members if len(members) <= _MOST_MEMBERS else {}
