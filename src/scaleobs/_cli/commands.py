"""The command group, and the short commands: dashboards, render, probe and run."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import click

from scaleobs import probe as container_probe
from scaleobs._cli.options import job, service, usage_errors
from scaleobs._cli.output import write_all
from scaleobs._render import output
from scaleobs._render.output import RENDERED, STATIC

_PACKAGE = Path(__file__).parents[1]

_LAZY: dict[str, str] = {
    "check": "scaleobs._cli.check.command:check",
    "demo": "scaleobs._cli.demo.command:demo",
    "rules": "scaleobs._cli.rules:rules",
    "stories": "scaleobs._cli.stories:stories",
}
"""Commands that are imported only when they are called, as module:name."""


class _LazyGroup(click.Group):
    """The commands of this module, and those of `_LAZY`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, sorted."""
        return sorted({*super().list_commands(ctx), *_LAZY})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command; import its module first if it is lazy."""
        if cmd_name not in _LAZY:
            return super().get_command(ctx, cmd_name)
        module, _, name = _LAZY[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(version("scaleobs"), message="%(prog)s %(version)s")
def scaleobs() -> None:
    """Write and test alert rules and dashboards for instrumented services; run servers, probes and a demo."""


@scaleobs.command()
@service
@job
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Write to this directory.")
def dashboards(service: str | None, job: str | None, out: Path) -> None:
    """Write Grafana dashboards."""
    with usage_errors():
        files = output.dashboard_texts(service, job)
    write_all(out, files)


@scaleobs.command()
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="Write to this directory.")
def render(out: Path) -> None:
    """
    Write the files that ship with scaleobs.

    These are rules and a dashboard for every instrumented service, examples for Kubernetes and Prometheus with a
    service named orders, and configurations of Alertmanager, gunicorn, uvicorn, hypercorn and granian.
    """
    static = {name: _shipped(name).read_text(encoding="utf-8") for name in STATIC}
    write_all(out, {**static, **{name: text() for name, text in RENDERED.items()}})


class _PassThrough(click.Command):
    """A command that passes all arguments on, except those for help."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep every argument as it is, unless one requests help."""
        help_options = [one for one in args if one in ctx.help_option_names]
        return super().parse_args(ctx, help_options or ["--", *args])


@scaleobs.command(cls=_PassThrough, options_metavar="")
@click.argument(
    "arguments", nargs=-1, type=click.UNPROCESSED, metavar="[live|ready|startup] [--port 3000] [--timeout 2] [--tls]"
)
@click.pass_context
def probe(ctx: click.Context, arguments: tuple[str, ...]) -> None:
    """
    Call a probe of a service on this machine.

    The exit code is 0 if the probe answers 200, and 1 otherwise. The command prints one line with the response and
    the checks that are down.

    \b
    live, ready, startup  The probe. Default: live.
    --port 3000           The port of the service.
    --timeout 2           The limit for the whole call, in seconds.
    --tls                 The service uses TLS. Its certificate is not verified.

    SCALEOBS_HEALTH_PATH, SCALEOBS_READY_PATH and SCALEOBS_STARTUP_PATH change the paths. In an image,
    `python -m scaleobs.probe` does the same without the [cli] extra, and starts in a fraction of the time.
    """  # noqa: D301 - Click keeps the paragraph after a backspace as it is.
    ctx.exit(container_probe.main(list(arguments)))


@scaleobs.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND...")
def run(command: tuple[str, ...]) -> None:
    """
    Run a server with JSON logs, also of its main process.

    \b
    scaleobs run -- uvicorn shop:app --port 3000
    scaleobs run -- gunicorn shop:app --workers 4

    The server replaces this process. uvicorn, gunicorn, hypercorn and granian get the log configuration through their
    own variables and arguments; your own log configuration has precedence. SCALEOBS_SERVICE is the service name in
    lines that are logged before the application is loaded.
    """  # noqa: D301 - Click keeps the paragraph after a backspace as it is.
    program = shutil.which(command[0]) or shutil.which(command[0], path=str(Path(sys.executable).parent))
    if program is None:
        msg = f"The program {command[0]!r} is not found: give the command of a server, such as uvicorn shop:app."
        raise click.UsageError(msg)
    sys.stdout.flush()
    os.execve(program, server_arguments(command), server_environment(os.environ))  # noqa: S606 - The user's command.


def server_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment, with the variables from which servers read their log configuration."""
    path = log_config()
    gunicorn_arguments = environ.get("GUNICORN_CMD_ARGS", "")
    return {
        "UVICORN_LOG_CONFIG": path,
        "GRANIAN_LOG_CONFIG": path,
        **environ,
        "GUNICORN_CMD_ARGS": f"--log-config-json {path} {gunicorn_arguments}".strip(),
    }


def server_arguments(command: Sequence[str]) -> list[str]:
    """Return the command; hypercorn, which reads no variable, gets an argument."""
    if Path(command[0]).name != "hypercorn" or "--log-config" in command:
        return list(command)
    return [command[0], "--log-config", f"json:{log_config()}", *command[1:]]


def log_config() -> str:
    """Return the path of the log configuration for servers."""
    return str(_shipped("integrations/uvicorn/log_config.json"))


def _shipped(name: str) -> Path:
    """Return the path of a file that ships with scaleobs: in the package, or in the checkout."""
    installed = _PACKAGE / "_shipped" / name
    return installed if installed.exists() else _PACKAGE.parents[1] / name
