"""What the server gets in place of a body, in the form in which it expects that."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from scaleobs.wsgi.watched import Watched, WatchedList, WatchedSized

WITHOUT_LENGTH: set[type] = set()
"""Some types of bodies: to find out that a type has no length takes longer than anything else here."""

_MOST_KINDS = 100


def as_server_expects(body: Iterable[bytes], exchange: Watched) -> Iterable[bytes]:
    """Return what looks to the server like the body: with a length where it has one, or its own file wrapper."""
    kind = type(body)
    if kind is list or kind is tuple:
        exchange.__class__ = WatchedList
        return exchange
    file_wrapper = exchange.request.get("wsgi.file_wrapper")
    if isinstance(file_wrapper, type) and isinstance(body, file_wrapper):
        return _watched_file(body, exchange)
    if kind not in WITHOUT_LENGTH:
        if hasattr(kind, "__len__"):
            exchange.__class__ = WatchedSized
        elif len(WITHOUT_LENGTH) < _MOST_KINDS:
            WITHOUT_LENGTH.add(kind)
    return exchange


def _watched_file(body: Any, exchange: Watched) -> Iterable[bytes]:
    """Return the server's own file wrapper, which it must recognise to send the file itself, with a watched `close`."""
    closing = getattr(body, "close", None)
    exchange.body = _Closing(closing)
    try:
        # The exchange lives as long as the wrapper does, and leaves word when both are collected.
        body.close = exchange.close
    except (
        AttributeError,
        TypeError,
    ):  # An object of the server's that takes no attribute: end here rather than never.
        exchange.body = None
        exchange.close()
    watched: Iterable[bytes] = body
    return watched


class _Closing:
    """What is left of a body whose chunks the server reads by itself."""

    def __init__(self, close: Callable[[], None] | None) -> None:
        if close is not None:
            self.close = close
