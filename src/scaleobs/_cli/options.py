"""The options that several commands have, and usage errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from scaleobs._render.durations import milliseconds
from scaleobs.objectives import Objective, parse

service = click.option("--service", metavar="NAME", help="The service. Without it: every instrumented service.")
job = click.option("--job", metavar="NAME", help="Its scrape job, if that differs from the service's name.")


class _ObjectiveType(click.ParamType[Objective]):
    """An objective as `availability=99.9` or `latency=99:0.5`."""

    name = "objective"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> Objective:
        """Return the objective."""
        try:
            return parse(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _IntervalType(click.ParamType[int]):
    """A short duration such as `15s` or `1m`."""

    name = "interval"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the duration in seconds."""
        try:
            found = milliseconds(str(value))
        except ValueError:
            found = 1
        if found % 1000:
            self.fail(f"{value!r} is not a scrape interval: write it like 15s, 1m or 1m30s.", param, ctx)
        return found // 1000


# No option has a default: a flag that is absent must be recognisable, since a file or an application may set its value.
_RULE_OPTIONS = (
    click.option(
        "--app",
        metavar="MODULE:NAME",
        help="Import an instrumented application, or its factory, and use its service name and objectives: shop:app.",
    ),
    click.option(
        "--config",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="A TOML file. Its keys are the names of the flags of `scaleobs rules`; for several services, each is a "
        "table [[services]].",
    ),
    service,
    job,
    click.option(
        "--slo",
        "objectives",
        type=_ObjectiveType(),
        multiple=True,
        metavar="OBJECTIVE",
        help="An objective: availability=99.9, latency=99:0.5 (seconds); :ROUTE at its end limits it to one route. "
        "May be repeated.",
    ),
    click.option(
        "--window",
        "window_days",
        type=click.Choice(["28", "30"]),
        callback=lambda _, __, value: value and int(value),
        help="The period of the error budgets, in days.  [default: 30]",
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
    click.option("--disable", "disabled", multiple=True, metavar="NAME", help="Omit an alert. May be repeated."),
    click.option(
        "--time-scale",
        type=float,
        metavar="N",
        help="Divide every duration by N, for a fire drill: with 300, 5m become 1s.",
    ),
)


def rule_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that select and change rules to a command."""
    for option in reversed(_RULE_OPTIONS):
        command = option(command)
    return command


def given(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that were given; those that were not have an empty value."""
    return {key: value for key, value in parameters.items() if value is not None and value is not False and value != ()}


@contextmanager
def usage_errors() -> Iterator[None]:
    """Turn a `ValueError` into a usage error with the same message and exit code 2."""
    try:
        yield
    except ValueError as error:
        raise click.UsageError(str(error)) from None
