"""Objectives of a service: the share of requests that succeed, and the share of requests that are fast."""

from __future__ import annotations

import re
from dataclasses import dataclass

# A number is no route: it is the time of a latency, given to an availability by mistake.
_NUMBER = re.compile(r"[0-9.]+")


@dataclass(frozen=True, slots=True)
class Availability:
    """
    An objective for the share of requests that do not fail with a 5xx status.

    Args:
        percent: the share that must succeed, in percent, above 0 and below 100.
        route: the template of a single route; None for all requests of the service.

    Raises:
        ValueError: a value is outside its range.
    """

    percent: float
    route: str | None = None

    def __post_init__(self) -> None:
        _check_percent("Availability", self.percent)
        _check_route("Availability(99.9, ", self.route)


@dataclass(frozen=True, slots=True)
class Latency:
    """
    An objective for the share of requests answered within a time.

    Requests that failed with a 5xx status, or whose client disconnected (499), are not counted: a fast error is not
    good latency. `instrument(objectives=…)` makes `under` a bucket boundary of the histogram, so that rules count
    exactly.

    Args:
        percent: the share that must be fast, in percent, above 0 and below 100.
        under: the time in seconds, above 0.
        route: the template of a single route; None for all requests of the service.

    Raises:
        ValueError: a value is outside its range.
    """

    percent: float
    under: float
    route: str | None = None

    def __post_init__(self) -> None:
        _check_percent("Latency", self.percent)
        if not _is_number(self.under) or not 0 < self.under < float("inf"):
            msg = f"Latency under={self.under!r} is not a time: give seconds above 0, e.g. Latency(99, under=0.5)."
            raise ValueError(msg)
        _check_route("Latency(99, under=0.5, ", self.route)


Objective = Availability | Latency


def parse(text: str) -> Objective:
    """
    Return the objective of a command line: `availability=99.9` or `latency=99:0.5`, and with `:` and a route for a
    single route: `latency=99:0.5:/items/{item_id}`.

    Raises:
        ValueError: the text is no objective, or its numbers are out of range.
    """
    examples = "availability=99.9 or latency=99:0.5"
    kind, equals, value = text.partition("=")
    percent, colon, rest = value.partition(":")
    under, has_route, route = rest.partition(":")
    try:
        if kind == "availability" and equals and not _NUMBER.fullmatch(rest):
            return Availability(float(percent), route=rest if colon else None)
        if kind == "latency" and colon:
            return Latency(float(percent), under=float(under), route=route if has_route else None)
    except ValueError as error:
        if "could not convert" not in str(error):
            raise
        msg = f"The objective {text!r} has something that is not a number: write it like {examples}."
        raise ValueError(msg) from None
    msg = f"The objective {text!r} is not known: write it like {examples}."
    raise ValueError(msg)


def _check_percent(kind: str, percent: float) -> None:
    if not _is_number(percent) or not 0 < percent < 100:  # noqa: PLR2004
        msg = f"{kind}({percent!r}) is not an objective: give a percentage above 0 and below 100, e.g. {kind}(99.9)."
        raise ValueError(msg)


def _check_route(objective: str, route: str | None) -> None:
    # Prometheus would read two braces as the begin of a template.
    if route is not None and (not route or not route.isprintable() or "{{" in route):
        msg = (
            f"{objective.partition('(')[0]} route={route!r} is not a route: give its template as http_requests_total "
            f"shows it, e.g. {objective}route='/items/{{item_id}}')."
        )
        raise ValueError(msg)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
