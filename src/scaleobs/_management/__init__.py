"""The management port: all four endpoints, with details, on a port beside the application's."""

from __future__ import annotations

from scaleobs._management.port import Address, PortError
from scaleobs._management.services import Management

__all__ = ["Address", "Management", "PortError"]
