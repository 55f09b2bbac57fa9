"""
The settings of a service: one table with the type, the default, the reader and the meaning of each.

Precedence: the keyword argument, the `SCALEOBS_*` variable, the variable of OpenTelemetry, the default.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypedDict, get_args

from scaleobs._environment import from_environment
from scaleobs.catalog import LOG_LEVELS
from scaleobs.objectives import Availability, Latency, Objective

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

    from scaleobs._health.check import Check

__all__ = ["Arguments", "LogFormat", "LogLevel", "LogSchema", "RouteFunction", "Settings", "SettingsError"]

LogFormat = Literal["auto", "json", "console", "off"]
LogSchema = Literal["scaleobs", "ecs"]
LogLevel = Literal["debug", "info", "warning", "error", "critical"]

RouteFunction = Callable[[Any], str | None]
"""Returns the template of a route; receives the scope or the environ after the application has handled it."""


class Arguments(TypedDict, total=False):
    """The keyword arguments of `instrument`, `Observer`, `ASGIMiddleware` and `WSGIMiddleware`; see `Settings`."""

    service: str
    version: str
    environment: str
    health_path: str | None
    ready_path: str | None
    startup_path: str | None
    metrics_path: str | None
    metrics_token: str | None
    probe_aliases: bool
    manual_start: bool
    checks: Iterable[Check]
    details: bool
    drain_seconds: float
    management_port: int | None
    management_host: str | None
    stall_seconds: float
    objectives: Iterable[Objective]
    route: RouteFunction | None
    request_id_header: str | None
    request_id_generator: Callable[[], str] | None
    request_id_validator: Callable[[str], bool] | None
    max_label_sets: int
    native_histograms: bool
    size_histograms: bool
    log_format: LogFormat
    log_level: str
    access_levels: Mapping[Any, LogLevel]
    access_sample: float | Mapping[str, float]
    log_schema: LogSchema
    log_redact: Iterable[str]
    log_file: str | os.PathLike[str] | None
    registry: CollectorRegistry | None


class SettingsError(ValueError):
    """A setting can't be used. The message has its name, its value, unless that is a secret, and the fix."""


# A reader returns the value that the setting holds, or raises. It receives the value, which is a text if it comes from
# the environment, and the beginning of the message: the source and the value.
_Reader = Callable[[Any, str], Any]


def _refuse(shown: str, fix: str) -> NoReturn:
    msg = f"{shown}: {fix}"
    raise SettingsError(msg)


def _name(value: Any, shown: str, *, name: str) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        _refuse(shown, f"give a name of printable characters, e.g. {name}='orders'.")
    return value.strip()


def _path(value: Any, shown: str) -> str | None:
    if value is None or value in ("", "off"):
        return None
    if not isinstance(value, str) or not value.startswith("/") or not value.isprintable() or "?" in value:
        _refuse(shown, "give a path that starts with '/', or 'off' to turn it off.")
    return value


