"""Durations are exact, on every scale that Prometheus can write."""

import pytest

from scaleobs._render.durations import Duration, TimeScale, milliseconds


@pytest.mark.parametrize(
    ("seconds", "divisor", "text", "number"),
    [
        (300, 1, "5m", "300"),
        (300, 300, "1s", "1"),
        (30, 300, "100ms", "0.1"),
        (120, 300, "400ms", "0.4"),
        (86_400, 300, "4m48s", "288"),
        (86_400, 1, "1d", "86400"),
        (90, 1, "1m30s", "90"),
        (300, 7, "42s857ms", "42.857"),
        (300, 0.5, "10m", "600"),
        (30, 30_000, "1ms", "0.001"),
    ],
)
def test_scaled_duration_is_written_twice(seconds, divisor, text, number):
    """
    A duration is a text between brackets and a number in arithmetic, and both are equal.
    """
    duration = TimeScale(divisor).seconds(seconds)

    assert text == str(duration)
    assert number == duration.seconds


@pytest.mark.parametrize("divisor", [0, -1, float("nan"), float("inf"), float("-inf")])
def test_scale_has_to_be_a_number_above_0(divisor):
    """
    Other values are refused, and the message has them.
    """
    with pytest.raises(ValueError, match=f"The time scale {divisor!r} can't divide a duration"):
        TimeScale(divisor)


def test_scale_that_leaves_less_than_a_millisecond_is_refused():
    """
    The message has the duration that is too short, and the largest scale.
    """
    with pytest.raises(ValueError, match=r"makes 30s shorter than 1ms.*give at most 30000"):
        TimeScale(30_001).seconds(30)


def test_scale_that_makes_centuries_is_refused():
    """
    The longest duration of Prometheus is 292 years.
    """
    with pytest.raises(ValueError, match="makes 5m longer than a hundred years"):
        TimeScale(1e-9).minutes(5)


def test_duration_of_days():
    """
    A day is a day on the scale of one.
    """
    assert Duration(86_400_000) == TimeScale().days(1)


def test_duration_is_read_as_prometheus_writes_it():
    """
    Units add up, and a thousandth of a second is one too.
    """
    assert [90_000, 100, 86_400_000 + 3_600_000 + 1] == [milliseconds(one) for one in ("1m30s", "100ms", "1d1h1ms")]


@pytest.mark.parametrize("text", ["", "10", "m", "1m1h", "-5m", "1.5m", "1w", " 5m", "٣m", "12345m"])
def test_text_that_is_no_duration_is_refused(text):
    """
    Units follow their numbers, the larger ones first; digits are ASCII.
    """
    with pytest.raises(ValueError, match="is no duration: write it like 15s, 10m or 1h30m"):
        milliseconds(text)
