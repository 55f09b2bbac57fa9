"""Selectors and grouping labels of expressions, also with variables of Grafana."""

import subprocess
import sys

import promql_parser
import pytest

from scaleobs._cli.check.expressions import Matcher, read, same
from scaleobs._cli.check.sources import Questions, read_text
from scaleobs._render.output import dashboard_texts, rules_text
from scaleobs.objectives import Availability, Latency
from support.promql import grouping_labels, nodes

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
    questions = Questions()
    objectives = [Availability(99.9), Latency(99, under=1), Latency(95, under=0.25, route="/o/{id:int}")]
    for text in (rules_text(), rules_text("orders", objectives=objectives), *dashboard_texts("orders").values()):
        read_text(text, questions, "ours")
    texts = [one.expression for one in (*questions.rules, *questions.panels)]
    return sorted({text.replace("$__rate_interval", "5m").replace("$__range", "1h") for text in texts})


def parsed(expression):
    """Return the selectors of an expression as promql_parser sees them."""
    return sorted(
        (node.name or "", sorted((one.name, str(one.op), one.value) for one in node.matchers.matchers))
        for node in nodes(expression)
        if isinstance(node, promql_parser.VectorSelector)
    )


def found(expression):
    signs = {"=": "MatchOp.Equal", "!=": "MatchOp.NotEqual", "=~": "MatchOp.Re", "!~": "MatchOp.NotRe"}
    return sorted(
        (one.name, sorted((m.label, signs[m.operator], m.value) for m in one.matchers))
        for one in read(expression).selectors
    )


def test_selectors_and_labels_are_found():
    """
    Names, matchers and the labels that are grouped by, of all that the commands write and of what is seldom written.
    """
    for expression in [*TRICKY, *ours()]:
        expected = [
            ("".join(v for n, _, v in m if n == "__name__") or name, [one for one in m if one[0] != "__name__"])
            for name, m in parsed(expression)
        ]

        assert sorted(expected) == found(expression), expression
        assert grouping_labels(expression) == read(expression).grouping, expression


def test_syntax_beyond_the_parser_is_read():
    """
    Backquoted strings have no escapes, and the labels that a join adds count.
    """
    assert (Matcher("b", "=~", r"x\d+"),) == read(r"a{b=~`x\d+`}").selectors[0].matchers
    assert (Matcher("b", "=", '"\n\\'),) == read('a{b=`"\n\\`}').selectors[0].matchers
    assert {"x", "z"} == read("a * on (x) group_left (z) b").grouping
    assert [True, True, False] == [
        read(f"{one}").creates_labels for one in ('count_values("v", a)', "info(a)", "sum(a)")
    ]


def test_long_expression_is_read():
    """
    A generated expression may be very long.
    """
    assert 600 == len(read(" + ".join(["a"] * 600)).selectors)


def test_dashboard_variables_are_read():
    """
    Variables may replace ranges, values and names.
    """
    read_ = read('sum(rate(a{job=~"$job",x="${y:regex}"}[$__rate_interval])) / $metric{b="c"} > $limit')

    assert ["a", "$metric"] == [one.name for one in read_.selectors]
    assert [True, True] == [one.is_variable for one in read_.selectors[0].matchers]
    assert [False] == [one.is_variable for one in read_.selectors[1].matchers]


def test_dashboard_variable_may_be_anything():
    """
    A number, a duration, part of a name, a label to group by, or a label that a value is compared with.
    """
    read_ = read('topk($n, sum by ($group, job) (rate(${m}_total{$by="x",a="b"}[${__range_s}s:$step] offset $d))) > $n')

    assert [('{__name__="${m}_total",a="b"}')] == [str(one) for one in read_.selectors]
    assert {"job"} == read_.grouping
    assert ["$metric"] == [one.name for one in read("sum(rate($metric[5m])) # doesn't fit $more").selectors]


