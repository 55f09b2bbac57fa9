"""`scaleobs run`: a server whose every process writes its lines as the service does."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from scaleobs.cli.files import shipped


@click.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="COMMAND...")
def run(command: tuple[str, ...]) -> None:
    """
    Run a server whose own lines are JSON, those of its main process, too.

    \b
    scaleobs run -- uvicorn shop:app --port 3000
    scaleobs run -- gunicorn shop:app --workers 4

    The server takes the place of this process. uvicorn, gunicorn, hypercorn and granian are told by the variables and
    arguments that they have for it; a log configuration of your own counts more. SCALEOBS_SERVICE names the service in
    lines that come before the application is loaded.
    """  # noqa: D301 - Click leaves the paragraph after a backspace as it is.
    program = shutil.which(command[0]) or shutil.which(command[0], path=str(Path(sys.executable).parent))
    if program is None:
        msg = f"{command[0]!r} is no program that can be found. Give a server's command, e.g. uvicorn shop:app."
        raise click.UsageError(msg)
    sys.stdout.flush()
    os.execve(program, arguments(command), environment(os.environ))  # noqa: S606 - That is what it is for.


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that tell servers of the log configuration."""
    path = log_config()
    theirs = environ.get("GUNICORN_CMD_ARGS", "")
    return {
        "UVICORN_LOG_CONFIG": path,
        "GRANIAN_LOG_CONFIG": path,
        **environ,
        "GUNICORN_CMD_ARGS": f"--log-config-json {path} {theirs}".strip(),
    }


def arguments(command: Sequence[str]) -> list[str]:
    """Return the command as it is, and for hypercorn, which reads no variable, with its argument."""
    if Path(command[0]).name != "hypercorn" or "--log-config" in command:
        return list(command)
    return [command[0], "--log-config", f"json:{log_config()}", *command[1:]]


def log_config() -> str:
    """Return the path of the log configuration."""
    return str(shipped("integrations/uvicorn/log_config.json"))