def _token(value: Any, shown: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value or not value.isascii() or not value.isprintable() or " " in value:
        _refuse(shown, "give visible ASCII characters, no space and no line end, e.g. from openssl rand -hex 32.")
    return value


def _flag(value: Any, shown: str) -> bool:
    flags = {True: True, False: False, "true": True, "1": True, "false": False, "0": False}
    return flags[_one_of(value, shown, allowed=tuple(flags))]


def _one_of(value: Any, shown: str, *, allowed: tuple[Any, ...]) -> Any:
    value = value.lower() if isinstance(value, str) else value
    if value not in allowed:
        _refuse(shown, f"give one of {', '.join(str(one) for one in allowed)}.")
    return value


def _number(value: Any, shown: str, *, kind: type[int | float], least: float, most: float, fix: str) -> float:
    try:
        number = kind(value)
    except (TypeError, ValueError, OverflowError):
        number = least - 1
    is_other = isinstance(value, bool) or (kind is int and isinstance(value, float))
    if is_other or not least <= number <= most:
        _refuse(shown, f"give {fix}.")
    return number


def _port(value: Any, shown: str) -> Any:
    if value is None or value in ("", "off"):
        return None
    fix = "a port from 1 to 65535, e.g. 9090, or 'off' for none"
    return _number(value, shown, kind=int, least=1, most=65_535, fix=fix)


def _host(value: Any, shown: str) -> str | None:
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not value.isascii() or not value.isprintable() or {" ", "/"} & set(value):
        _refuse(shown, "give an address of this machine, e.g. '127.0.0.1', or leave it out for all.")
    return value


def _header(value: Any, shown: str) -> str | None:
    if value is None or value in ("", "off"):
        return None
    if not isinstance(value, str) or re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", value) is None:
        _refuse(shown, "give the name of a header, e.g. 'X-Request-ID', or 'off' for none.")
    return value


def _checks(value: Any, shown: str) -> tuple[Any, ...]:
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        _refuse(shown, "give a list, e.g. checks=[scaleobs.Check('postgres', function)].")
    return tuple(value)


def _objectives(value: Any, shown: str) -> tuple[Objective, ...]:
    fix = "give Availability(99.9) or Latency(99, under=0.5) in a list."
    if isinstance(value, str) or not hasattr(value, "__iter__"):
        _refuse(shown, fix)
    objectives = tuple(value)
    for objective in objectives:
        if not isinstance(objective, (Availability, Latency)):
            msg = f"objectives has {objective!r}, which is not an objective: {fix}"
            raise SettingsError(msg)
    return objectives


def _function(value: Any, shown: str, *, fix: str) -> Any:
    if value is not None and not callable(value):
        _refuse(shown, fix)
    return value


_route = partial(
    _function, fix="give a function from a scope or environ to a template, e.g. route=lambda scope: '/items/{id}'."
)
_generator = partial(_function, fix="give a function that returns a new id, e.g. lambda: str(uuid.uuid4()).")
_validator = partial(_function, fix="give a function that returns whether an id is used, e.g. str.isalnum.")


def _registry(value: Any, shown: str) -> Any:
    is_registry = hasattr(value, "collect") and hasattr(value, "register") and not isinstance(value, type)
    if value is not None and not is_registry:
        _refuse(shown, "give a prometheus_client.CollectorRegistry, or leave it out for the default one.")
    return value


def _log_level(value: Any, shown: str) -> str:
    if not isinstance(value, str):
        return str(_one_of(value, shown, allowed=LOG_LEVELS))
    parts = [part.rpartition("=") for part in value.split(",")]
    for position, (name, equals, level) in enumerate(parts):
        if bool(name.strip()) is not bool(equals) or (position and not equals):
            _refuse(shown, "give a level, and then those of loggers, e.g. 'info,sqlalchemy.engine=debug'.")
        _one_of(level.strip(), shown, allowed=LOG_LEVELS)
    return ",".join(f"{name.strip()}{equals}{level.strip().lower()}" for name, equals, level in parts)


_STATUSES = re.compile("[1-5](xx|[0-9][0-9])")
_LEVELS_FIX = (
    f"give levels ({', '.join(LOG_LEVELS)}) by status or class of statuses, e.g. access_levels={{'4xx': 'warning'}}, "
    "or '4xx=warning,404=info' in the environment."
)
_SAMPLE_FIX = (
    "give a share from 0 to 1, e.g. access_sample=0.1, or one per route, e.g. {'/feed': 0, '*': 0.1}, which is "
    "'/feed=0,*=0.1' in the environment."
)


def _access_levels(value: Any, shown: str) -> dict[str, str]:
    levels = _pairs(value, _LEVELS_FIX, shown)
    if not all(_STATUSES.fullmatch(status) and level in LOG_LEVELS for status, level in levels.items()):
        _refuse(shown, _LEVELS_FIX)
    return levels


def _access_sample(value: Any, shown: str) -> dict[str, float]:
    is_single = isinstance(value, int | float) or (isinstance(value, str) and "=" not in value)
    shares = {"*": str(value)} if is_single else _pairs(value, _SAMPLE_FIX, shown)
    try:
        sample = {route: float(share) for route, share in shares.items()}
    except ValueError:
        sample = {"*": -1}
    if not all(0 <= share <= 1 for share in sample.values()):
        _refuse(shown, _SAMPLE_FIX)
    return sample


def _pairs(value: Any, fix: str, shown: str) -> dict[str, str]:
    """Return a mapping from names to values, which a variable contains as `4xx=warning,404=info`."""
    if isinstance(value, str):
        parts = [part.rpartition("=") for part in value.split(",") if part.strip()]
        value = {name: one for name, _, one in parts}
    if not isinstance(value, Mapping):
        _refuse(shown, fix)
    return {str(name).strip(): str(one).strip().lower() for name, one in value.items()}


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


_drain = partial(_number, kind=float, least=0, most=3600, fix="seconds from 0 to 3600, e.g. 5; 0 turns the drain off")
_stall = partial(_number, kind=float, least=1, most=86_400, fix="seconds from 1 to 86400, e.g. 30")
_limit = partial(_number, kind=int, least=1, most=sys.maxsize, fix="a whole number above 0, e.g. 2000")


def _setting(default: Any, read: _Reader, *, has_variable: bool = True, is_secret: bool = False) -> Any:
    metadata = {"read": read, "has_variable": has_variable}
    if isinstance(default, dict):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, repr=not is_secret, metadata=metadata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How one service is observed: the arguments, the environment and the defaults, read and checked."""

    service: str = _setting("service", partial(_name, name="service"))
    """The service's name in `service_info` and in log lines."""
    version: str = _setting("unknown", partial(_name, name="version"))
    """The release."""
    environment: str = _setting("unknown", partial(_name, name="environment"))
    """Such as `production`."""
    health_path: str | None = _setting("/health", _path)
    """The path of liveness. `None` turns it off, as for the other three."""
    ready_path: str | None = _setting("/ready", _path)
    """The path of readiness."""
    startup_path: str | None = _setting("/startup", _path)
    """The path of start-up."""
    metrics_path: str | None = _setting("/metrics", _path)
    """The path that Prometheus scrapes."""
    metrics_token: str | None = _setting(None, _token, is_secret=True)
    """The bearer token that `/metrics` and details require. Neither `repr` nor an error shows it."""
    probe_aliases: bool = _setting(default=False, read=_flag)
    """Adds `/livez` and `/healthz` for liveness and `/readyz` for readiness, unless the probe is turned off or the path
    is already one of the four."""
    manual_start: bool = _setting(default=False, read=_flag)
    """The service has started only after `Observer.started()`."""
    checks: tuple[Check, ...] = _setting((), _checks, has_variable=False)
    """Made by `scaleobs.Check` or by `scaleobs.checks`."""
    details: bool = _setting(default=False, read=_flag)
    """Probes show what checks returned and why they failed, to any client that has `metrics_token`, if that is set."""
    drain_seconds: float = _setting(5.0, _drain)
    """How long requests are served after SIGTERM, with `/ready` at 503, before the server receives the signal. With 0
    the server receives it at once."""
    management_port: int | None = _setting(None, _port)
    """A second port, with its own thread, for all four endpoints with details. `metrics_path` and details are then
    available on this port only."""
    management_host: str | None = _setting(None, _host)
    """The address on which the management port is open; `None` is all addresses of the machine."""
    stall_seconds: float = _setting(30.0, _stall)
    """How long every worker must be stuck, its event loop or all its threads, before liveness fails on the management
    port."""
    objectives: tuple[Objective, ...] = _setting((), _objectives, has_variable=False)
    """Each `Latency` makes its `under` a bucket boundary."""
    route: RouteFunction | None = _setting(None, _route, has_variable=False)
    """For a framework that scaleobs doesn't support: returns the route's template, or `None` for `unmatched`."""
    request_id_header: str | None = _setting("X-Request-ID", _header)
    """The header from which the id of a request is read, and in which it is sent back. `None` does neither."""
    request_id_generator: Callable[[], str] | None = _setting(None, _generator, has_variable=False)
    """Returns a new id; `None` makes one of 32 hexadecimal digits."""
    request_id_validator: Callable[[str], bool] | None = _setting(None, _validator, has_variable=False)
    """Returns whether an id of a client is used; `None` accepts 1 to 128 of `A-Za-z0-9._-`. It receives printable
    ASCII."""
    max_label_sets: int = _setting(2000, _limit)
    """The limit of label sets. Requests beyond it are counted in four overflow series."""
    native_histograms: bool = _setting(default=False, read=_flag)
    """Adds native histograms to the classic ones, for scrapes in the protobuf format."""
    size_histograms: bool = _setting(default=False, read=_flag)
    """Measures the bodies of requests and responses. No rule and no panel needs it."""
    log_format: LogFormat = _setting("auto", partial(_one_of, allowed=get_args(LogFormat)))
    """`auto` is `console` on a terminal and `json` elsewhere; it leaves logging alone if the application has configured
    it. With `off`, scaleobs touches no logging and writes no line for a request; its own faults go to the stdlib's
    logger `scaleobs`."""
    log_level: str = _setting("info", _log_level)
    """The lowest level that is written, also of single loggers: `info,sqlalchemy.engine=debug`."""
    access_levels: Mapping[str, str] = _setting({}, _access_levels)
    """The level of `request.finished` by status or class of statuses, such as `{"4xx": "warning"}`. The others are
    `error` for 5xx and `info`."""
    access_sample: Mapping[str, float] = _setting({}, _access_sample)
    """The share of successful requests that have a line, such as 0.1, or a share per route, with `*` for the others.
    Always with a line: statuses from 400, responses cut off, and requests slower than the shortest `Latency` objective
    (without one, than a second)."""
    log_schema: LogSchema = _setting("scaleobs", partial(_one_of, allowed=get_args(LogSchema)))
    """The names of the keys of a line. `ecs` is the Elastic Common Schema."""
    log_redact: tuple[str, ...] = _setting((), _log_redact)
    """Secrets beside the usual: a word is the name of a key. Anything else is a regular expression, whose matches are
    removed from texts."""
    log_file: str | None = _setting(None, _log_file)
    """A file that gets every line, beside stdout. logrotate may move or truncate it."""
    registry: CollectorRegistry | None = _setting(None, _registry, has_variable=False)
    """The prometheus_client registry of the metrics; `None` is the default one."""

    @classmethod
    def read(cls, arguments: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> Settings:
        """
        Return the settings that the arguments and the environment give.

        Raises:
            SettingsError: a name is unknown, or a value can't be used.
        """
        table = {one.name: one for one in fields(cls)}
        for name in arguments:
            if name not in table:
                raise SettingsError(_unknown(name, list(table)))
        with_variable = [name for name, one in table.items() if one.metadata["has_variable"]]
        given: dict[str, tuple[str, Any]] = {}
        given |= from_environment(os.environ if environ is None else environ, with_variable)
        given |= {name: (name, value) for name, value in arguments.items()}
        values = {}
        for name, (source, value) in given.items():
            shown = f"{source} is {value!r}" if table[name].repr else f"{source} is a secret and not shown"
            values[name] = table[name].metadata["read"](value, shown)
        _refuse_shared_paths(settings := cls(**values))
        return settings


def _refuse_shared_paths(settings: Settings) -> None:
    names: dict[str, str] = {}
    for name in ("health_path", "ready_path", "startup_path", "metrics_path"):
        path = getattr(settings, name)
        if path is not None and path in names:
            msg = f"{name} is {path!r}, and so is {names[path]}: give each its own path."
            raise SettingsError(msg)
        names[path] = name


def _unknown(name: str, names: list[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"{name!r} is not a setting of scaleobs.{hint} Known are {', '.join(names)}."
