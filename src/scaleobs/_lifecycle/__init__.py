"""Between SIGTERM and the server's own stop: `/ready` answers 503, and requests go on being served."""

from __future__ import annotations

from scaleobs._lifecycle.drain import Draining, Stage
from scaleobs._lifecycle.hooks import Hook

__all__ = ["Draining", "Hook", "Stage"]
