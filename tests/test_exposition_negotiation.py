"""The format and the encoding of a scrape, by its headers."""

from __future__ import annotations

import gzip
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from scaleobs._metrics.families import attach
from support.expositions import FORMATS, OPENMETRICS, PROTOBUF, TEXT, observe, page, samples, scrape

# The headers of Prometheus 2.42 and 3.5, each without and with native histograms.
PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_2_NATIVE = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,"
    "application/openmetrics-text;version=1.0.0;q=0.8,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,application/openmetrics-text;version=0.0.1;"
    "q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)
PROMETHEUS_3_NATIVE = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6," + PROMETHEUS_3
)
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


def headers(accept="", accept_encoding=""):
    """Return the headers of a scrape."""
    registry, storage = attach(CollectorRegistry())
    found, pieces = scrape(registry, storage, accept=accept, accept_encoding=accept_encoding, on_fault=pytest.fail)
    list(pieces)
    return dict(found)


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", TEXT),
        ("*/*", TEXT),
        (BROWSER, TEXT),
        ("text/*", TEXT),
        ("text/plain", TEXT),
        (PROMETHEUS_2, OPENMETRICS),
        (PROMETHEUS_2_NATIVE, PROTOBUF),
        (PROMETHEUS_3, OPENMETRICS),
        (PROMETHEUS_3_NATIVE, PROTOBUF),
        ("application/openmetrics-text", OPENMETRICS),
        ("APPLICATION/OpenMetrics-Text; Version=1.0.0", OPENMETRICS),
        ('application/openmetrics-text; version="1.0.0"', OPENMETRICS),
        ("application/openmetrics-text; charset=utf-8", OPENMETRICS),
        ("application/openmetrics-text, */*", OPENMETRICS),
        ("*/*, application/openmetrics-text", OPENMETRICS),
        ("application/*", OPENMETRICS),
        ("application/vnd.google.protobuf", PROTOBUF),
        ("application/vnd.google.protobuf;q=0.7, application/openmetrics-text;q=0.8", OPENMETRICS),
        ("application/vnd.google.protobuf;q=0.8, application/openmetrics-text;q=0.7", PROTOBUF),
        ("text/plain, application/openmetrics-text", TEXT),
        ("application/openmetrics-text, text/plain", OPENMETRICS),
        ("application/openmetrics-text;q=0.1, text/plain;q=0.9", TEXT),
        ("application/openmetrics-text;q=0.5, text/*;q=0.9", TEXT),
    ],
)
def test_format_is_the_one_that_is_preferred(accept, content_type):
    """The highest weight wins, then the closest name, then the first one."""
    assert content_type == headers(accept)["Content-Type"]


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text;version=0.0.1",
        "application/openmetrics-text;version=2.0.0",
        "application/vnd.google.protobuf;encoding=text",
        "application/vnd.google.protobuf;proto=io.prometheus.write.v2.Request",
        "application/openmetrics-text;version=0.0.1, text/plain;q=0.1",
        "application/json",
    ],
)
def test_what_cant_be_served_is_text(accept):
    """A scrape that requests another version or message is not refused."""
    assert TEXT == headers(accept)["Content-Type"]


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text;q=0",
        "application/openmetrics-text;q=0.000",
        "application/openmetrics-text;q=-1",
        "application/openmetrics-text;q=zero",
        "application/openmetrics-text;q=nan",
        "application/openmetrics-text;q=",
        "application/openmetrics-text;q=0, */*",
        "*/*;q=0",
        "text/plain;q=0",
        ";;,,q=;",
        "a/b/c/d,/,*/,/*",
        "\x00\xff" * 500,
        "," * 60_000,
    ],
)
def test_garbage_is_text(accept):
    """If a header refuses all formats or is malformed, the answer is text, without delay."""
    begun = time.thread_time()

    assert TEXT == headers(accept)["Content-Type"]
    assert 0.25 > time.thread_time() - begun


@pytest.mark.parametrize(
    ("accepted", "is_gzip"),
    [
        ("gzip", True),
        ("GZIP", True),
        ("x-gzip", True),
        ("*", True),
        ("gzip, deflate, br, zstd", True),
        ("deflate, gzip;q=0.5", True),
        ("gzip, identity", True),
        ("gzip;q=0.5, identity;q=1", False),
        ("gzip;q=0", False),
        ("gzip;q=0.0, *", False),
        ("*;q=0", False),
        ("identity", False),
        ("", False),
        ("br", False),
        ("gzip;q=high", False),
    ],
)
def test_gzip_is_used_where_it_is_accepted(accepted, is_gzip):
    """Only a client that accepts gzip, with no lower weight than the identity, gets it."""
    assert is_gzip is (headers(accept_encoding=accepted).get("Content-Encoding") == "gzip")


def test_caches_get_vary():
    """An answer depends on both headers."""
    assert "Accept, Accept-Encoding" == headers()["Vary"]


@pytest.mark.parametrize("content_type", FORMATS)
def test_gzip_holds_the_same_page(content_type, registry):
    """The body is one gzip stream, without bytes behind it."""
    _, storage = attach(registry)
    for number in range(500):
        observe(storage, ("GET", f"/{number}", "200"), 0.1)
    plain = samples(page(registry, content_type), content_type)
    compressed = page(registry, content_type, accept_encoding="gzip")
    again = samples(gzip.decompress(compressed), content_type)

    assert {name for name in plain if name[0].startswith("http_")} <= again.keys()
    assert plain.keys() == again.keys()


@given(accept=st.text(max_size=200), accept_encoding=st.text(max_size=200))
def test_any_header_has_an_answer(accept, accept_encoding):
    """For any header, the content type is one of the three."""
    assert headers(accept, accept_encoding)["Content-Type"] in FORMATS
