"""Between SIGTERM and the server's own stop: `/ready` answers 503, and requests go on being served."""

from __future__ import annotations

from scaleobs.drain.process import Draining, Stage
from scaleobs.hooks import Hook

__all__ = ["Draining", "Hook", "Stage"]
