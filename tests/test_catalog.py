"""The catalog follows Prometheus's rules and has the contract's names."""

from __future__ import annotations

import re

import pytest

from scaleobs import catalog

OURS = (*catalog.EXPOSED, *catalog.RUNTIME)
ALL = (*OURS, *catalog.PROCESS, *catalog.OUTSIDE)


def test_contract_names():
    """Names and labels are public API: a change of one changes this line, and the changelog."""
    assert {
        "http_requests_total": ("method", "route", "status_code"),
        "http_request_duration_seconds": ("method", "route", "status_code"),
        "active_connections": ("protocol",),
        "websocket_connections_total": ("route", "code"),
        "websocket_duration_seconds": ("route",),
        "service_ready": (),
        "health_check_up": ("probe", "check"),
        "health_check_duration_seconds": ("probe", "check"),
        "service_info": ("service_name", "version", "environment", "scaleobs_version"),
        "log_messages_total": ("level",),
        "scaleobs_label_sets_dropped_total": (),
        "scaleobs_internal_faults_total": (),
        "scaleobs_workers": (),
    } == {metric.name: metric.labels for metric in catalog.EXPOSED}
    assert {
        "event_loop_lag_seconds": (),
        "thread_pool_busy": ("pool",),
        "thread_pool_waiting": ("pool",),
        "thread_pool_size": ("pool",),
    } == {metric.name: metric.labels for metric in catalog.RUNTIME}


@pytest.mark.parametrize("metric", OURS, ids=lambda metric: metric.name)
def test_naming(metric):
    """Counters end in `_total` and nothing else does; units are base units; the help is a sentence."""
    assert re.fullmatch(r"[a-z][a-z0-9_]*[a-z]", metric.name)
    assert (metric.kind == "counter") is metric.name.endswith("_total")
    assert not re.search(r"_(ms|milliseconds|minutes|kb|percent|count|sum|bucket)$", metric.name)
    assert metric.help.endswith(".")
    assert all(re.fullmatch(r"[a-z][a-z_]*", label) for label in metric.labels)
    assert "le" not in metric.labels


@pytest.mark.parametrize("metric", OURS, ids=lambda metric: metric.name)
def test_no_label_is_prometheus_own(metric):
    """No label is one that Prometheus adds to targets."""
    assert set() == catalog.TARGET_LABELS & set(metric.labels)


def test_names_are_unique():
    """No two families share a name, nor the name of a sample."""
    names = [name for metric in ALL for name in metric.series]

    assert len(set(names)) == len(names)


def test_series_of_a_histogram():
    """A histogram has three kinds of samples, any other family one."""
    assert (
        "http_request_duration_seconds_bucket",
        "http_request_duration_seconds_count",
        "http_request_duration_seconds_sum",
    ) == catalog.DURATION.series
    assert ("http_requests_total",) == catalog.REQUESTS.series


@pytest.mark.parametrize("buckets", [catalog.DEFAULT_BUCKETS, catalog.LAG_BUCKETS])
def test_buckets_rise(buckets):
    """The bounds are those that OpenTelemetry advises up to ten seconds, rising and finite."""
    assert sorted(set(buckets)) == list(buckets)
    assert 0 < buckets[0] < buckets[-1] == 10


def test_methods_are_the_nine():
    """All other methods have one name, which no client can send."""
    assert 9 == len(catalog.METHODS)
    assert catalog.OTHER_METHOD not in catalog.METHODS
