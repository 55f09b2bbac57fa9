"""Durations as Prometheus writes them, and the scale that shortens them all at once for a fire drill."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

_UNITS = (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1))
_WRITTEN = re.compile("(?=.)" + "".join(rf"(?:(\d{{1,4}}){unit})?" for unit, _ in _UNITS), re.ASCII)

_LONGEST_INTERVAL_SECONDS = 120

# Prometheus keeps durations as 64-bit nanoseconds, which end at 292 years.
_LONGEST_MILLISECONDS = 100 * 365 * 86_400_000


@dataclass(frozen=True, slots=True, order=True)
class Duration:
    """A time of at least one millisecond, which is the smallest that Prometheus can write."""

    milliseconds: int

    def __str__(self) -> str:
        """Return the duration as Prometheus writes it: `5m`, `1m30s`, `100ms`."""
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
    Return the milliseconds of a duration as Prometheus writes it: `5m`, `1m30s`, `100ms`.

    Raises:
        ValueError: the text is no duration.
    """
    found = _WRITTEN.fullmatch(text)
    if found is None:
        msg = f"{text!r} is no duration: write it like 15s, 10m or 1h30m."
        raise ValueError(msg)
    return sum(int(count or 0) * size for count, (_, size) in zip(found.groups(), _UNITS, strict=True))


def intervals(scrape_interval: int) -> tuple[int, int]:
    """
    Return the seconds between two evaluations of the rules, and those of the window that rates are taken over.

    Args:
        scrape_interval: how many seconds lie between two scrapes of a target.

    Raises:
        ValueError: the interval is too short or too long for the rules.
    """
    if scrape_interval not in range(1, _LONGEST_INTERVAL_SECONDS + 1):
        msg = (
            f"A scrape interval of {scrape_interval!r} seconds can't be used: give 1 to {_LONGEST_INTERVAL_SECONDS}. "
            f"Prometheus takes a series for gone 5 minutes after its last sample: beyond two minutes, a failed scrape "
            f"or two look like an outage."
        )
        raise ValueError(msg)
    return max(30, scrape_interval), max(300, 4 * scrape_interval)


@dataclass(frozen=True, slots=True)
class TimeScale:
    """
    A number that every duration of a set of rules is divided by.

    Divided by 300, five minutes become one second, so that an alert can be watched from fault to message.

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
        Return the duration of that many seconds on this scale, to the nearest millisecond.

        Raises:
            ValueError: the result is shorter than a millisecond, or longer than Prometheus can count.
        """
        milliseconds = count * 1000 / self.divisor
        if milliseconds < 1:
            msg = (
                f"The time scale {self.divisor!r} makes {Duration(int(count * 1000))} shorter than 1ms, the "
                f"shortest time that Prometheus knows: give at most {count * 1000:.0f}."
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
        """Return the duration of that many minutes on this scale."""
        return self.seconds(count * 60)

    def days(self, count: float) -> Duration:
        """Return the duration of that many days on this scale."""
        return self.seconds(count * 86_400)

    def of(self, text: str) -> Duration:
        """Return a written duration, e.g. `5m`, on this scale."""
        return self.seconds(milliseconds(text) / 1000)
