"""What every line logged inside a request carries."""

from __future__ import annotations

import random
import re
from contextvars import ContextVar, Token
from typing import Any

from scaleobs import tracing
from scaleobs._fork import Step, after_fork

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)

# Ids have to differ, not to be unpredictable; an application that seeds the shared generator must not repeat them, nor
# must two workers of one parent.
_ids = random.Random()  # noqa: S311
after_fork(Step.REQUEST_IDS, _ids.seed)
_bits = _ids.getrandbits

request_context: ContextVar[dict[str, Any] | None] = ContextVar("scaleobs_request", default=None)
"""
`request_id`, `trace_id` and `span_id` where they are known, and what the application has bound.

Whatever is copied of a request's context shares this one dict: its threads, tasks and generators see what any of them
binds, and so does its access line. It is forgotten with the request and never cleared, since a task may outlive it.
"""

_NOT_FIELDS = ("event", "exc_info", "stack_info", "self", "_record", "_from_structlog")
"""What structlog takes for something else than a field."""


def new_context(request_id: str = "", traceparent: str = "") -> dict[str, Any]:
    """
    Return what identifies a request in the log.

    Args:
        request_id: the client's, which is kept where it is a plain one; otherwise a new one takes its place.
        traceparent: the header, or nothing.
    """
    if not request_id or _REQUEST_ID.fullmatch(request_id) is None:
        request_id = _bits(128).to_bytes(16).hex()  # Half the time of a format's.
    context = {"request_id": request_id}
    parent = tracing.parse_traceparent(traceparent) if traceparent else None
    if parent is not None:
        context["trace_id"], context["span_id"] = parent.trace_id, parent.span_id
    return context


def bind_context(**fields: Any) -> None:
    """
    Add fields to every line of the current request from now on, its access line among them.

    They are there in all its tasks and in the threads that its context is copied to, whichever of them binds, and they
    are gone with the request. Keys that a line brings itself stay the line's. Outside a request nothing is bound.

    Args:
        fields: by the keys that the lines show, e.g. `order_id=7`.
    """
    context = request_context.get()
    if context is not None:
        for key in _NOT_FIELDS:
            fields.pop(key, None)
        context.update(fields)


def forget_request(token: Token[dict[str, Any] | None]) -> None:
    """End what `request_context.set` began, in the context where it did."""
    try:
        request_context.reset(token)
    except ValueError:
        # A coroutine is collected in the middle of something else, whose own request this must not end.
        return
