"""What commands write: files, and tables on the terminal."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.console import Console

_TABLE_WIDTH = 140


def write(path: Path, text: str) -> None:
    """
    Write a file as a whole or not at all.

    The text goes to a temporary file in the same directory, which then replaces the file: readers see the old text or
    the new one, and a full disk leaves the old one.

    Raises:
        click.ClickException: the file can't be written.
    """
    try:
        # A pipe or a terminal, such as behind /dev/stdout, can't be replaced.
        if path.exists() and not path.is_file():
            path.write_text(text, encoding="utf-8", newline="\n")
            return
        path = path.resolve()
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            temporary.write_text(text, encoding="utf-8", newline="\n")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        msg = f"Can't write {str(path)!r}: {error.strerror}. Give a path in an existing, writable directory."
        raise click.ClickException(msg) from None


def write_all(directory: Path, files: dict[str, str]) -> None:
    """
    Write files to a directory, which is created if it is missing, and print each path to standard error.

    Raises:
        click.ClickException: the directory can't be created, or a file in it can't be written.
    """
    for name, text in files.items():
        path = directory / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            msg = (
                f"Can't create the directory {str(path.parent)!r}: {error.strerror}. "
                f"Give --out a directory that is writable."
            )
            raise click.ClickException(msg) from None
        write(path, text)
        click.echo(f"Wrote {path}", err=True)


def table_console() -> Console:
    """Return a console as wide as the terminal; elsewhere, such as in a log of CI, 140 columns wide."""
    from rich.console import Console

    # Rules may contain brackets, which are markup in Rich.
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = _TABLE_WIDTH
    return console
