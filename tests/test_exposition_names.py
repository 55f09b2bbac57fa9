"""Names of the user that become equal, and what else Prometheus refuses, never cost a page."""

from __future__ import annotations

import re
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Enum, Gauge, Histogram, Info
from prometheus_client.core import (
    CounterMetricFamily,
    Exemplar,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    SummaryMetricFamily,
)

import scaleobs
from scaleobs import catalog
from scaleobs._metrics import families as families_module
from scaleobs._metrics.families import attach
from scaleobs._metrics.user_names import legal_labels, reversible
from support.exchanges import asgi, log_lines
from support.expositions import FORMATS, OPENMETRICS, PROTOBUF, TEXT, families, key, page, samples
from support.hostile_names import Collected, any_family, family, hostile, names

every_format = pytest.mark.parametrize("content_type", FORMATS)


def shown(registry, content_type, faults=None):
    """Return the samples of the user on a page, by their names and labels."""
    attach(registry)
    found = samples(page(registry, content_type, faults=faults), content_type)
    ours = {name for one in (*catalog.EXPOSED, *catalog.RUNTIME) for name in one.series}
    return {
        name: value
        for name, value in found.items()
        if name[0] not in ours
        and "process_" not in name[0]
        and not name[0].startswith("python_")
        and not name[0].endswith("_created")
    }


@every_format
def test_labels_that_become_equal(content_type, registry):
    """`queue.name` beside `queue_name`: the legal one keeps its name, the other is escaped; reported once."""
    gauge = Gauge("depth", "Depth.", ["queue.name", "queue_name", "other"], registry=registry)
    gauge.labels("mail", "orders", "x").set(1)
    gauge.labels("orders", "mail", "x").set(2)
    faults = []
    for _ in range(2):
        found = shown(registry, content_type, faults)

    assert {
        key("depth", {"U__queue_2e_name": "mail", "queue_name": "orders", "other": "x"}): 1,
        key("depth", {"U__queue_2e_name": "orders", "queue_name": "mail", "other": "x"}): 2,
    } == found
    assert ["label queue.name is written as U__queue_2e_name"] == [fault.kind for fault in faults]


@every_format
@pytest.mark.parametrize("is_reversed", [False, True])
def test_families_that_become_equal(content_type, is_reversed, registry):
    """`a.b` beside `a_b`: the legal one keeps its name, whichever was registered first."""
    names = ["a.b", "a_b", "a-b", "a:b"]
    for value, name in reversed([*enumerate(names)]) if is_reversed else enumerate(names):
        Counter(name, "Help.", registry=registry).inc(value)
    faults = []
    found = shown(registry, content_type, faults)

    assert {"U__a_2e_b_total": 0, "a_b_total": 1, "U__a_2d_b_total": 2, "a:b_total": 3} == {
        name: value for (name, _), value in found.items()
    }
    assert 2 == len(faults)


@every_format
def test_families_without_a_legal_one(content_type, registry):
    """`a.b` beside `a-b`: the first keeps `a_b`, on every page."""
    Gauge("a.b", "Help.", registry=registry).set(1)
    Gauge("a-b", "Help.", registry=registry).set(2)
    for _ in range(2):
        assert {key("a_b", {}): 1, key("U__a_2d_b", {}): 2} == shown(registry, content_type, [])


@every_format
def test_a_family_that_becomes_a_sample_of_another_one(content_type, registry):
    """The counter `a_b` has `a_b_total`; the gauge `a.b_total` is escaped, and the other way round."""
    Gauge("a.b_total", "Help.", registry=registry).set(1)
    Counter("a_b", "Help.", registry=registry).inc(2)
    Histogram("c.d", "Help.", buckets=[1], registry=registry).observe(3)
    Gauge("c_d_sum", "Help.", registry=registry).set(4)
    found = shown(registry, content_type, [])

    assert 1 == found[key("U__a_2e_b__total", {})]
    assert 2 == found[key("a_b_total", {})]
    assert 3 == found[key("U__c_2e_d_sum", {})]
    assert 1 == found[key("U__c_2e_d_bucket", {"le": "+Inf"})]
    assert 4 == found[key("c_d_sum", {})]


