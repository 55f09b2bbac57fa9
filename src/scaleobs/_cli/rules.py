"""`scaleobs rules`: recording rules and alerts, from flags, a configuration file and an application."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, cast

import click

from scaleobs._cli import application
from scaleobs._cli.options import given, rule_options, usage_errors
from scaleobs._cli.output import write
from scaleobs._render import output
from scaleobs._render.rules import RuleArguments
from scaleobs.catalog import DEFAULT_BUCKETS
from scaleobs.objectives import Latency, Objective

_REPEATED = ("overrides", "disabled", "labels")
_SERVICES = "services"
_NOT_IN_A_FILE = ("config", "out", "help")
_NOT_PER_SERVICE = ("format_", "namespace", "labels", "is_helm", "time_scale")


@click.command()
@rule_options
@click.option("--runbook-url", metavar="URL", help="The URL of RUNBOOK.md, or of a page with its headings, for alerts.")
@click.option("--dashboard-url", metavar="URL", help="The URL of the Grafana that has the dashboard, for alerts.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(output.FORMATS),
    help="A rule file, a PrometheusRule of the Prometheus Operator, or a ConfigMap that contains a rule file."
    "  [default: prometheus]",
)
@click.option("--namespace", metavar="NAME", help="The namespace of the PrometheusRule or ConfigMap.")
@click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="NAME=VALUE",
    help="A label of the PrometheusRule or ConfigMap, by which an operator selects it: release=prometheus. "
    "May be repeated.",
)
@click.option("--helm", "is_helm", is_flag=True, help="Escape the templates of alerts for a Helm chart.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write to this file, not standard output.")
def rules(out: Path | None, **flags: Any) -> None:
    """
    Write recording rules and alerts for Prometheus.

    \b
    scaleobs rules
    scaleobs rules --service orders --slo availability=99.9 --slo latency=99:0.5
    scaleobs rules --app shop:app --format prometheusrule --label release=prometheus | kubectl apply -f -
    scaleobs rules --config scaleobs.toml --out rules.yaml

    Precedence: flags, file, application. Values of options that may be repeated are added up; of two objectives of the
    same kind and route, or two changes of the same key of an alert, the one with precedence counts. A file:

    \b
    scrape-interval = "15s"
    [[services]]
    service = "orders"
    slo = ["availability=99.9", "latency=99:0.5"]
    [[services]]
    app = "shop:app"

    Values above the tables apply to all services; --service selects one of them.
    """  # noqa: D301 - Click keeps the paragraph after a backspace as it is.
    with usage_errors():
        text = _text(given(flags))
    if out is None:
        click.echo(text, nl=False)
    else:
        write(out, text)


def single_request(flags: dict[str, Any]) -> RuleArguments:
    """
    Return the request for rules of one service, from the flags, their file and their application.

    Raises:
        ValueError: a value is invalid, or the file has several services and no flag selects one.
    """
    flags = given(flags)
    found = _requests(flags, *_config(flags))
    if len(found) > 1:
        names = ", ".join(str(one.get("service", one.get("job"))) for one in found)
        msg = f"{flags['config']} has several services: give --service with one of {names}."
        raise ValueError(msg)
    return found[0]


def _text(flags: dict[str, Any]) -> str:
    shared, services = _config(flags)
    requests = _requests(flags, shared, services)
    if flags.get("format_") == "prometheus":
        # The flag overrides the file's format: its namespace and labels have no use then.
        shared = {key: value for key, value in shared.items() if key not in ("namespace", "labels")}
    merged = _merge(flags, shared)
    options = {key: value for key, value in merged.items() if key in output.Output.__annotations__}
    return output.rules_of(requests, output.Output(**options), output.command(flags))


def _requests(flags: dict[str, Any], shared: dict[str, Any], services: list[dict[str, Any]]) -> list[RuleArguments]:
    """Return the request for each service."""
    merged = _per_service(flags, shared, services) if services else [_with_application(_merge(flags, shared))]
    return [
        cast("RuleArguments", {key: value for key, value in one.items() if key in RuleArguments.__annotations__})
        for one in merged
    ]


def _per_service(flags: dict[str, Any], shared: dict[str, Any], services: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the parameters of each service of a file, or only of the one that a flag selects."""
    for key in ("app", "job"):
        if key in flags:
            msg = f"--{key} is for one service, but {flags['config']} has [[services]]: set {key} in its table."
            raise ValueError(msg)
    requested: dict[str, dict[str, Any]] = {}
    for number, table in enumerate(services, start=1):
        parameters = _with_application(_merge(table, shared))
        name = parameters.get("service", parameters.get("job"))
        if name is None or name in requested:
            reason = "has no service, job or app" if name is None else f"is {name!r} again"
            msg = f"{flags['config']}, [[services]] {number} {reason}: each table must be another service."
            raise ValueError(msg)
        requested[name] = parameters
    if "service" not in flags:
        return [_merge(flags, one) for one in requested.values()]
    if flags["service"] not in requested:
        msg = f"{flags['config']} has no service {flags['service']!r}: give one of {', '.join(requested)}."
        raise ValueError(msg)
    return [_merge(flags, requested[flags["service"]])]


