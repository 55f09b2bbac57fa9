"""The fields of the current request, which each of its log lines has."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, MutableMapping
from contextvars import ContextVar, Token
from typing import Any

from scaleobs import _tracing
from scaleobs._fork import Step, after_fork

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)
_UUID = re.compile(r"[0-9A-Fa-f]{8}-?([0-9A-Fa-f]{4}-?){3}[0-9A-Fa-f]{12}", re.ASCII)
_MAX_LENGTH = 200

# Ids must differ; they need not be unpredictable. A seed that the application sets in the shared generator, or that
# two workers inherit, must not repeat them.
_ids = random.Random()  # noqa: S311
after_fork(Step.REQUEST_IDS, _ids.seed)
_bits = _ids.getrandbits

request_context: ContextVar[dict[str, Any] | None] = ContextVar("scaleobs_request", default=None)
"""
`request_id`, `trace_id` and `span_id` if they are known, and the fields that the application has bound.

All copies of a request's context share this one dict. So a field that a thread, task or generator of the request binds
is in the lines of all others and in the access line. The dict is never cleared, since a task may outlive the request.
"""

REQUEST_KEYS = ("request_id", "trace_id", "span_id")
"""The ids of a request; an application's own field of such a name gets an underscore after it."""
REQUEST_NAMES = frozenset(REQUEST_KEYS)

_RESERVED = ("event", "exc_info", "stack_info", "self", "_record", "_from_structlog")
"""Names that structlog does not treat as fields."""


class RequestIds:
    """
    The ids of requests, as the settings of one service require.

    Args:
        header: the header with an id; `None` for none.
        generator: returns a new id; `None` for the usual one.
        validator: returns whether an id of a client is used; `None` for the usual characters and length.
        on_fault: counts and logs an error of the two functions; never raises.

    Attributes:
        header: its name in ASGI; empty without one.
        shown: its name as text.
        key: its name in an environ.
        is_passed_on: whether the application receives the id as that header, for a library in it that reads it. Such
            libraries accept UUIDs only.
    """

    def __init__(
        self,
        header: str | None = "X-Request-ID",
        generator: Callable[[], str] | None = None,
        validator: Callable[[str], bool] | None = None,
        on_fault: Callable[[Exception], None] = lambda _: None,
    ) -> None:
        self.shown = header or ""
        self.header = self.shown.lower().encode()
        self.key = f"HTTP_{self.shown.upper().replace('-', '_')}" if header else ""
        self.is_passed_on = False
        self._generator = generator
        self._validator = validator
        self._on_fault = on_fault

    def new_context(self, request_id: str = "", traceparent: str = "") -> dict[str, Any]:
        """
        Return the ids of a request for its log lines.

        Args:
            request_id: the client's; a new id replaces it if it is empty or not valid.
            traceparent: the header, or an empty text.
        """
        if not request_id or not self._is_valid(request_id):
            # Half the time of a format.
            request_id = _bits(128).to_bytes(16).hex() if self._generator is None else self._generated()
        context = {"request_id": request_id}
        parent = _tracing.parse_traceparent(traceparent) if traceparent else None
        if parent is not None:
            context["trace_id"], context["span_id"] = parent.trace_id, parent.span_id
        return context

    def _is_valid(self, request_id: str) -> bool:
        if self._validator is None:
            is_usual = _REQUEST_ID.fullmatch(request_id) is not None
            return is_usual and (not self.is_passed_on or _UUID.fullmatch(request_id) is not None)
        try:
            return _is_safe(request_id) and bool(self._validator(request_id))
        except Exception as error:
            self._on_fault(error)
            return False

    def _generated(self) -> str:
        try:
            return _sendable(self._generator())  # type: ignore[misc]
        except Exception as error:
            self._on_fault(error)
            return _bits(128).to_bytes(16).hex()


def _sendable(made: Any) -> str:
    if isinstance(made, str) and _is_safe(made):
        return made
    msg = f"request_id_generator returned {made!r}: return 1 to {_MAX_LENGTH} printable characters of ASCII."
    raise ValueError(msg)


def _is_safe(request_id: str) -> bool:
    """Return whether an id can be sent in a header."""
    is_text = request_id.isascii() and request_id.isprintable() and request_id == request_id.strip()
    return is_text and 0 < len(request_id) <= _MAX_LENGTH


def request_id() -> str | None:
    """
    Return the id of the current request, which its lines and its response have.

    It is that of the client's header if it is valid, or else a new one. `None` outside a request, and with
    `log_format="off"`. All tasks of the request and the threads that its context is copied to have the same one.
    """
    context = request_context.get()
    return None if context is None else context["request_id"]


def bind_context(**fields: Any) -> None:
    """
    Add fields to every later line of the current request, and to its access line.

    They apply to all tasks of the request and to the threads that its context is copied to, and end with the request.
    If a line has a field of the same name, the line's value is kept. The ids of the request stay as they are: an own
    `request_id` becomes `request_id_`. Outside a request this does nothing. It may be called concurrently.

    Args:
        fields: by the keys of the lines, e.g. `order_id=7`.
    """
    context = request_context.get()
    if context is not None:
        for key in _RESERVED:
            fields.pop(key, None)
        context.update(without_ids(fields, context))


def without_ids(fields: MutableMapping[str, Any], ids: Mapping[str, Any]) -> MutableMapping[str, Any]:
    """Return fields of the application in which those with the name of an id, but another value, are renamed."""
    if REQUEST_NAMES.isdisjoint(fields):
        return fields
    renamed = {}
    for key, value in fields.items():
        name = key
        if key in REQUEST_NAMES and key in ids:
            if type(value) is str and value == ids[key]:
                continue
            while name in ids or name in fields:
                name += "_"
        renamed[name] = value
    return renamed


def forget_request(token: Token[dict[str, Any] | None]) -> None:
    """Undo `request_context.set` with its token, if this is the same context."""
    try:
        request_context.reset(token)
    except ValueError:
        # A coroutine was garbage-collected inside another request, whose context stays.
        return
