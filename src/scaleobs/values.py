"""How the value of each setting is read, or refused with the fix."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from scaleobs.catalog import LOG_LEVELS
from scaleobs.objectives import Availability, Latency, Objective

LOG_FORMATS = ("auto", "json", "console", "off")
LOG_SCHEMAS = ("scaleobs", "ecs")
_STATUSES = re.compile("[1-5](xx|[0-9][0-9])")
_LEVELS_FIX = (
    f"give levels ({', '.join(LOG_LEVELS)}) by status or class of statuses, e.g. access_levels={{'4xx': 'warning'}}, "
    "or '4xx=warning,404=info' in the environment."
)
_SAMPLE_FIX = (
    "give a share from 0 to 1, e.g. access_sample=0.1, or one per route, e.g. {'/feed': 0, '*': 0.1}, which is "
    "'/feed=0,*=0.1' in the environment."
)

SECRETS = frozenset({"metrics_token"})
"""The settings whose values no message may show."""


class SettingsError(ValueError):
    """A setting can't be used; the message names it, its value, unless that is a secret, and the fix."""


def checked(name: str, value: Any, source: str) -> Any:
    """
    Return the value as the setting holds it.

    Args:
        name: the setting's.
        value: what was given, a text where it comes from the environment.
        source: where it comes from, for the error.

    Raises:
        SettingsError: it can't be used.
    """
    read = _READERS.get(name)
    if read is None:
        return value
    return read(value, f"{source} a secret and not shown" if name in SECRETS else f"{source} {value!r}")


def _flag(value: Any, shown: str) -> bool:
    known = {True: True, False: False, "true": True, "1": True, "false": False, "0": False}
    return known[_one_of(_lowered(value), tuple(known), shown)]


def _log_format(value: Any, shown: str) -> Any:
    return _one_of(_lowered(value), LOG_FORMATS, shown)


def _log_level(value: Any, shown: str) -> str:
    if not isinstance(value, str):
        return str(_one_of(value, LOG_LEVELS, shown))
    parts = [part.rpartition("=") for part in value.split(",")]
    for place, (name, equals, level) in enumerate(parts):
        if bool(name.strip()) is not bool(equals) or (place and not equals):
            msg = f"{shown}: give a level, and then those of loggers, e.g. 'info,sqlalchemy.engine=debug'."
            raise SettingsError(msg)
        _one_of(level.strip().lower(), LOG_LEVELS, shown)
    return ",".join(f"{name.strip()}{equals}{level.strip().lower()}" for name, equals, level in parts)


def parse_levels(text: str) -> tuple[str, dict[str, str]]:
    """Return the level of all loggers that `info,sqlalchemy.engine=debug` gives, and those of some by name."""
    everywhere, own = "info", {}
    for part in text.split(","):
        name, _, level = part.rpartition("=")
        if name:
            own[name] = level
        else:
            everywhere = level
    return everywhere, own


def _log_schema(value: Any, shown: str) -> Any:
    return _one_of(_lowered(value), LOG_SCHEMAS, shown)


def _log_redact(value: Any, shown: str) -> tuple[str, ...]:
    patterns = value.split() if isinstance(value, str) else value
    try:
        for pattern in (patterns := tuple(patterns)):
            re.compile(pattern)
    except (TypeError, re.error) as error:
        msg = f"{shown}: {error}. Give names and regular expressions, e.g. ['iban', '[0-9]{{16}}']."
        raise SettingsError(msg) from None
    return patterns


def _log_file(value: Any, shown: str) -> str | None:
    if value is None or value == "":
        return None
    try:
        return str(os.fspath(value))
    except TypeError:
        msg = f"{shown}: give the path of a file, e.g. '/var/log/orders.json'."
        raise SettingsError(msg) from None


def _access_levels(value: Any, shown: str) -> dict[str, str]:
    levels = _pairs(value, _LEVELS_FIX, shown)
    if not all(_STATUSES.fullmatch(status) and level in LOG_LEVELS for status, level in levels.items()):
        msg = f"{shown}: {_LEVELS_FIX}"
        raise SettingsError(msg)
    return levels


def _access_sample(value: Any, shown: str) -> dict[str, float]:
    is_one = isinstance(value, int | float) or (isinstance(value, str) and "=" not in value)
    shares = {"*": str(value)} if is_one else _pairs(value, _SAMPLE_FIX, shown)
    try:
        sample = {route: float(share) for route, share in shares.items()}
    except ValueError:
        sample = {"*": -1}
    if not all(0 <= share <= 1 for share in sample.values()):
        msg = f"{shown}: {_SAMPLE_FIX}"
        raise SettingsError(msg)
    return sample


