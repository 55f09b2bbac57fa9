"""Durations in Prometheus's format, and the scale that shortens all of them for a fire drill."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1))
_PATTERN = re.compile("(?=.)" + "".join(rf"(?:(\d{{1,4}}){unit})?" for unit, _ in _UNITS), re.ASCII)

_LONGEST_INTERVAL_SECONDS = 120

# Prometheus stores durations as 64-bit nanoseconds, which end at 292 years.
_LONGEST_MILLISECONDS = 100 * 365 * 86_400_000


@dataclass(frozen=True, slots=True, order=True)
class Duration:
    """A time of at least one millisecond, the shortest duration of Prometheus."""

    milliseconds: int

    def __str__(self) -> str:
        """Return the duration in Prometheus's format: `5m`, `1m30s`, `100ms`."""
        rest, parts = self.milliseconds, []
        for unit, size in _UNITS:
            count, rest = divmod(rest, size)
            if count:
                parts.append(f"{count}{unit}")
        return "".join(parts)

    @property
    def seconds(self) -> str:
        """The same time as a number of seconds, for arithmetic inside an expression."""
        return f"{self.milliseconds / 1000:.3f}".rstrip("0").rstrip(".")


def milliseconds(text: str) -> int:
    """
    Return the milliseconds of a duration in Prometheus's format: `5m`, `1m30s`, `100ms`.

    Raises:
        ValueError: the text is not a duration.
    """
    match = _PATTERN.fullmatch(text)
    if match is None:
        msg = f"{text!r} is no duration: write it like 15s, 10m or 1h30m."
        raise ValueError(msg)
    return sum(int(count or 0) * size for count, (_, size) in zip(match.groups(), _UNITS, strict=True))


def intervals(scrape_interval: int) -> tuple[int, int]:
    """
    Return the seconds between two evaluations of the rules, and those of the window of rates.

    Args:
        scrape_interval: the seconds between two scrapes of a target.

    Raises:
        ValueError: the interval is too short or too long for the rules.
    """
    if scrape_interval not in range(1, _LONGEST_INTERVAL_SECONDS + 1):
        msg = (
            f"A scrape interval of {scrape_interval!r} seconds can't be used: give 1 to {_LONGEST_INTERVAL_SECONDS}. "
            f"For Prometheus a series ends 5 minutes after its last sample: with more than two minutes, one or two "
            f"failed scrapes look like an outage."
        )
        raise ValueError(msg)
    return max(30, scrape_interval), max(300, 4 * scrape_interval)


@dataclass(frozen=True, slots=True)
class TimeScale:
    """
    The divisor of every duration of a set of rules.

    With 300, five minutes become one second, so that an alert fires a few seconds after a fault.

    Raises:
        ValueError: the number is not above 0, or not finite.
    """

    divisor: float = 1

    def __post_init__(self) -> None:
        """Check the number."""
        if not (math.isfinite(self.divisor) and self.divisor > 0):
            msg = f"The time scale {self.divisor!r} can't divide a duration: give a number above 0, e.g. 300."
            raise ValueError(msg)

    def seconds(self, count: float) -> Duration:
        """
        Return the duration of some seconds on this scale, to the nearest millisecond.

        Raises:
            ValueError: the result is shorter than a millisecond, or longer than 100 years.
        """
        milliseconds = count * 1000 / self.divisor
        if milliseconds < 1:
            msg = (
                f"The time scale {self.divisor!r} makes {Duration(int(count * 1000))} shorter than 1ms, the "
                f"shortest duration of Prometheus: give at most {count * 1000:.0f}."
            )
            raise ValueError(msg)
        if milliseconds > _LONGEST_MILLISECONDS:
            msg = (
                f"The time scale {self.divisor!r} makes {Duration(int(count * 1000))} longer than a hundred "
                f"years: give a larger one, 1 for real time."
            )
            raise ValueError(msg)
        return Duration(round(milliseconds))

    def minutes(self, count: float) -> Duration:
        """Return the duration of some minutes on this scale."""
        return self.seconds(count * 60)

    def days(self, count: float) -> Duration:
        """Return the duration of some days on this scale."""
        return self.seconds(count * 86_400)

    def of(self, text: str) -> Duration:
        """Return a duration in Prometheus's format, e.g. `5m`, on this scale."""
        return self.seconds(milliseconds(text) / 1000)
