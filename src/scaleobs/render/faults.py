"""What happens in a story, and when an alert has to speak of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from scaleobs.render.healthy import Labels, World

ONSET = 20
"""The step at which what happens suddenly happens."""


@dataclass(frozen=True, slots=True)
class Fault:
    """
    What happens.

    Args:
        name: the same in a sentence.
        series: what is otherwise than with a healthy service; without samples a series isn't there at all.
        fires: whether the alert has to fire.
        earliest: the step at which its condition may first be true.
        latest: the step at which it has to be.
        steps: how long the story is, where that isn't told by the alert's wait.
        is_never_true: whether not even the alert's condition may be true, where it doesn't fire.
    """

    name: str
    series: dict[str, str]
    fires: bool = True
    earliest: int = 0
    latest: int = 3
    steps: int | None = None
    is_never_true: bool = False


def quiet(name: str, series: dict[str, str], *, is_never_true: bool = False) -> Fault:
    """Return what no alert has to speak of."""
    return Fault(name, series, fires=False, is_never_true=is_never_true)


def sudden(name: str, series: dict[str, str]) -> Fault:
    """Return what an alert's condition sees at once."""
    return Fault(name, series, earliest=ONSET, latest=ONSET + 1)


def around(line: Decimal) -> tuple[Decimal, Decimal]:
    """Return a share a tenth below a line and one a tenth above it, or as near as half of what is left above it."""
    little = min(line / 10, (1 - line) / 2)
    return line - little, line + little


Telling = Callable[[World, Labels], list[Fault]]
"""From the world and the labels that tell alerts of one name apart to what may happen there."""
