"""The scanner finds in an expression what a whole parser finds."""

import promql_parser
import pytest

from expressions import grouping_labels, nodes
from scaleobs.cli.check.promql import Matcher, read, same
from scaleobs.cli.check.sources import Asked, read_text
from scaleobs.objectives import Availability, Latency
from scaleobs.render.output import dashboard_texts, rules_text

TRICKY = [
    "up",
    "a:b:c",
    "sum(up)",
    "sum by (job) (up)",
    "sum(up) by (job)",
    "SUM BY (job) (up)",
    "up offset 5m == bool 1",
    "up @ 1609746000",
    "up @ end()",
    "max_over_time(rate(a[5m])[30m:1m])",
    'a{b="c",}',
    'a{b="}{,()\\"#"}',
    '{__name__="a",b!="c"}',
    "a{} # {no} selector\n+ b",
    "1e5 + .5 * 0x1F - a / 5 > -Inf",
    "a * on (x, y) group_left () b",
    "a / ignoring (x) group_right b",
    "topk(5, a) unless b or c and d",
    'label_replace(a, "b", "$1", "c", "(.*)")',
    "histogram_quantile(0.9, sum without (pod) (rate(a_bucket[1h30m])))",
    'count_values("version", build)',
    'absent(up{job="x"}) or vector(1)',
    "time() - a > 3600",
    "-a ^ 2 % b",
    "a atan2 b",
    'a{b=~"1|1\\\\.0",c="ä"}',
]


def ours():
    """Return every expression that scaleobs writes, as far as a parser of PromQL takes it."""
    asked = Asked()
    objectives = [Availability(99.9), Latency(99, under=1), Latency(95, under=0.25, route="/o/{id:int}")]
    for text in (rules_text(), rules_text("orders", objectives=objectives), *dashboard_texts("orders").values()):
        read_text(text, asked, "ours")
    texts = [one.expression for one in (*asked.rules, *asked.panels)]
    return sorted({text.replace("$__rate_interval", "5m").replace("$__range", "1h") for text in texts})


def parsed(expression):
    """Return the selectors of an expression as promql_parser sees them."""
    return sorted(
        (node.name or "", sorted((one.name, str(one.op), one.value) for one in node.matchers.matchers))
        for node in nodes(expression)
        if isinstance(node, promql_parser.VectorSelector)
    )


def scanned(expression):
    signs = {"=": "MatchOp.Equal", "!=": "MatchOp.NotEqual", "=~": "MatchOp.Re", "!~": "MatchOp.NotRe"}
    return sorted(
        (one.name, sorted((m.label, signs[m.sign], m.value) for m in one.matchers))
        for one in read(expression).selectors
    )


def test_scanner_finds_what_a_parser_finds():
    """
    Names, matchers and the labels that are grouped by are the same, whoever reads them.
    """
    for expression in [*TRICKY, *ours()]:
        expected = [
            ("".join(v for n, _, v in m if n == "__name__") or name, [one for one in m if one[0] != "__name__"])
            for name, m in parsed(expression)
        ]

        assert sorted(expected) == scanned(expression), expression
        assert grouping_labels(expression) == read(expression).grouping, expression


def test_what_the_parser_doesn_t_know_is_read():
    """
    Text between backquotes is as it stands, and the labels that a join adds are labels.
    """
    assert (Matcher("b", "=~", r"x\d+"),) == read(r"a{b=~`x\d+`}").selectors[0].matchers
    assert {"x", "z"} == read("a * on (x) group_left (z) b").grouping


def test_dashboard_variables_are_read():
    """
    Ranges, values and names may be Grafana's to fill in.
    """
    read_ = read('sum(rate(a{job=~"$job",x="${y:regex}"}[$__rate_interval])) / $metric{b="c"} > $limit')

    assert ["a", "$metric"] == [one.name for one in read_.selectors]
    assert [True, True] == [one.is_variable for one in read_.selectors[0].matchers]
    assert [False] == [one.is_variable for one in read_.selectors[1].matchers]


def test_prometheus_3_names_in_quotes():
    """
    A name that stands in the braces is the name, and it is asked for so that Prometheus 2 takes the question.
    """
    (selector,) = read('sum by ("k8s.pod") ({"http.requests", "a.b"="c"})').selectors

    assert "http.requests" == selector.name
    assert [Matcher("a.b", "=", "c")] == list(selector.matchers)
    assert '{__name__="http.requests",a.b="c"}' == str(selector)


@pytest.mark.parametrize(
    "expression",
    ["sum(up", "up)", "a{b=c}", 'a{b="c"', 'a{b="c" d="e"', "sum by (job", "a ? b", 'a{b="\\d"}', "a{b=}", "{"],
)
def test_what_is_no_promql_is_refused(expression):
    """
    What ends too early, or has a sign or an escape that PromQL doesn't know.
    """
    with pytest.raises(ValueError, match=r"read|match|end|escape"):
        read(expression)


@pytest.mark.parametrize(
    ("matcher", "fits", "misses"),
    [
        (Matcher("a", "=", "x"), ["x"], ["", "xx"]),
        (Matcher("a", "!=", "x"), ["", "y"], ["x"]),
        (Matcher("a", "=~", "x|y"), ["x", "y"], ["xy", ""]),
        (Matcher("a", "!~", "x.*"), ["", "ax"], ["x", "xa"]),
        (Matcher("a", "=~", "$job"), ["anything"], []),
        (Matcher("a", "=~", "(?i)x"), ["X"], ["y"]),
        (Matcher("a", "=~", r"\pL"), ["what Python can't read may match"], []),
    ],
)
def test_matchers_match_as_prometheus_does(matcher, fits, misses):
    """
    Regular expressions have to match all of a value, and a label that isn't there is empty.
    """
    assert [True] * len(fits) == [matcher.matches(value) for value in fits]
    assert [False] * len(misses) == [matcher.matches(value) for value in misses]


def test_same_questions_in_other_words():
    """
    White space, comments, quotes and the spelling of numbers make no difference; all else does.
    """
    assert same("sum by (job) (a) # why\n> 0.00001", "sum by(job) (a) > 1e-05")
    assert same("a{b='c'} * on (x) group_left b", 'a{b="c"} * on (x) group_left () b')
    assert same('a{b="1",a="2",}', 'a{a="2", b="1"}')
    assert not same("a > 0.05", "a > 0.5")
    assert not same('a{b="1"}', 'a{b!="1"}')
    assert not same('a{b="c d"}', 'a{b="cd"}')
    assert not same("a[5m]", "a[50m]")
    assert not same("a ? b", "a")