def _pairs(value: Any, fix: str, shown: str) -> dict[str, str]:
    """Return a mapping, or what a variable writes as one: names with values, as in `4xx=warning,404=info`."""
    if isinstance(value, str):
        parts = [part.rpartition("=") for part in value.split(",") if part.strip()]
        value = {name: one for name, _, one in parts}
    if not isinstance(value, Mapping):
        msg = f"{shown}: {fix}"
        raise SettingsError(msg)
    return {str(name).strip(): str(one).strip().lower() for name, one in value.items()}


def _lowered(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _route(value: Any, shown: str) -> Any:
    if value is not None and not callable(value):
        msg = (
            f"{shown}: give a function from a scope or environ to a template, e.g. route=lambda scope: '/items/{{id}}'."
        )
        raise SettingsError(msg)
    return value


def _registry(value: Any, shown: str) -> Any:
    is_registry = hasattr(value, "collect") and hasattr(value, "register") and not isinstance(value, type)
    if value is not None and not is_registry:
        msg = f"{shown}: give a prometheus_client.CollectorRegistry, or leave it out for the default one."
        raise SettingsError(msg)
    return value


def _name(name: str, value: Any, shown: str) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        msg = f"{shown}: give a name of printable characters, e.g. {name}='orders'."
        raise SettingsError(msg)
    return value.strip()


def _path(value: Any, shown: str) -> str | None:
    if value is None or value in ("", "off"):
        return None
    if not isinstance(value, str) or not value.startswith("/") or not value.isprintable() or "?" in value:
        msg = f"{shown}: give a path that starts with '/', or 'off' to turn it off."
        raise SettingsError(msg)
    return value


def _token(value: Any, shown: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value or not value.isascii() or not value.isprintable() or " " in value:
        msg = f"{shown}: give visible ASCII characters, no space and no line end, e.g. from openssl rand -hex 32."
        raise SettingsError(msg)
    return value


def _port(value: Any, shown: str) -> Any:
    if value is None or value in ("", "off"):
        return None
    fix = "a port from 1 to 65535, e.g. 9090, or 'off' for none"
    return _number(value, shown, kind=int, least=1, most=65_535, fix=fix)


def _number(value: Any, shown: str, *, kind: type[int | float], least: float, most: float, fix: str) -> float:
    try:
        number = kind(value)
    except (TypeError, ValueError, OverflowError):
        number = least - 1
    is_other = isinstance(value, bool) or (kind is int and isinstance(value, float))
    if is_other or not least <= number <= most:
        msg = f"{shown}: give {fix}."
        raise SettingsError(msg)
    return number


def _one_of(value: Any, known: tuple[Any, ...], shown: str) -> Any:
    if value not in known:
        msg = f"{shown}: give one of {', '.join(str(one) for one in known)}."
        raise SettingsError(msg)
    return value


def _checks(value: Any, shown: str) -> tuple[Any, ...]:
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        msg = f"{shown}: give a list, e.g. checks=[scaleobs.Check('postgres', function)]."
        raise SettingsError(msg)
    return tuple(value)


def _objectives(value: Any, shown: str) -> tuple[Objective, ...]:
    fix = "give Availability(99.9) or Latency(99, under=0.5) in a list."
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        msg = f"{shown}: {fix}"
        raise SettingsError(msg)
    objectives = tuple(value)
    for objective in objectives:
        if not isinstance(objective, (Availability, Latency)):
            msg = f"objectives has {objective!r}, which is not an objective: {fix}"
            raise SettingsError(msg)
    return objectives


_READERS: dict[str, Callable[[Any, str], Any]] = {
    "service": partial(_name, "service"),
    "version": partial(_name, "version"),
    "environment": partial(_name, "environment"),
    "health_path": _path,
    "ready_path": _path,
    "startup_path": _path,
    "metrics_path": _path,
    "metrics_token": _token,
    "probe_aliases": _flag,
    "manual_start": _flag,
    "drain_seconds": partial(
        _number, kind=float, least=0, most=3600, fix="seconds from 0 to 3600, e.g. 5; 0 turns the drain off"
    ),
    "management_port": _port,
    "stall_seconds": partial(_number, kind=float, least=1, most=86_400, fix="seconds from 1 to 86400, e.g. 30"),
    "checks": _checks,
    "details": _flag,
    "objectives": _objectives,
    "route": _route,
    "max_label_sets": partial(_number, kind=int, least=1, most=sys.maxsize, fix="a whole number above 0, e.g. 2000"),
    "native_histograms": _flag,
    "size_histograms": _flag,
    "log_format": _log_format,
    "log_level": _log_level,
    "access_levels": _access_levels,
    "access_sample": _access_sample,
    "log_schema": _log_schema,
    "log_redact": _log_redact,
    "log_file": _log_file,
    "registry": _registry,
}
