"""The values of objectives that are accepted and refused."""

from __future__ import annotations

import pytest

from scaleobs import Availability, Latency
from scaleobs.objectives import parse


@pytest.mark.parametrize(
    ("text", "objective"),
    [
        ("availability=99.9", Availability(99.9)),
        ("availability=50", Availability(50)),
        ("availability=99.9:/o/{id:int}", Availability(99.9, route="/o/{id:int}")),
        ("latency=99:0.5", Latency(99, under=0.5)),
        ("latency=99.5:1e-3", Latency(99.5, under=0.001)),
        ("latency=95:0.25:/o/{id:int}", Latency(95, under=0.25, route="/o/{id:int}")),
    ],
)
def test_text_is_read(text, objective):
    """The form of the command line means the same as the Python form."""
    assert objective == parse(text)


@pytest.mark.parametrize("percent", [0, 100, -1, 101, float("nan"), float("inf")])
def test_percentage_is_within_its_range(percent):
    """A share of nothing or of everything is no objective."""
    with pytest.raises(ValueError, match=r"give a percentage above 0 and below 100, e.g. Availability\(99.9\)"):
        Availability(percent)
    with pytest.raises(ValueError, match="give a percentage above 0 and below 100"):
        Latency(percent, under=1)


@pytest.mark.parametrize("under", [0, -1, float("nan"), float("inf")])
def test_time_is_above_zero(under):
    """A time that no request or every request meets is no objective."""
    with pytest.raises(ValueError, match=f"under={under!r} is not a time: give seconds above 0"):
        Latency(99, under=under)


@pytest.mark.parametrize("value", ["99.9", None, [], True])
@pytest.mark.parametrize(
    "make", [Availability, lambda value: Latency(value, under=1), lambda value: Latency(99, under=value)]
)
def test_what_is_no_number_is_refused(make, value):
    """Text from a file or a variable is not read as a number, and the error explains it."""
    with pytest.raises(ValueError, match="give"):
        make(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is not known: write it like availability=99.9 or latency=99:0.5"),
        ("speed=3", "'speed=3' is not known"),
        ("availability", "'availability' is not known"),
        ("availability=99:1", "is not known"),
        ("availability=99:0.5", "is not known"),
        ("availability=99:", "Availability route='' is not a route: give its template"),
        ("latency=99", "is not known"),
        ("availability=ninety", "'availability=ninety' has something that is not a number"),
        ("latency=99:soon", "has something that is not a number"),
        ("latency=:", "has something that is not a number"),
        ("availability=100", "give a percentage above 0 and below 100"),
        ("latency=99:1:", "route='' is not a route: give its template"),
        ("latency=99:1:/{{x}}", "is not a route: give its template"),
        ("latency=99:1:/a\nb", "is not a route: give its template"),
        ("latency=99:0", "give seconds above 0"),
    ],
)
def test_bad_text_is_refused(text, message):
    """An unreadable text is shown with the right form."""
    with pytest.raises(ValueError, match=message):
        parse(text)
