"""What is measured: applications, bare and with each way to count their requests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

ROUTE = "/items/{item_id}"
PATH = "/items/42"
UNMATCHED = "unmatched"


class Subject(NamedTuple):
    """An application with a middleware, and a function that proves that it counted."""

    app: Any
    counted: Callable[[], float] | None = None
    """Returns how many requests were counted; `None` if the subject does not count."""
