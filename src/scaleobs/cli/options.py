"""What several commands ask for, and how each says what it can't do."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

service = click.option("--service", metavar="NAME", help="The service. Without it: every instrumented service.")
job = click.option("--job", metavar="NAME", help="The job it is scraped under, if that isn't the service's name.")


@contextmanager
def said_plainly() -> Iterator[None]:
    """Make a `ValueError`, whose message says what was wrong, the command's own answer."""
    try:
        yield
    except ValueError as error:
        raise click.UsageError(str(error)) from None
