"""The commands: from arguments to a renderer, and its text to a file or standard output."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import click

from scaleobs import probe as container_probe
from scaleobs._render import output
from scaleobs._render.shipped import RENDERED, STATIC
from scaleobs.cli.files import shipped, write_all
from scaleobs.cli.options import job, said_plainly, service

_ELSEWHERE: dict[str, str] = {
    "check": "scaleobs.cli.check.command:check",
    "demo": "scaleobs.cli.demo:demo",
    "rules": "scaleobs.cli.rules:rules",
    "run": "scaleobs.cli.run:run",
    "stories": "scaleobs.cli.stories:stories",
}
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


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(version("scaleobs"), message="%(prog)s %(version)s")
def scaleobs() -> None:
    """Write alert rules and dashboards for instrumented services and test them; run servers, probes and a demo."""


@scaleobs.command()
@service
@job
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Write below this directory."
)
def dashboards(service: str | None, job: str | None, out: Path) -> None:
    """Write Grafana dashboards."""
    with said_plainly():
        files = output.dashboard_texts(service, job)
    write_all(out, files)


@scaleobs.command()
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Write below this directory."
)
def render(out: Path) -> None:
    """
    Write the files that ship with scaleobs.

    They are rules and a dashboard for every instrumented service, examples for Kubernetes and Prometheus for a service
    called orders, and configurations of Alertmanager, gunicorn, uvicorn, hypercorn and granian.
    """
    static = {name: shipped(name).read_text(encoding="utf-8") for name in STATIC}
    write_all(out, {**static, **{name: text() for name, text in RENDERED.items()}})


class _HandedOn(click.Command):
    """A command whose arguments are read by what it calls, all but those that ask for help."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Take every argument as it is."""
        asking_for_help = [one for one in args if one in ctx.help_option_names]
        return super().parse_args(ctx, asking_for_help or ["--", *args])


@scaleobs.command(cls=_HandedOn, options_metavar="")
@click.argument(
    "arguments", nargs=-1, type=click.UNPROCESSED, metavar="[live|ready|startup] [--port 3000] [--timeout 2]"
)
@click.pass_context
def probe(ctx: click.Context, arguments: tuple[str, ...]) -> None:
    """
    Ask a service on this machine how it is.

    It is live, ready or has started where that probe answers 200: the exit code is 0 then, and 1 otherwise. One line
    says what came back, with the checks that are down.

    \b
    live, ready, startup  The probe; live where none is given.
    --port 3000           Where the service listens.
    --timeout 2           How many seconds all of it may take.

    A path is that of SCALEOBS_HEALTH_PATH, SCALEOBS_READY_PATH or SCALEOBS_STARTUP_PATH, where it is set. In an image,
    `python -m scaleobs.probe` does the same without the [cli] extra, and starts in a fraction of the time.
    """  # noqa: D301 - Click leaves the paragraph after a backspace as it is.
    ctx.exit(container_probe.main(list(arguments)))
