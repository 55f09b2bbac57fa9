"""Files: writing them so that a failure loses nothing, and those that ship with scaleobs."""

from __future__ import annotations

import os
from pathlib import Path

import click

_PACKAGE = Path(__file__).parents[1]


def shipped(name: str) -> Path:
    """Return the path of a file that ships with scaleobs: in the package, or in the checkout it is installed from."""
    installed = _PACKAGE / "_shipped" / name
    return installed if installed.exists() else _PACKAGE.parents[1] / name


def write(path: Path, text: str) -> None:
    """
    Write a file as a whole or not at all.

    The text goes to a file beside it first, which then takes its name: whoever reads the file meets the old
    text or the new, and a full disk leaves the old one.

    Raises:
        click.ClickException: the file can't be written.
    """
    try:
        # A pipe or a terminal, as behind /dev/stdout, is written to rather than replaced.
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8", newline="\n")
            return
        path = path.resolve()
        beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            beside.write_text(text, encoding="utf-8", newline="\n")
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        msg = (
            f"Can't write {str(path)!r}: {error.strerror}. "
            f"Give a path in a directory that exists and may be written to."
        )
        raise click.ClickException(msg) from None


def write_all(directory: Path, files: dict[str, str]) -> None:
    """
    Write files below a directory, which is made where it is missing, and say what was written.

    Raises:
        click.ClickException: the directory can't be made or a file in it can't be written.
    """
    for name, text in files.items():
        path = directory / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            msg = (
                f"Can't make the directory {str(path.parent)!r}: {error.strerror}. "
                f"Give --out a directory that may be written to."
            )
            raise click.ClickException(msg) from None
        write(path, text)
        click.echo(f"Wrote {path}", err=True)
