"""The answer to one request to an endpoint, without any framework."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple


class Answer(NamedTuple):
    """
    A status, its headers and its body.

    If the body is long, `body` is its beginning and `rest` yields the other pieces. Each takes about a millisecond to
    make; an empty one is a pause. Otherwise `rest` is `None`.
    """

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    rest: Iterator[bytes] | None = None


Header = Callable[[str], str]
"""From the name of a header to its value in the request; empty without one."""


def text_answer(status: int, text: str, *headers: tuple[str, str]) -> Answer:
    """Return an answer with one line of text, which is not stored."""
    common = [("Content-Type", "text/plain; charset=utf-8"), ("Cache-Control", "no-store")]
    return Answer(status, [*headers, *common], f"{text}\n".encode())


BROKEN = text_answer(500, "scaleobs failed to answer; its log says why.")
"""The answer after an error of scaleobs itself."""
