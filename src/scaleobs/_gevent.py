"""The originals of what gevent has replaced; imports nothing of scaleobs."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


def unpatched(module: ModuleType, name: str) -> Any:
    """Return the original of what gevent has replaced in a module; a replacement may block other threads."""
    monkey: Any = sys.modules.get("gevent.monkey")
    return getattr(module, name) if monkey is None else monkey.get_original(module.__name__, name)
