"""The same story in WSGI (PEP 3333)."""

from __future__ import annotations

from scaleobs.wsgi.middleware import WSGIMiddleware

__all__ = ["WSGIMiddleware"]
