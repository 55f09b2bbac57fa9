"""Objectives set the thresholds of alerts, or are refused with the reason."""

from decimal import Decimal

import pytest

from scaleobs._render.overrides import Thresholds, number, thresholds, to_flag
from scaleobs.objectives import Availability, Latency


def test_no_objective_leaves_the_defaults():
    """
    Five percent failed, five percent slower than half a second.
    """
    assert Thresholds(Decimal("0.05"), Decimal("0.05"), 0.5, 5) == thresholds([])


@pytest.mark.parametrize(
    ("percent", "threshold"), [(99.9, "0.0144"), (99.95, "0.0072"), (99, "0.144"), (99.999, "0.000144"), (95, "0.72")]
)
def test_threshold_is_14_times_the_budget(percent, threshold):
    """
    14.4 times the budget, without the rounding errors of binary fractions.
    """
    assert threshold == number(thresholds([Availability(percent)]).failed_share)
    assert threshold == number(thresholds([Latency(percent, under=0.25)]).slow_share)


def test_latency_objective_moves_the_boundary():
    """
    Requests are slow above the time of the objective; failures keep their threshold.
    """
    lines = thresholds([Latency(99, under=0.25)])

    assert 0.25 == lines.slow_seconds
    assert Decimal("0.05") == lines.failed_share


@pytest.mark.parametrize("objective", [Availability(90), Latency(50, under=0.5)])
def test_objective_that_could_never_fire_is_refused(objective):
    """
    14.4 times a large budget is more than all requests; the message has the share and the least percentage.
    """
    with pytest.raises(ValueError, match=r"too loose .* 14.4 times .* (144|720) % .* above 93.06"):
        thresholds([objective])


@pytest.mark.parametrize(("under", "nearest"), [(0.3, "0.25 or 0.5"), (0.001, "0.005"), (60, "10")])
def test_time_between_boundaries_is_refused(under, nearest):
    """
    The message names the nearest boundaries.
    """
    with pytest.raises(ValueError, match=rf"is for {under} s, which is not among .* give {nearest}\."):
        thresholds([Latency(99, under=under)])


@pytest.mark.parametrize(
    "pair",
    [
        (Availability(99), Availability(99.9)),
        (Availability(99, route="/pay"), Availability(99.9, route="/pay")),
        (Latency(99, under=0.5), Latency(95, under=0.1)),
    ],
)
def test_second_objective_of_a_kind_is_refused(pair):
    """
    The message names both.
    """
    with pytest.raises(ValueError, match=f"{to_flag(pair[0])}.*{to_flag(pair[1])}"):
        thresholds(pair)


def test_objective_of_a_route_sets_no_threshold_of_the_service():
    """
    Each route may have one of each kind beside the service's.
    """
    routes = [Availability(95, route="/a"), Availability(95, route="/b"), Latency(95, under=0.1, route="/a")]

    assert thresholds([Availability(99.9)]) == thresholds([Availability(99.9), *routes])


def test_objective_is_spelled_as_it_was_given():
    """
    Whole numbers have no point, and small ones no exponent.
    """
    assert "availability=99.9" == to_flag(Availability(99.9))
    assert "availability=99.9:/o/{id:int}" == to_flag(Availability(99.9, route="/o/{id:int}"))
    assert "latency=99:0.5" == to_flag(Latency(99.0, under=0.5))
    assert "0.00001" == number(1e-05)
    assert "100" == number(100.0)
