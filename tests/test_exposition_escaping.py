"""Any label and any help text is escaped correctly in each format."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from scaleobs import catalog
from scaleobs._metrics.families import attach
from support.expositions import FORMATS, OPENMETRICS, PROTOBUF, TEXT, families, key, observe, page, samples

ODD = '\\n\\"quote" back\\slash \n \\\\n ü 🦊 \x00 {,} = # %d %'
texts = st.text(st.characters(codec="utf-8"), max_size=40)
every_format = pytest.mark.parametrize("content_type", FORMATS)


@every_format
@given(route=texts, method=texts)
@example(route=ODD, method="\\")
@example(route='"', method='\\"')
def test_our_labels(content_type, route, method):
    """A route is unchanged in each sample of a series."""
    registry, storage = attach(CollectorRegistry())
    for number in range(3):
        observe(storage, (method, route, "200"), number)
        found = samples(page(registry, content_type), content_type)
    labels = dict(zip(catalog.REQUESTS.labels, (method, route, "200"), strict=True))

    assert 3 == found[key("http_requests_total", labels)]
    assert 3 == found[key("http_request_duration_seconds_bucket", {**labels, "le": "+Inf"})]
    assert 3 == found[key("http_request_duration_seconds_sum", labels)]
    assert 1 + 12 + 2 == sum(name[0].startswith("http_") for name in found)


@every_format
@given(labels=st.dictionaries(st.sampled_from("abc"), texts), help_text=texts)
@example(labels={"a": ODD}, help_text=ODD)
def test_labels_of_the_user(content_type, labels, help_text):
    """The user's labels are unchanged, and a help text breaks no line."""
    help_text = f"<{help_text}>"  # prometheus_client strips white space.
    registry, _ = attach(CollectorRegistry())
    gauge = GaugeMetricFamily("a_gauge", help_text, labels=labels)
    gauge.add_metric(labels.values(), 1.5)
    counter = CounterMetricFamily("a_counter", help_text, labels=labels)
    counter.add_metric(labels.values(), 2.5)
    registry.register(type("Collected", (), {"collect": lambda _: [gauge, counter]})())
    body = page(registry, content_type)
    found = samples(body, content_type)

    assert 1.5 == found[key("a_gauge", labels)]
    assert 2.5 == found[key("a_counter_total", labels)]
    assert help_text == helps(body, content_type)["a_gauge"]


def helps(body, content_type):
    """Return the help texts of a page."""
    if content_type == PROTOBUF:
        return {family.name: family.help for family in families(body)}
    if content_type == OPENMETRICS:
        return {family.name: family.documentation for family in parse_openmetrics(body.decode())}
    lines = [line.split(" ", 3)[2:] for line in body.decode().split("\n") if line.startswith("# HELP ")]
    return {
        name: help_text.replace(r"\\", "\0\0").replace(r"\n", "\n").replace("\0\0", "\\") for name, help_text in lines
    }


@every_format
@given(text=st.text(st.characters(categories=["Cs", "L"]), min_size=1, max_size=10))
@example(text="a\udcffb")
def test_lone_surrogates_become_question_marks(content_type, text):
    """A text that UTF-8 cannot encode, such as a path decoded with `surrogateescape`, breaks no page."""
    registry, storage = attach(CollectorRegistry())
    observe(storage, ("GET", text, "200"), 0.1)
    gauge = GaugeMetricFamily("a_gauge", text, labels=["a"])
    gauge.add_metric([text], 1)
    registry.register(type("Collected", (), {"collect": lambda _: [gauge]})())
    found = samples(page(registry, content_type), content_type)
    shown = text.encode("utf-8", "replace").decode()

    assert 1 == found[key("a_gauge", {"a": shown})]
    assert (
        1 == found[key("http_requests_total", dict(zip(catalog.REQUESTS.labels, ("GET", shown, "200"), strict=True)))]
    )


@pytest.mark.parametrize("content_type", [TEXT, OPENMETRICS])
def test_line_ends_are_escaped(content_type):
    """Only a line feed ends a line of the text formats, and no label has one."""
    registry, storage = attach(CollectorRegistry())
    observe(storage, ("GET", "a\r\nb\x0b\x0c\x1c\x85\u2028c", "200"), 0.1)
    lines = page(registry, content_type).split(b"\n")
    ours = [line for line in lines if line.startswith(b"http_request")]

    assert 15 == len(ours)
    assert all('route="a\r\\nb\x0b\x0c\x1c\x85\u2028c"'.encode() in line for line in ours)


@every_format
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e-300, 2**63, -0.5, True, 10**30])
def test_numbers_of_the_user(content_type, value):
    """Each float of Python is read back as the same number."""
    registry, _ = attach(CollectorRegistry())
    gauge = GaugeMetricFamily("a_gauge", "Help.", value=value)
    registry.register(type("Collected", (), {"collect": lambda _: [gauge]})())
    found = samples(page(registry, content_type), content_type)[key("a_gauge", {})]

    assert repr(float(value)) == repr(found)
