"""One line makes a Python web service observable; see `instrument`."""

from __future__ import annotations

# The import of typing would cost ten times as much as this module.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any

    from scaleobs._health import Check, CheckFailed
    from scaleobs._http.asgi import ASGIMiddleware
    from scaleobs._http.wsgi import WSGIMiddleware
    from scaleobs._instrument import instrument, observer_of
    from scaleobs.logs import bind_context, configure_logging, get_logger, request_id
    from scaleobs.objectives import Availability, Latency
    from scaleobs.observer import Observer
    from scaleobs.settings import SettingsError

    __version__: str

__all__ = [
    "ASGIMiddleware",
    "Availability",
    "Check",
    "CheckFailed",
    "Latency",
    "Observer",
    "SettingsError",
    "WSGIMiddleware",
    "bind_context",
    "configure_logging",
    "get_logger",
    "instrument",
    "observer_of",
    "request_id",
]

# The names are loaded when they are first used, so that importing scaleobs costs next to nothing.
_HOMES = {
    "ASGIMiddleware": "_http.asgi",
    "Availability": "objectives",
    "Check": "_health.check",
    "CheckFailed": "_health",
    "Latency": "objectives",
    "Observer": "observer",
    "SettingsError": "settings",
    "WSGIMiddleware": "_http.wsgi",
    "bind_context": "logs",
    "configure_logging": "logs",
    "get_logger": "logs",
    "instrument": "_instrument",
    "observer_of": "_instrument",
    "request_id": "logs",
}


# Type checkers read the imports above, and refuse any other name.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        import importlib

        if name == "__version__":
            return importlib.import_module("importlib.metadata").version("scaleobs")
        if name not in _HOMES:
            msg = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(msg)
        # Modules are never garbage: collections while they are loaded take a tenth of the time.
        gc = importlib.import_module("gc")
        was_enabled = gc.isenabled()
        gc.disable()
        try:
            value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        finally:
            if was_enabled:
                if not gc.get_freeze_count():  # Both together make all objects old, so that none is scanned next.
                    gc.freeze()
                    gc.unfreeze()
                gc.enable()
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return [*__all__, "__version__"]