def _with_application(requested: dict[str, Any]) -> dict[str, Any]:
    if "app" not in requested:
        return requested
    info = application.load(requested["app"])
    if info.service is None and not requested.keys() & {"service", "job"}:
        msg = (
            f"The application {requested['app']!r} has no service name: use instrument(app, service='orders'), set "
            f"SCALEOBS_SERVICE, or give --service orders."
        )
        raise ValueError(msg)
    boundaries = {*DEFAULT_BUCKETS, *(one.under for one in info.objectives if isinstance(one, Latency))}
    service = {} if info.service is None else {"service": info.service}
    return _merge(requested, {**service, "objectives": tuple(info.objectives), "boundaries": sorted(boundaries)})


def _merge(upper: dict[str, Any], lower: dict[str, Any]) -> dict[str, Any]:
    """Return both together: if both have a value, the upper one counts."""
    both = {**lower, **upper}
    for key in _REPEATED:
        both[key] = (*lower.get(key, ()), *upper.get(key, ()))
    objectives = upper.get("objectives", ())
    replaced = set(map(_target, objectives))
    both["objectives"] = (*(one for one in lower.get("objectives", ()) if _target(one) not in replaced), *objectives)
    return both


def _target(objective: Objective) -> tuple[type[Objective], str | None]:
    return type(objective), getattr(objective, "route", None)


def _config(flags: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the parameters that a configuration file sets for all services, and those for each one."""
    if "config" not in flags:
        return {}, []
    path: Path = flags["config"]
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"Can't read {str(path)!r}: {error.strerror}."
        raise ValueError(msg) from None
    except ValueError as error:
        msg = f"{path} is not valid TOML: {error}."
        raise ValueError(msg) from None
    options = {
        option.opts[0].removeprefix("--"): option
        for option in rules.params
        if isinstance(option, click.Option) and option.name not in _NOT_IN_A_FILE
    }
    services = content.pop(_SERVICES, [])
    if not isinstance(services, list) or not all(isinstance(one, dict) for one in services):
        msg = f"{path}: {_SERVICES} is {services!r}: write each service as a table, [[{_SERVICES}]]."
        raise ValueError(msg)
    per_service = {key: option for key, option in options.items() if option.name not in _NOT_PER_SERVICE}
    return (
        _parameters(content, options, [*options, f"[[{_SERVICES}]]"], str(path)),
        [
            _parameters(table, per_service, per_service, f"{path}, [[{_SERVICES}]] {number}")
            for number, table in enumerate(services, start=1)
        ],
    )


def _parameters(
    table: dict[str, Any], options: dict[str, click.Option], keys: Iterable[str], location: str
) -> dict[str, Any]:
    """Return the command's parameters for a table whose keys are flags."""
    arguments: list[str] = []
    for key, value in table.items():
        if key not in options:
            msg = f"{location}: the key {key!r} does not exist: use one of {', '.join(sorted(keys))}."
            raise ValueError(msg)
        arguments += _arguments(key, value, options[key], location)
    try:
        return given(rules.make_context(rules.name, arguments).params)
    except click.UsageError as error:
        msg = f"{location}: {error.format_message()}"
        raise ValueError(msg) from None


def _arguments(key: str, value: Any, option: click.Option, location: str) -> Iterator[str]:
    if option.is_flag and isinstance(value, bool):
        if value:
            yield f"--{key}"
        return
    values = value if option.multiple and isinstance(value, list) else [value]
    for one in values:
        if option.is_flag or isinstance(one, bool) or not isinstance(one, str | int | float):
            kind = (
                "true or false"
                if option.is_flag
                else "a list of strings"
                if option.multiple
                else "a string or a number"
            )
            msg = f"{location}: {key} is {one!r}: give {kind}."
            raise ValueError(msg)
        yield f"--{key}={one}"