def test_prometheus_3_names_in_quotes():
    """
    A name in the braces is the series name, and the selector is written so that Prometheus 2 accepts it.
    """
    (selector,) = read('sum by ("k8s.pod") ({"http.requests", "a.b"="c"})').selectors

    assert "http.requests" == selector.name
    assert [Matcher("a.b", "=", "c")] == list(selector.matchers)
    assert '{__name__="http.requests",a.b="c"}' == str(selector)


@pytest.mark.parametrize(
    ("expression", "sentence"),
    [
        ("sum(up", "unclosed left parenthesis"),
        ("up)", "unexpected right parenthesis"),
        ("a{b=c}", "unexpected identifier 'c' in label matching, expected string"),
        ('a{b="c"', "unexpected end of input inside braces"),
        ('a{b="c" d="e"', "unexpected end of input inside braces"),
        ("sum by (job", "unclosed left parenthesis"),
        ("a ? b", "unexpected character: '?'"),
        ('a{b="\\d"}', "unknown escape sequence 'd'"),
        ("a{b=}", "it does not follow the grammar"),
        ("{", "unexpected end of input inside braces"),
        ("rate(up)", "expected type matrix in call to function 'rate', got vector"),
        ("sum(up > $limit", "unclosed left parenthesis"),
    ],
)
def test_what_is_no_promql_is_refused(expression, sentence):
    """
    Incomplete expressions, invalid characters and escapes, and a rate of an instant vector.
    """
    with pytest.raises(ValueError) as refused:
        read(expression)

    assert sentence in str(refused.value)
    assert "\n" not in str(refused.value)


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
    Regular expressions must match the whole value, and an absent label is empty.
    """
    assert [True] * len(fits) == [matcher.matches(value) for value in fits]
    assert [False] * len(misses) == [matcher.matches(value) for value in misses]


def test_equivalent_expressions():
    """
    White space, comments, quotes and the spelling of numbers make no difference.
    """
    assert same("sum by (job) (a) # why\n> 0.00001", "sum by(job) (a) > 1e-05")
    assert same("a{b='c'} * on (x) group_left b", 'a{b="c"} * on (x) group_left () b')
    assert same('a{b="1",a="2",}', 'a{a="2", b="1"}')
    assert same("sum(a) by (b)", "SUM by (b) (a)")
    assert same("a ? b", "a ? b")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a > 0.05", "a > 0.5"),
        ("a > 1", "a >= 1"),
        ("a > 1", "a > bool 1"),
        ('a{b="1"}', 'a{b!="1"}'),
        ('a{b="c d"}', 'a{b="cd"}'),
        ("rate(a[5m])", "rate(a[50m])"),
        ("rate(a[5m])", "rate(a[5m:])"),
        ("rate(a[5m:1m])", "rate(a[5m:2m])"),
        ("rate(a[5m])", "increase(a[5m])"),
        ("sum(a)", "max(a)"),
        ("topk(3, a)", "topk(4, a)"),
        ("round(a)", "round(a, 1)"),
        ("a offset 5m", "a offset -5m"),
        ("a @ start()", "a @ end()"),
        ("a @ 5", "a @ 6"),
        ("a and b", "a or b"),
        ("a and on (x) b", "a and ignoring (x) b"),
        ("sum by (x) (a)", "sum without (x) (a)"),
        ("sum by (x) (a)", "sum by (y) (a)"),
        ("a * on (x) group_left b", "a * on (x) group_right b"),
        ("a * on (x) group_left (y) b", "a * on (x) group_left (z) b"),
        ('label_replace(a, "b", "$1", "c", "x")', 'label_replace(a, "b", "$1", "c", "y")'),
        ("a - b", "b - a"),
        ("-a", "a"),
        ("a ? b", "a"),
    ],
)
def test_different_expressions(one, other):
    """
    Selectors, ranges and operations make a difference.
    """
    assert not same(one, other)


def test_parser_is_loaded_when_it_is_needed():
    """
    Commands that parse no expression start without it.
    """
    code = "import sys, scaleobs._cli.stories, scaleobs._cli.check.command; print('promql_parser' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "False" == done.stdout.strip()
