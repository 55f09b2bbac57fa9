"""`scaleobs rules`: recording rules and alerts for Prometheus."""

from __future__ import annotations

from pathlib import Path

import click

from scaleobs.cli.files import write
from scaleobs.cli.options import job, said_plainly, service
from scaleobs.objectives import Objective, parse
from scaleobs.render import outputs


class _ObjectiveType(click.ParamType[Objective]):
    """An objective as `availability=99.9` or `latency=99:0.5`."""

    name = "objective"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Objective:
        """Return the objective that the text names."""
        try:
            return parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command()
@service
@job
@click.option(
    "--format",
    "format_",
    type=click.Choice(["prometheus", "prometheusrule"]),
    default="prometheus",
    show_default=True,
    help="A rule file, or the resource that the Prometheus Operator loads.",
)
@click.option(
    "--slo",
    "objectives",
    type=_ObjectiveType(),
    multiple=True,
    metavar="OBJECTIVE",
    help="What good means: availability=99.9, latency=99:0.5[:ROUTE] (seconds, route). One of each, or of each route.",
)
@click.option(
    "--window",
    "window_days",
    type=click.Choice(["28", "30"]),
    default="30",
    show_default=True,
    help="The days that the error budgets of objectives are for.",
)
@click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="NAME.KEY=VALUE",
    help="Change an alert: HighErrorRate.for=10m, HighCPUUsage.severity=warning. May be repeated.",
)
@click.option("--disable", "disabled", multiple=True, metavar="NAME", help="Leave an alert out. May be repeated.")
@click.option(
    "--time-scale",
    type=float,
    default=1,
    metavar="N",
    help="Divide every duration by N, for a fire drill: with 300, 5m become 1s.",
)
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write here, not to standard output.")
def rules(  # noqa: PLR0917
    service: str | None,
    job: str | None,
    format_: str,
    objectives: tuple[Objective, ...],
    window_days: str,
    changes: tuple[str, ...],
    disabled: tuple[str, ...],
    time_scale: float,
    out: Path | None,
) -> None:
    """Write recording rules and alerts for Prometheus."""
    with said_plainly():
        text = outputs.rules_text(
            service,
            job,
            objectives,
            time_scale,
            format_=format_,
            window_days=int(window_days),
            changes=changes,
            disabled=disabled,
        )
    if out is None:
        click.echo(text, nl=False)
    else:
        write(out, text)
