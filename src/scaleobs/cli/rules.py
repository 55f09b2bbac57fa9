"""`scaleobs rules`: recording rules and alerts for Prometheus."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import click

from scaleobs._render import output
from scaleobs._render.rules import Request
from scaleobs.catalog import DEFAULT_BUCKETS
from scaleobs.cli import application, configuration
from scaleobs.cli.files import write
from scaleobs.cli.options import given, said_plainly, watched
from scaleobs.objectives import Latency, Objective

_REPEATED = ("overrides", "disabled", "labels")


@click.command()
@watched
@click.option("--runbook-url", metavar="URL", help="Where RUNBOOK.md is, or a page with its headings, for alerts.")
@click.option("--dashboard-url", metavar="URL", help="Where the Grafana is that has the dashboard, for alerts.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(output.FORMATS),
    help="A rule file, the resource that the Prometheus Operator loads, or a ConfigMap with a rule file in it."
    "  [default: prometheus]",
)
@click.option("--namespace", metavar="NAME", help="The namespace of that resource or ConfigMap.")
@click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="NAME=VALUE",
    help="A label of it, which an operator may select it by: release=prometheus. May be repeated.",
)
@click.option("--helm", "is_helm", is_flag=True, help="Escape what Helm would take for a template of its own.")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write here, not to standard output.")
def rules(out: Path | None, **flags: Any) -> None:
    """
    Write recording rules and alerts for Prometheus.

    \b
    scaleobs rules
    scaleobs rules --service orders --slo availability=99.9 --slo latency=99:0.5
    scaleobs rules --app shop:app --format prometheusrule --label release=prometheus | kubectl apply -f -
    scaleobs rules --config scaleobs.toml --out rules.yaml

    Flags count more than the file, and the file more than the application. What may be repeated adds up, and of two
    objectives for the same, or two changes of the same, the one that counts more is taken. In the file:

    \b
    scrape-interval = "15s"
    [[services]]
    service = "orders"
    slo = ["availability=99.9", "latency=99:0.5"]
    [[services]]
    app = "shop:app"

    Values above the tables are for all of them; --service then picks one.
    """  # noqa: D301 - Click leaves the paragraph after a backspace as it is.
    with said_plainly():
        text = _text(given(flags))
    if out is None:
        click.echo(text, nl=False)
    else:
        write(out, text)


def _text(flags: dict[str, Any]) -> str:
    top, services = _file(flags)
    requests = _requests(flags, top, services)
    if flags.get("format_") == "prometheus":
        # What the file has for a resource doesn't matter then.
        top = {key: value for key, value in top.items() if key not in ("namespace", "labels")}
    form = {key: value for key, value in _merge(flags, top).items() if key in output.Output.__annotations__}
    return output.rules_of(requests, output.Output(**form), output.command(flags))


def of_one_service(flags: dict[str, Any]) -> Request:
    """
    Return the request for rules that the flags, their file and their application make.

    Raises:
        ValueError: they can't be read, or are for several services.
    """
    flags = given(flags)
    found = _requests(flags, *_file(flags))
    if len(found) > 1:
        names = ", ".join(str(one.get("service", one.get("job"))) for one in found)
        msg = f"{flags['config']} has several services: give --service and one of {names}."
        raise ValueError(msg)
    return found[0]


def _file(flags: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    return configuration.read(flags["config"], rules) if "config" in flags else ({}, [])


def _requests(flags: dict[str, Any], top: dict[str, Any], services: list[dict[str, Any]]) -> list[Request]:
    """Return the request for each service."""
    merged = _of_services(flags, top, services) if services else [_with_application(_merge(flags, top))]
    return [
        cast("Request", {key: value for key, value in one.items() if key in Request.__annotations__}) for one in merged
    ]


def _of_services(flags: dict[str, Any], top: dict[str, Any], services: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what is requested for each service of a file, or for the one of them that a flag names."""
    for key in ("app", "job"):
        if key in flags:
            msg = f"--{key} is for one service, and {flags['config']} has [[services]]: say it there."
            raise ValueError(msg)
    requested: dict[str, dict[str, Any]] = {}
    for number, one in enumerate(services, start=1):
        of_one = _with_application(_merge(one, top))
        name = of_one.get("service", of_one.get("job"))
        if name is None or name in requested:
            what = "has no service, job or app" if name is None else f"is {name!r} once more"
            msg = f"{flags['config']}, [[services]] {number} {what}: each has to be another service."
            raise ValueError(msg)
        requested[name] = of_one
    if "service" not in flags:
        return [_merge(flags, one) for one in requested.values()]
    if flags["service"] not in requested:
        msg = f"{flags['config']} has no service {flags['service']!r}: give one of {', '.join(requested)}."
        raise ValueError(msg)
    return [_merge(flags, requested[flags["service"]])]


def _with_application(requested: dict[str, Any]) -> dict[str, Any]:
    if "app" not in requested:
        return requested
    said = application.said_by(requested["app"])
    if said.service is None and not requested.keys() & {"service", "job"}:
        msg = (
            f"The application {requested['app']!r} has no name: write instrument(app, service='orders') there, set "
            f"SCALEOBS_SERVICE, or give --service orders."
        )
        raise ValueError(msg)
    boundaries = {*DEFAULT_BUCKETS, *(one.under for one in said.objectives if isinstance(one, Latency))}
    service = {} if said.service is None else {"service": said.service}
    return _merge(requested, {**service, "objectives": tuple(said.objectives), "boundaries": sorted(boundaries)})


def _merge(upper: dict[str, Any], lower: dict[str, Any]) -> dict[str, Any]:
    """Return both together: if both have a value, the upper one counts."""
    both = {**lower, **upper}
    for key in _REPEATED:
        both[key] = (*lower.get(key, ()), *upper.get(key, ()))
    mine = upper.get("objectives", ())
    replaced = set(map(_target, mine))
    both["objectives"] = (*(one for one in lower.get("objectives", ()) if _target(one) not in replaced), *mine)
    return both


def _target(objective: Objective) -> tuple[type[Objective], str | None]:
    return type(objective), getattr(objective, "route", None)
