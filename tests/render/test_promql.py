"""Expressions are readable, and valid for both versions of Prometheus."""

import pytest

from scaleobs._render.promql import Targets, aggregate, bucket
from scaleobs.catalog import DURATION, READY, REQUESTS


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.5, 'le="0.5"'),
        (2.5, 'le="2.5"'),
        (0.005, 'le="0.005"'),
        (1.0, r'le=~"1|1\\.0"'),
        (10, r'le=~"10|10\\.0"'),
    ],
)
def test_bucket_of_whole_seconds_has_two_spellings(seconds, expected):
    """
    Prometheus 2 keeps `1`, Prometheus 3 stores `1.0`; other numbers have one spelling.
    """
    assert expected == bucket(seconds)


def test_targets_without_matchers_are_all():
    """
    No matcher, no braces.
    """
    assert "service_ready" == Targets().of(READY)
    assert 'service_ready{job="orders"}' == Targets(('job="orders"',)).of(READY)


def test_only_metrics_with_a_route_are_selected_by_it():
    """
    A matcher for the route would match nothing on a metric that has none.
    """
    targets = Targets(('job="orders"',), route='route="/"')

    assert 'http_requests_total{job="orders",route="/"}' == targets.of(REQUESTS)
    assert 'http_request_duration_seconds_sum{job="orders",route="/"}' == targets.of(DURATION, part="_sum")
    assert 'service_ready{job="orders"}' == targets.of(READY)


def test_aggregation_of_several_lines_is_indented():
    """
    One line stays on its line, several lines are indented between parentheses.
    """
    assert "sum(a)" == aggregate("a")
    assert "max by (job, pod) (a)" == aggregate("a", "job", "pod", operator="max")
    assert "sum by (job) (\n  a\n  or\n  b\n)" == aggregate("a\nor\nb", "job")
