"""Log calls and records that can't be read as usual: wrong arguments, missing and odd attributes."""

from __future__ import annotations

import logging
import re
import time
from typing import Any

import structlog
from structlog.typing import EventDict

from scaleobs.logs._encoding import text_of
from scaleobs.logs._redaction import Redact
from scaleobs.logs._secret_names import REDACTED

_secrets = Redact()
_PLACEHOLDER = re.compile(r"%(?:\(\w*\))?[-+ #0]{0,5}[\d*]{0,5}(?:\.[\d*]{0,5})?[a-zA-Z]")
_UNKNOWN = "Zq8vT3kPw2"
_stack = structlog.processors.StackInfoRenderer(additional_ignores=["scaleobs."])


def with_arguments(message: Any, args: Any) -> EventDict:
    """Return the event of a message whose arguments do not match it: its text, and the arguments beside it."""
    text = text_of(message)
    # Without its name, a secret is not found among the arguments.
    filled = _PLACEHOLDER.sub(_UNKNOWN, text)
    return {"event": text, "args": args if _secrets.text(filled) == filled else REDACTED}


def add_stack(fields: EventDict, stack_info: Any) -> None:
    """Add the stack of the caller of structlog as `stack`, unless that is a value of another kind than true."""
    try:
        if not stack_info:
            return
    except Exception:  # It has no truth value.
        fields["stack_info"] = stack_info
        return
    own = dict(_stack(None, "", {"stack_info": True}))
    name = "stack"
    while name in fields:
        name += "_"
    fields[name] = own["stack"]


def readable(record: logging.LogRecord) -> logging.LogRecord | None:
    """
    Return a copy of a record with what each record has, or `None` if it has all of it.

    `logging.makeLogRecord` and other processes make records without a name, a level or a time.
    """
    given: dict[str, Any] = record.__dict__
    number = given.get("levelno")
    if type(number) is not int:
        names = logging.getLevelNamesMapping()
        level = given.get("levelname")
        number = names.get(level.upper(), logging.INFO) if isinstance(level, str) else logging.INFO
        given = {**given, "levelname": None}
    defaults: dict[str, tuple[type | tuple[type, ...], Any]] = {
        "name": (str, "root"),
        "levelno": (int, number),
        "levelname": (str, logging.getLevelName(number)),
        "created": ((int, float), time.time()),
        "msg": (object, ""),
        "args": (object, ()),
        "exc_info": (object, None),
        "exc_text": ((str, type(None)), None),
        "stack_info": (object, None),
    }
    fixed = {
        key: default
        for key, (kind, default) in defaults.items()
        if key not in given or not issubclass(type(given[key]), kind)
    }
    if not fixed:
        return None
    copied = logging.LogRecord(**_ARGUMENTS)
    copied.__dict__.update({**given, **fixed})
    return copied


_ARGUMENTS: dict[str, Any] = {
    "name": "",
    "level": 0,
    "pathname": "",
    "lineno": 0,
    "msg": "",
    "args": (),
    "exc_info": None,
}
