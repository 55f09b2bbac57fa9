"""
One frozen object that says how a service is observed.

Each value comes from the keyword argument, then the `SCALEOBS_*` variable, then the OpenTelemetry variable
that users already set, then the default.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypedDict
from urllib.parse import unquote

from scaleobs.objectives import Objective
from scaleobs.values import SettingsError, checked

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import CollectorRegistry


__all__ = ["Arguments", "RouteFunction", "Settings", "SettingsError"]

RouteFunction = Callable[[MutableMapping[str, Any]], str | None]
"""From a scope or an environ, after the application has handled it, to the template of its route."""


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
    checks: Iterable[Any]
    details: bool
    drain_seconds: float
    management_port: int | None
    stall_seconds: float
    objectives: Iterable[Objective]
    route: RouteFunction | None
    max_label_sets: int
    native_histograms: bool
    size_histograms: bool
    log_format: str
    log_level: str
    access_levels: Mapping[str | int, str]
    access_sample: float | Mapping[str, float]
    log_schema: str
    log_redact: Iterable[str]
    log_file: str | None
    registry: CollectorRegistry | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """
    How one service is observed.

    Attributes:
        service: what the service is called in `service_info` and in log lines.
        version: which release runs.
        environment: where it runs, such as `production`.
        health_path: where liveness is answered; `None` turns it off, as for the other three.
        ready_path: where readiness is answered.
        startup_path: where start-up is answered.
        metrics_path: where Prometheus scrapes.
        metrics_token: metrics are told only to who sends it as a bearer token; neither `repr` nor an error shows it.
        probe_aliases: answer liveness at `/livez` and `/healthz`, too, and readiness at `/readyz`, each where its probe
            isn't turned off and its path isn't one of those four.
        manual_start: the service has started only once `Observer.started()` was called.
        drain_seconds: for how long requests go on being served after SIGTERM, with `/ready` at 503, before the server
            hears of it; with 0 it hears of it at once.
        management_port: where a thread of its own answers all four endpoints, with details; then `metrics_path` and
            details are nowhere else.
        stall_seconds: for how long every worker has to have been stuck, its event loop or all its threads, until
            liveness fails on the management port.
        checks: each a `scaleobs.Check`, or one that `scaleobs.checks` makes.
        details: show in the probes what checks returned and why they failed, to anyone who asks.
        objectives: each `Latency` makes its `under` a bucket boundary.
        route: for a framework that scaleobs doesn't know: a function from the scope or environ, once the application
            has handled it, to the route's template, or to `None` for `unmatched`.
        max_label_sets: how many label sets there may be; requests past that are counted in four overflow series.
        native_histograms: keep a native histogram beside the classic one, for scrapes in the protobuf format.
        size_histograms: measure the bodies of requests and responses, too; no rule and no panel needs it.
        log_format: `json`, `console`, or `auto`: console on a terminal, JSON elsewhere. `auto` leaves logging
            alone that the application has configured itself. With `off`, scaleobs touches no logging, and writes
            no line for a request; faults of its own go to the stdlib's logger `scaleobs`.
        log_level: the least severe level that is written, and that of some loggers: `info,sqlalchemy.engine=debug`.
        access_levels: the level of `request.finished` by status or class of statuses, such as `{"4xx": "warning"}`;
            without a word `error` for 5xx and `info` for the others.
        access_sample: which share of successful requests has a line, such as 0.1, or a share per route with `*` for the
            others. Statuses from 400, cut answers, and whatever takes longer than the shortest `Latency` objective (a
            second where there is none) have theirs always.
        log_schema: the names of the keys of a line: ours, or `ecs` for the Elastic Common Schema.
        log_redact: what is secret beside the usual: a word names keys, anything else is a regular expression, and what
            it finds in a text goes.
        log_file: a file that every line is appended to, beside stdout; logrotate may move it away or empty it.
        registry: the prometheus_client registry that holds the metrics; the process's default one where
            `None`.
    """

    service: str = "service"
    version: str = "unknown"
    environment: str = "unknown"
    health_path: str | None = "/health"
    ready_path: str | None = "/ready"
    startup_path: str | None = "/startup"
    metrics_path: str | None = "/metrics"
    metrics_token: str | None = field(default=None, repr=False)
    probe_aliases: bool = False
    manual_start: bool = False
    checks: tuple[Any, ...] = ()
    details: bool = False
    drain_seconds: float = 5.0
    management_port: int | None = None
    stall_seconds: float = 30.0
    objectives: tuple[Objective, ...] = ()
    route: RouteFunction | None = None
    max_label_sets: int = 2000
    native_histograms: bool = False
    size_histograms: bool = False
    log_format: str = "auto"
    log_level: str = "info"
    access_levels: Mapping[str, str] = field(default_factory=dict)
    access_sample: Mapping[str, float] = field(default_factory=dict)
    log_schema: str = "scaleobs"
    log_redact: tuple[str, ...] = ()
    log_file: str | None = None
    registry: Any = None

    @classmethod
    def read(cls, arguments: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> Settings:
        """
        Return the settings that the arguments and the environment give.

        Raises:
            SettingsError: a name is unknown, or a value can't be used.
        """
        known = [one.name for one in fields(cls)]
        for name in arguments:
            if name not in known:
                raise SettingsError(_unknown(name, known))
        values = _from_environment(os.environ if environ is None else environ)
        sources = {name: f"{variable} is" for name, (variable, _) in values.items()}
        merged: dict[str, Any] = {name: value for name, (_, value) in values.items()}
        for name, value in arguments.items():
            merged[name] = value
            sources[name] = f"{name} is"
        for name, value in merged.items():
            merged[name] = checked(name, value, sources[name])
        _refuse_shared_paths(settings := cls(**merged))
        return settings


def _from_environment(environ: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return, per setting that the environment gives, the variable and its text."""
    resource = _resource_attributes(environ.get("OTEL_RESOURCE_ATTRIBUTES", ""))
    fallbacks = {
        "service": environ.get("OTEL_SERVICE_NAME") or resource.get("service.name"),
        "version": resource.get("service.version"),
        "environment": resource.get("deployment.environment.name") or resource.get("deployment.environment"),
    }
    values = {name: ("OTEL_RESOURCE_ATTRIBUTES", value) for name, value in fallbacks.items() if value}
    if environ.get("OTEL_SERVICE_NAME"):
        values["service"] = ("OTEL_SERVICE_NAME", environ["OTEL_SERVICE_NAME"])
    for one in fields(Settings):
        variable = f"SCALEOBS_{one.name.upper()}"
        if one.name not in ("registry", "checks", "objectives", "route") and variable in environ:
            values[one.name] = (variable, environ[variable])
    return values


def _resource_attributes(text: str) -> dict[str, str]:
    """Return what can be read of `OTEL_RESOURCE_ATTRIBUTES`, a list that is not ours to refuse."""
    pairs = (pair.partition("=") for pair in text.split(","))
    return {key.strip(): unquote(value.strip()) for key, _, value in pairs if value.strip()}


def _refuse_shared_paths(settings: Settings) -> None:
    seen: dict[str, str] = {}
    for name in ("health_path", "ready_path", "startup_path", "metrics_path"):
        path = getattr(settings, name)
        if path is not None and path in seen:
            msg = f"{name} is {path!r}, and so is {seen[path]}: give each its own path."
            raise SettingsError(msg)
        seen[path] = name


def _unknown(name: str, known: list[str]) -> str:
    import difflib

    close = difflib.get_close_matches(name, known, n=1)
    meant = f" Did you mean {close[0]!r}?" if close else ""
    return f"{name!r} is not a setting of scaleobs.{meant} Known are {', '.join(known)}."