@every_format
def test_families_that_no_collector_declares(content_type, registry):
    """On the first page one of them is left out and counted; afterwards each has its name."""
    registry.register(Collected(family("a.b", "gauge", ("a.b", {}, 1)), family("a_b", "gauge", ("a_b", {}, 2))))
    faults = []

    assert {key("a_b", {}): 1} == shown(registry, content_type, faults)
    assert ["a_b is left out"] == [fault.kind for fault in faults]
    for _ in range(2):
        assert {key("U__a_2e_b", {}): 1, key("a_b", {}): 2} == shown(registry, content_type, faults)


@every_format
@pytest.mark.parametrize(
    "metric",
    [
        CounterMetricFamily("http_requests", "Help.", value=7),
        GaugeMetricFamily("http_requests", "Help.", value=7),
        GaugeMetricFamily("http_requests_total", "Help.", value=7),
        GaugeMetricFamily("http_request_duration_seconds_sum", "Help.", value=7),
        GaugeMetricFamily("http_request_duration_seconds_bucket", "Help.", value=7),
        SummaryMetricFamily("http_request_duration_seconds", "Help.", 7, 7),
        HistogramMetricFamily("http_request_duration_seconds", "Help.", [("+Inf", 7)], 7),
        CounterMetricFamily("http_request_duration_seconds_count", "Help.", value=7),
        InfoMetricFamily("service", "Help.", value={"a": "b"}),
        GaugeMetricFamily("scaleobs_workers", "Help.", value=7),
    ],
)
def test_families_with_our_names_are_left_out(content_type, metric, registry):
    """A collector that declares nothing can't change our own metrics: its family is left out, and counted."""
    attach(registry)
    before = samples(page(registry, content_type), content_type)
    registry.register(Collected(metric))
    faults = []
    body = page(registry, content_type, faults=faults)

    assert before.keys() == samples(body, content_type).keys()
    assert 7 not in {value for (name, _), value in samples(body, content_type).items() if "python" not in name}
    assert [f"{metric.name} is left out"] == [fault.kind for fault in faults]


@every_format
def test_a_family_that_becomes_one_of_ours(content_type, registry):
    """`http.requests.total` is escaped, and ours is unchanged."""
    attach(registry)
    before = samples(page(registry, content_type), content_type)
    registry.register(Collected(GaugeMetricFamily("http.requests.total", "Help.", value=7)))
    found = samples(page(registry, content_type, faults=[]), content_type)

    assert {key("U__http_2e_requests_2e_total", {})} == found.keys() - before.keys()


@every_format
def test_samples_with_our_names_are_left_out(content_type, registry):
    """Of a family of the user, only the samples with our names are left out."""
    odd = family("mine", "gauge", ("mine", {}, 1), ("scaleobs_workers", {}, 7), ("http_requests_total", {"x": "y"}, 7))
    registry.register(Collected(odd))
    faults = []

    assert {key("mine", {}): 1} == shown(registry, content_type, faults)
    assert ["mine is left out"] == [fault.kind for fault in faults]


@every_format
def test_a_series_has_one_sample(content_type, registry):
    """Of several samples of a series, also by labels that become equal or are empty, the first is on the page."""
    registry.register(
        Collected(
            family(
                "a", "gauge",
                ("a", {}, 1), ("a", {}, 2), ("a", {"x": ""}, 3),
                ("a", {"x": "y"}, 4), ("a", {"x": "y"}, 5),
                ("a", {"x": "1", "y": "2"}, 6), ("a", {"y": "2", "x": "1"}, 7),
                ("a", {"o.k": "1"}, 8), ("a", {"o-k": "1"}, 9), ("a", {"o_k": "1"}, 10),
                ("a", {"x": "\udc80"}, 11), ("a", {"x": "\udc81"}, 12),
            )
        )
    )  # fmt: skip
    faults = []
    found = shown(registry, content_type, faults)

    assert {1, 4, 6, 8, 11} == set(found.values())
    assert ["a is left out"] == [fault.kind for fault in faults]


@every_format
def test_the_same_sample_again(content_type, registry):
    """A sample that is there already, with its value, is written once, which is no fault."""
    registry.register(Collected(family("a", "gauge", ("a", {}, 1), ("a", {}, 1)), family("a", "gauge", ("a", {}, 1))))

    assert {key("a", {}): 1} == shown(registry, content_type)


