"""The work for a record is bounded: all its values and texts share one budget."""

from __future__ import annotations

from itertools import islice
from typing import Any

from structlog.typing import EventDict

MAX_FIELDS = 400
_MAX_NODES = 2500
_MAX_CHARACTERS, _MAX_SEARCHED = 65_536, 2_000_000

MAX_STEPS = 600
"""What a text, or all texts of a record, may cost: a step is a name, a quote or a bracket that is examined."""

LONG = 1024
"""Longer texts are read after all others, so that these are in the line."""

CHARACTERS_OF_NODE = 32
"""So many characters of a text that is read count as a value."""

LEAST = 64
"""The characters of each text when those of the record are used up."""

NODES_OF_NAME, NODES_OF_TEXT, NODES_OF_CUT, NODES_OF_KEY, NODES_OF_LIST = 4, 12, 40, 60, 2
"""
What counts as several values, by the time that it takes.

A new name, a text with something like a secret, a text that is cut, a key that is no short text, a list or an object.
"""


class Steps:
    """
    Counts down what may be examined.

    Attributes:
        left: the steps that are left.
    """

    __slots__ = ("left",)

    def __init__(self, left: int = MAX_STEPS) -> None:
        self.left = left


class Work(Steps):
    """
    What a record may still cost.

    Attributes:
        nodes: the values that may be visited.
        characters: the characters of texts that may be read.
        path: the ids of the objects around the current one.
        is_cut: whether something was left out.
        copies: by the id of an object, the object itself, its copy, and the nodes and characters of that.
    """

    __slots__ = ("characters", "copies", "is_cut", "nodes", "path")

    def __init__(self, characters: int = _MAX_CHARACTERS) -> None:
        super().__init__()
        self.nodes = _MAX_NODES
        self.characters = characters
        self.is_cut = False
        self.path: set[int] = set()
        self.copies: dict[int, tuple[Any, Any, int, int]] = {}

    def number(self, value: int) -> int | str:
        """Return an integer that orjson does not write, or a text in its place if it is too long."""
        digits = value.bit_length() // 3
        self.characters -= 8 * digits  # Each digit of a long number takes longer than the one before.
        return value if self.characters > 0 else f"…[{digits} digits]…"


def first_fields(event: EventDict) -> EventDict:
    """Return an event with a bounded number of fields, which are marked as not being all."""
    first = dict(islice(event.items(), MAX_FIELDS))
    if "event" in event:
        first["event"] = event["event"]
    if "_record" in event:
        first["_record"] = event["_record"]
    return {**first, "keys": len(event), "truncated": True}


def has_no_names(text: str, begin: int, end: int) -> bool:
    """Return whether a part of a text has none of the characters that are between a name and its value."""
    return (
        end - begin < _MAX_SEARCHED
        and all(text.find(character, begin, end) < 0 for character in "=:\"'>\n%")
        and text.find("--", begin, end) < 0
    )
