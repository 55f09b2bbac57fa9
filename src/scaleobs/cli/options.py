"""What several commands ask for, and how each says what it can't do."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from scaleobs._render.durations import milliseconds
from scaleobs.objectives import Objective, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

service = click.option("--service", metavar="NAME", help="The service. Without it: every instrumented service.")
job = click.option("--job", metavar="NAME", help="The job it is scraped under, if that isn't the service's name.")


class _ObjectiveType(click.ParamType[Objective]):
    """An objective as `availability=99.9` or `latency=99:0.5`."""

    name = "objective"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Objective:
        """Return the objective that the text names."""
        try:
            return parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _IntervalType(click.ParamType[int]):
    """A short duration such as `15s` or `1m`."""

    name = "interval"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return its seconds."""
        try:
            found = milliseconds(str(value))
        except ValueError:
            found = 1
        if found % 1000:
            self.fail(f"{value!r} is no scrape interval: write it like 15s, 1m or 1m30s.", param, ctx)
        return found // 1000


# None has a default of its own, so that what was given can be told from what a file or an application says.
_WATCHED = (
    click.option(
        "--app",
        metavar="MODULE:NAME",
        help="Import an instrumented application, or what makes it, and take its name and objectives: shop:app.",
    ),
    click.option(
        "--config",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="A TOML file whose keys are the names of the flags of `scaleobs rules`, with a table [[services]] for "
        "each of several services.",
    ),
    service,
    job,
    click.option(
        "--slo",
        "objectives",
        type=_ObjectiveType(),
        multiple=True,
        metavar="OBJECTIVE",
        help="What good means: availability=99.9, latency=99:0.5 (seconds), with :ROUTE of one route. May be repeated.",
    ),
    click.option(
        "--window",
        "window_days",
        type=click.Choice(["28", "30"]),
        callback=lambda _, __, value: value and int(value),
        help="The days that the error budgets of objectives are for.  [default: 30]",
    ),
    click.option(
        "--scrape-interval",
        type=_IntervalType(),
        metavar="DURATION",
        help="How often Prometheus scrapes the service: 15s, 1m.  [default: 30s]",
    ),
    click.option(
        "--set",
        "overrides",
        multiple=True,
        metavar="NAME.KEY=VALUE",
        help="Change an alert: HighErrorRate.for=10m, .severity=warning, HighMemoryUsage.above=95%. May be repeated.",
    ),
    click.option("--disable", "disabled", multiple=True, metavar="NAME", help="Leave an alert out. May be repeated."),
    click.option(
        "--time-scale",
        type=float,
        metavar="N",
        help="Divide every duration by N, for a fire drill: with 300, 5m become 1s.",
    ),
)


def watched(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the flags that say which rules are meant."""
    for option in reversed(_WATCHED):
        command = option(command)
    return command


@contextmanager
def said_plainly() -> Iterator[None]:
    """Make a `ValueError`, whose message says what was wrong, the command's own answer."""
    try:
        yield
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def given(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters of a command that were given; none has a default that says anything."""
    return {key: value for key, value in parameters.items() if value is not None and value is not False and value != ()}