@every_format
def test_one_family_in_several_parts(content_type, registry):
    """A collector that returns a family for each sample gets one family, and its objects are not changed."""
    parts = [family("a", "gauge", ("a", {"x": str(number)}, number)) for number in range(3)]
    registry.register(Collected(*parts))
    for _ in range(2):
        assert {0, 1, 2} == set(shown(registry, content_type).values())
    body = page(registry, content_type)

    assert 1 == (1 if content_type == PROTOBUF else body.count(b"# TYPE a gauge"))
    assert [1, 1, 1] == [len(part.samples) for part in parts]


@every_format
def test_labels_that_no_prometheus_reads(content_type, registry):
    """Labels with colons, without a name, that begin with a digit, and `__name__`."""
    Enum("job:state", "State.", states=["on"], registry=registry).state("on")
    registry.register(Collected(family("a", "gauge", ("a", {"x:y": "1", "": "2", "1st": "3", "__name__": "4"}, 1))))
    found = shown(registry, content_type, [])

    assert {
        key("job:state", {"job_state": "on"}): 1,
        key("a", {"x_y": "1", "_": "2", "_st": "3", "U______name____": "4"}): 1,
    } == found


@every_format
def test_labels_of_an_info_that_become_equal(content_type, registry):
    """`Info` takes any keys."""
    Info("build", "Build.", registry=registry).info({"git.commit": "1", "git_commit": "2", "git-commit": "3"})
    labels = {"U__git_2e_commit": "1", "git_commit": "2", "U__git_2d_commit": "3"}

    assert {key("build_info", labels): 1} == shown(registry, content_type, [])


@every_format
@pytest.mark.parametrize("timestamp", [float("nan"), float("inf"), 1.7e18, -1.7e18])
def test_times_that_prometheus_refuses(content_type, timestamp, registry):
    """A time that is no number, or in nanoseconds, costs its sample, not the page."""
    registry.register(Collected(family("a", "gauge", ("a", {"x": "1"}, 1), ("a", {"x": "2"}, 2, timestamp))))
    faults = []

    assert {key("a", {"x": "1"}): 1} == shown(registry, content_type, faults)
    assert ["a is left out"] == [fault.kind for fault in faults]


@pytest.mark.parametrize("content_type", [OPENMETRICS, PROTOBUF])
def test_exemplars_that_prometheus_refuses(content_type, registry):
    """Labels of exemplars are legal, and a time that is no number is left out."""
    exemplar = Exemplar({"trace:id": "abc", "trace.id": "def"}, 1.0, float("nan"))
    registry.register(Collected(family("a", "counter", ("a_total", {}, 1, None, exemplar))))
    body = page(registry, content_type)

    assert {key("a_total", {}): 1}.items() <= samples(body, content_type).items()
    assert b"abc" in body
    assert b"nan" not in body


@every_format
def test_units_and_types_that_prometheus_refuses(content_type, registry):
    """A unit that is not the end of the name is left out; a type that no format has is untyped."""
    odd_unit, odd_type = family("a.size_by.tes", "gauge", ("a.size_by.tes", {}, 1)), family("b", "gauge", ("b", {}, 2))
    odd_unit.unit, odd_type.type = "by.tes", "invented"
    registry.register(Collected(odd_unit, odd_type))
    body = page(registry, content_type)

    assert {key("a_size_by_tes", {}): 1, key("b", {}): 2}.items() <= samples(body, content_type).items()
    assert b"UNIT" not in body
    assert b"invented" not in body


def test_counts_that_no_integer_holds(registry):
    """Counts that are negative or larger than 64 bits do not break protobuf."""
    registry.register(
        Collected(
            SummaryMetricFamily("a", "Help.", -3, 1),
            SummaryMetricFamily("b", "Help.", 1e30, 1),
            HistogramMetricFamily("c", "Help.", [("1.0", 1e30), ("+Inf", 1e30)], 1),
        )
    )
    attach(registry)

    assert {"a", "b", "c"} <= {one.name for one in families(page(registry, PROTOBUF))}


@every_format
def test_a_family_without_a_name_is_left_out(content_type, registry):
    """A name that is empty costs its family or its sample."""
    registry.register(
        Collected(family("", "gauge", ("", {}, 1)), family("a", "gauge", ("", {"x": "y"}, 2), ("a", {}, 3)))
    )
    faults = []

    assert {key("a", {}): 3} == shown(registry, content_type, faults)
    assert 2 == len(faults)


