"""What "good" means for a service: the share of requests that succeed, and the share that is fast."""

from __future__ import annotations

import re
from dataclasses import dataclass

# No route, but a time that an availability hasn't got.
_NUMBER = re.compile(r"[0-9.]+")


@dataclass(frozen=True, slots=True)
class Availability:
    """
    An objective for the share of requests that don't fail with a 5xx status.

    Args:
        percent: the share that has to succeed, in percent, above 0 and below 100.
        route: the template of the one route that it is for; None for all requests of the service.

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

    Requests that failed with a 5xx status or whose client went away (499) don't take part: an error that is
    fast is not good latency. `instrument(objectives=…)` makes `under` a bucket boundary of the histogram,
    which is what lets a rule count exactly.

    Args:
        percent: the share that has to be fast, in percent, above 0 and below 100.
        under: the time in seconds, above 0.
        route: the template of the one route that it is for; None for all requests of the service.

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
    Return the objective that a command line names: `availability=99.9` or `latency=99:0.5`, each with `:` and a route
    where it is for that one only, as in `latency=99:0.5:/items/{item_id}`.

    Raises:
        ValueError: the text names no known objective, or its numbers are out of range.
    """
    known = "availability=99.9 or latency=99:0.5"
    kind, equals, value = text.partition("=")
    percent, colon, rest = value.partition(":")
    under, is_routed, route = rest.partition(":")
    try:
        if kind == "availability" and equals and not _NUMBER.fullmatch(rest):
            return Availability(float(percent), route=rest if colon else None)
        if kind == "latency" and colon:
            return Latency(float(percent), under=float(under), route=route if is_routed else None)
    except ValueError as error:
        if "could not convert" not in str(error):
            raise
        msg = f"The objective {text!r} has something that is not a number: write it like {known}."
        raise ValueError(msg) from None
    msg = f"The objective {text!r} is not known: write it like {known}."
    raise ValueError(msg)


def _check_percent(kind: str, percent: float) -> None:
    if not _is_number(percent) or not 0 < percent < 100:  # noqa: PLR2004
        msg = f"{kind}({percent!r}) is not an objective: give a percentage above 0 and below 100, e.g. {kind}(99.9)."
        raise ValueError(msg)


def _check_route(objective: str, route: str | None) -> None:
    # Two braces begin a template of Prometheus, and no route's parameter.
    if route is not None and (not route or not route.isprintable() or "{{" in route):
        msg = (
            f"{objective.partition('(')[0]} route={route!r} is not a route: give its template as http_requests_total "
            f"shows it, e.g. {objective}route='/items/{{item_id}}')."
        )
        raise ValueError(msg)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
