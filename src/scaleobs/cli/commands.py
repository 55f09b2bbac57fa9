"""The commands: from arguments to a renderer, and its text to a file or standard output."""

from __future__ import annotations

from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import click

from scaleobs.cli.files import write, write_all
from scaleobs.objectives import Objective, parse
from scaleobs.render import outputs
from scaleobs.render.shipped import SHIPPED

if TYPE_CHECKING:
    from collections.abc import Iterator

_ELSEWHERE: dict[str, str] = {"demo": "scaleobs.cli.demo:demo"}
"""Commands that are imported only when they are called, as module:name."""


class _Commands(click.Group):
    """The commands below, and those that live elsewhere."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, sorted."""
        return sorted({*super().list_commands(ctx), *_ELSEWHERE})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, imported now if it lives elsewhere."""
        if cmd_name not in _ELSEWHERE:
            return super().get_command(ctx, cmd_name)
        module, _, name = _ELSEWHERE[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command


class _ObjectiveType(click.ParamType[Objective]):
    """An objective as `availability=99.9` or `latency=99:0.5`."""

    name = "objective"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Objective:
        """Return the objective that the text names."""
        try:
            return parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


_service = click.option("--service", metavar="NAME", help="The service. Without it: every instrumented service.")
_job = click.option("--job", metavar="NAME", help="The job it is scraped under, if that isn't the service's name.")


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(version("scaleobs"), message="%(prog)s %(version)s")
def scaleobs() -> None:
    """Write the alert rules, dashboards and deployment files that match an instrumented service."""


@scaleobs.command()
@_service
@_job
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
    help="What good means: availability=99.9, latency=99:0.5 (percent:seconds). One of each at most.",
)
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
    time_scale: float,
    out: Path | None,
) -> None:
    """Write recording rules and alerts for Prometheus."""
    with _said_plainly():
        text = outputs.rules_text(service, job, objectives, time_scale, format_=format_)
    if out is None:
        click.echo(text, nl=False)
    else:
        write(out, text)


@scaleobs.command()
@_service
@_job
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Write below this directory."
)
def dashboards(service: str | None, job: str | None, out: Path) -> None:
    """Write Grafana dashboards."""
    with _said_plainly():
        files = outputs.dashboard_texts(service, job)
    write_all(out, files)


@scaleobs.command()
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Write below this directory."
)
def render(out: Path) -> None:
    """Write every file that ships with scaleobs."""
    write_all(out, {name: text() for name, text in SHIPPED.items()})


@contextmanager
def _said_plainly() -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise click.UsageError(str(error)) from None