def test_the_label_of_a_worker_beside_one_of_the_user(monkeypatch, registry):
    """Workers that can't be added up have the label `worker`, and the user's own label of that name stays."""
    monkeypatch.setattr(families_module, "_is_isolated", True)
    gauge = Gauge("a", "Help.", ["worker"], registry=registry)
    gauge.labels("1").set(1)
    gauge.labels("2").set(2)
    found = shown(registry, TEXT)

    assert {("1", 1), ("2", 2)} == {(dict(name[1])["worker"], value) for name, value in found.items()}
    assert {True} == {"scaleobs_worker" in dict(name[1]) for name in found}


def test_what_is_left_out_is_logged_once_by_name(registry, capsys):
    """The line has the name, each page is counted."""

    async def application(scope, receive, send):
        """Never called."""

    app = scaleobs.instrument(application, registry=registry)
    registry.register(Collected(GaugeMetricFamily("scaleobs_workers", "Help.", value=7)))
    registry.register(Collected(family("a", "gauge", ("a", {}, 1), ("a", {}, 2))))
    Gauge("depth", "Depth.", ["queue.name", "queue_name"], registry=registry).labels("1", "2").set(1)
    for _ in range(3):
        assert 200 == asgi(app, path="/metrics").status
    lines = [line for line in log_lines(capsys) if line["event"] == "scaleobs.fault"]

    assert {
        "scaleobs_workers is left out",
        "a is left out",
        "label queue.name is written as U__queue_2e_name",
    } == {line["kind"] for line in lines}
    assert 3 == len(lines)
    assert 3 + 3 + 1 == registry.get_sample_value("scaleobs_internal_faults_total")


LINE = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*(\{([a-zA-Z_][a-zA-Z0-9_]*=\"[^\"]*\",?)*\})? \S+( -?[0-9.e+]+)?( # .*)?")


@every_format
@given(all_families=st.lists(any_family(), max_size=5))
def test_any_names(content_type, all_families):
    """No family of the user, of any name, makes a page that breaks a rule of Prometheus."""
    registry, _ = attach(CollectorRegistry())
    registry.register(Collected(*all_families))
    body = page(registry, content_type, faults=[])
    if content_type == PROTOBUF:
        for one in messages(body):
            assert re.fullmatch("[a-zA-Z_:][a-zA-Z0-9_:]*", one[0])
            for labels_of_one in one[1]:
                assert all(re.fullmatch("[a-zA-Z_][a-zA-Z0-9_]*", name) for name in labels_of_one)
                assert "__name__" not in labels_of_one
                assert len(set(labels_of_one)) == len(labels_of_one)
        return
    for line in body.decode().splitlines():
        if not line.startswith("#"):
            assert LINE.fullmatch(line), line
            found = re.findall(r"([a-zA-Z_][a-zA-Z0-9_]*)=\"", line.partition(" # ")[0])
            assert len(set(found)) == len(found), line
            assert "__name__" not in found


def messages(body):
    """Return the names of the families, and the names of the labels of each of their metrics."""
    from support.expositions import message, varint

    at = 0
    while at < len(body):
        length, at = varint(body, at)
        fields = message(body[at : at + length])
        at += length
        all_labels = [[message(pair)[1][0].decode() for pair in message(raw)[1]] for raw in fields[4]]
        yield b"".join(fields[1]).decode(), all_labels


@given(found=st.lists(names, unique=True, max_size=6))
def test_any_labels(found):
    """Different labels stay different, and legal ones keep their names."""
    renamed, _ = legal_labels(tuple(found))
    after = tuple(found) if renamed is None else renamed

    assert len(set(after)) == len(found)
    assert all(re.fullmatch("[a-zA-Z_][a-zA-Z0-9_]*", name) for name in after)
    assert [name for name in found if name in after and re.fullmatch("[a-zA-Z_][a-zA-Z0-9_]*", name)] == [
        name for name in found if re.fullmatch("[a-zA-Z_][a-zA-Z0-9_]*", name)
    ]


@given(one=st.text(max_size=5), other=st.text(max_size=5))
def test_reversible_names_differ(one, other):
    """Different names are different in the reversible escaping."""
    assert (one == other) is (reversible(one) == reversible(other))


def test_promtool_accepts_what_was_made_legal(registry, tool):
    """`promtool check metrics`, the strict parser of expfmt, reads a page with all of this."""
    hostile(registry)
    attach(registry)
    body = page(registry, faults=[])
    done = subprocess.run(
        [tool("promtool"), "check", "metrics"], input=body, capture_output=True, timeout=30, check=False
    )

    assert b"error while linting" not in done.stderr, done.stderr.decode()
