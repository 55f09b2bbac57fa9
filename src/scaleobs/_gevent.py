"""The originals of what gevent has replaced; imports nothing of scaleobs."""

from __future__ import annotations

import sys
import time
from types import ModuleType
from typing import Any


def unpatched(module: ModuleType, name: str) -> Any:
    """Return the original of what gevent has replaced in a module; a replacement may block other threads."""
    monkey: Any = sys.modules.get("gevent.monkey")
    return getattr(module, name) if monkey is None else monkey.get_original(module.__name__, name)


def has_hub() -> bool:
    """Return whether this thread has an event loop of gevent, whose other greenlets run while one sleeps."""
    local: Any = sys.modules.get("gevent._hub_local")
    return local is not None and local.get_hub_if_exists() is not None


def sleep(seconds: float) -> None:
    """Sleep; other greenlets of this thread run meanwhile. A thread without greenlets starts no loop for it."""
    if has_hub():
        sys.modules["gevent"].sleep(seconds)
    else:
        unpatched(time, "sleep")(seconds)
