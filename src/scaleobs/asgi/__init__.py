"""ASGI told in the words of `exchange`."""

from __future__ import annotations

from scaleobs.asgi.middleware import ASGIMiddleware

__all__ = ["ASGIMiddleware"]
