"""The life of a process: start-up, the drain between SIGTERM and the server's own stop, and the stop."""

from __future__ import annotations

from scaleobs._lifecycle.drain import ServiceDrain, Stage
from scaleobs._lifecycle.hooks import Hook

__all__ = ["Hook", "ServiceDrain", "Stage"]
