"""Rules name what the catalog has, and are well-formed for Prometheus and for its operator."""

import re
import subprocess

import pytest
import yaml
from jsonschema import Draft7Validator

from scaleobs._render.output import rules_text
from scaleobs._render.rules import rules
from scaleobs.objectives import Availability, Latency
from support.operator_schema import PROMETHEUS_RULE
from support.promql import selectors, strangers

OBJECTIVES = [
    Availability(99.95),
    Availability(99, route="/o/{id:int}"),
    Latency(99, under=1),
    Latency(95, under=0.25, route="/o/{id:int}"),
    Latency(95, under=2.5, route=r'^a"b\d+$'),
]
VARIANTS = [
    {"service": service, "objectives": objectives, "time_scale": scale}
    for service in (None, "orders")
    for objectives in ((), OBJECTIVES)
    for scale in (1, 7, 300, 30_000, 0.5)
]


def members(**arguments):
    """Return all rules of all groups."""
    return [rule for group in rules(**arguments) for rule in group.rules]


def alerts(**arguments):
    """Return the alerts by name."""
    return {rule["alert"]: rule for rule in members(**arguments) if "alert" in rule}


@pytest.mark.parametrize("arguments", VARIANTS, ids=str)
def test_promtool_reports_nothing(arguments, tmp_path, tool):
    """
    Every variant passes Prometheus's own check, lint included.
    """
    path = tmp_path / "rules.yaml"
    path.write_text(rules_text(**arguments), encoding="utf-8")

    result = subprocess.run(
        [tool("promtool"), "check", "rules", "--lint=all", "--lint-fatal", path],
        capture_output=True,
        text=True,
        check=False,
    )

    assert 0 == result.returncode, result.stdout + result.stderr


@pytest.mark.parametrize("arguments", VARIANTS, ids=str)
def test_rules_name_nothing_that_is_not_catalogued(arguments):
    """
    Each series is in the catalog or recorded by an earlier rule, and so is each label.
    """
    recorded = frozenset(rule["record"] for rule in members(**arguments) if "record" in rule)

    assert [] == [stranger for rule in members(**arguments) for stranger in strangers(rule["expr"], recorded)]


@pytest.mark.parametrize(
    ("days", "lines"),
    [(30, ["0.0144", "0.006", "0.003", "0.001"]), (28, ["0.01344", "0.0056", "0.0028", "0.00093333"])],
)
def test_budget_may_be_for_four_weeks(days, lines):
    """
    2, 5, 10 and 10 % of the budget within an hour, six, a day and three are other burn rates if the budget is for less.
    """
    found = [
        rule for group in rules("orders", objectives=[Availability(99.9)], window_days=days) for rule in group.rules
    ]
    burning = [rule["expr"].splitlines()[0].split(" > ")[1] for rule in found if rule.get("alert") == "ErrorBudgetBurn"]

    assert lines == burning


def test_budget_for_another_time_is_refused():
    """
    The message has the possible values.
    """
    with pytest.raises(ValueError, match="A budget for 7 days is not known: give 28 or 30"):
        rules(window_days=7)


@pytest.mark.parametrize("service", [None, "orders"])
def test_long_windows_read_recorded_series(service):
    """
    No window longer than a quarter of an hour reads series of instances.
    """
    long = {"30m", "1h", "2h", "6h", "1d", "3d"}
    raw = [
        rule["expr"]
        for rule in members(service=service, objectives=OBJECTIVES)
        if re.search(r"http_requests_total|duration_seconds", rule["expr"])
    ]

    assert [] == [expr for expr in raw for range_ in re.findall(r"(?<!count)\[(\w+)\]", expr) if range_ in long]


@pytest.mark.parametrize("service", [None, "orders"])
def test_every_recorded_series_is_read_or_meant_for_people(service):
    """
    Only the mean is read by no alert and no other rule: it is for comparison.
    """
    recorded = {rule["record"] for rule in members(service=service) if "record" in rule}
    read = {name for rule in members(service=service) for name, _ in selectors(rule["expr"])}

    assert {"job:request_latency_seconds:mean5m"} == recorded - read


def test_rules_of_one_service_select_its_job_everywhere():
    """
    Only the series of containers are found by their pod instead.
    """
    loose = {
        name for rule in members(service="orders") for name, labels in selectors(rule["expr"]) if "job" not in labels
    }

    assert {
        "container_cpu_usage_seconds_total",
        "container_memory_working_set_bytes",
        "container_cpu_cfs_periods_total",
        "container_cpu_cfs_throttled_periods_total",
        "kube_pod_container_resource_limits",
        "kube_pod_owner",
        "kube_replicaset_owner",
        "kube_deployment_spec_replicas",
        "kube_deployment_status_replicas_available",
    } == loose


@pytest.mark.parametrize("service", [None, "orders"])
def test_alert_has_severity_and_texts(service):
    """
    Each has a severity, a service, a summary and a description, and no varying value in its labels.
    """
    for name, rule in alerts(service=service).items():
        assert {"severity", "service"} == set(rule["labels"]), name
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}, name
        assert "$value" not in str(rule["labels"]), name
        assert {"summary", "description", "runbook_url", "dashboard_url"} == set(rule["annotations"]), name


def test_severity_follows_the_effect_on_users():
    """
    Symptoms with lost requests are critical; CPU is a cause and only information.
    """
    found = {name: rule["labels"]["severity"] for name, rule in alerts().items()}
    severities = {
        "ServiceDown": "critical",
        "ServiceAbsent": "critical",
        "HighErrorRate": "critical",
        "HighRouteErrorRate": "warning",
        "ErrorLogBurst": "warning",
        "HighRequestLatency": "warning",
        "HighCPUUsage": "info",
        "HighMemoryUsage": "warning",
        "InstanceDown": "warning",
        "MetricsMissing": "warning",
        "CrashLoop": "warning",
        "ReplicasMissing": "warning",
        "StartupStuck": "warning",
        "CPUThrottled": "info",
        "ServiceNotReady": "critical",
        "InstanceNotReady": "warning",
        "CheckFailing": "warning",
        "TrafficGone": "warning",
        "EventLoopLag": "warning",
        "ThreadPoolSaturated": "warning",
        "HighFileDescriptorUsage": "warning",
        "ConnectionsStuck": "info",
        "LabelSetsDropped": "warning",
        "InternalFaults": "info",
    }

    # Another alert may be a warning or information; what is critical is decided here.
    assert severities.items() <= found.items()
    assert "critical" not in {found[name] for name in found.keys() - severities}


def test_job_may_differ_from_the_service():
    """
    Selectors have the job, labels and group names the service; a missing one is replaced by the other.
    """
    both = alerts(service="orders", job="shop/orders")["ServiceAbsent"]

    assert 'absent(up{job="shop/orders"})' == both["expr"]
    assert "orders" == both["labels"]["service"]
    assert "scaleobs.orders.targets" == rules("orders", "shop/orders")[0].name
    assert members(service="orders") == members(job="orders")


def test_objectives_set_the_thresholds():
    """
    99.95 % leaves 0.72 % at 14.4 times the pace, 99 % under a second leaves 14.4 %.
    """
    found = alerts(service="orders", objectives=OBJECTIVES)
    text = rules_text("orders", objectives=OBJECTIVES)

    assert 'job:http_requests_bad:ratio_rate5m{job="orders"} > 0.0072' in found["HighErrorRate"]["expr"]
    assert 'job:http_requests_slow:ratio_rate5m{job="orders"} > 0.144' in found["HighRequestLatency"]["expr"]
    assert r'le=~"1|1\\.0"' in text
    assert not re.search(r"\d\.\d{7}", text)


def test_every_duration_is_scaled():
    """
    At a scale of 300 only a day, 4m48s, and 25 hours, 5m, have minutes: in ranges, offsets, waits and numbers.
    """
    text = "\n".join(rules_text(service, time_scale=300) for service in (None, "orders"))
    rendered = re.findall(r"\b\d+(?:d|h|m|s|ms)(?:\d+m?s)?\b", re.sub(r"^\s*#.*", "", text, flags=re.MULTILINE))

    assert {"100ms", "200ms", "400ms", "1s", "2s", "3s", "6s", "12s", "1m12s", "4m48s", "5m"} == set(rendered)
    assert "300" not in re.sub(r"^#.*", "", text, flags=re.MULTILINE)


@pytest.mark.parametrize(("seconds", "window", "least"), [(1, 300, 60), (15, 300, 60), (60, 300, 120), (120, 480, 240)])
def test_windows_and_waits_fit_the_scrape_interval(seconds, window, least):
    """
    Rates have four scrapes, alerts wait for two, and rules are evaluated no more often than targets are scraped.
    """
    found = rules("orders", objectives=OBJECTIVES, scrape_interval=seconds)
    text = "\n".join(rule["expr"] for group in found for rule in group.rules)
    ranges = [rate for rate in re.findall(r"rate\(\w+\{[^}]*\}\[(\w+)\]", text) if not rate.startswith("15m")]
    waits = {rule["for"] for group in found for rule in group.rules if "for" in rule}
    spelled = {60: "1m", 120: "2m", 240: "4m", 300: "5m", 480: "8m"}

    assert {spelled[window]} == set(ranges)
    intervals = {group.name.rpartition(".")[2]: group.interval for group in found}
    assert "2m" == intervals.pop("budgets")
    assert {spelled.get(max(30, seconds), "30s")} == set(intervals.values())
    assert spelled[least] in waits
    assert not {"1m", "2m", "4m"}.intersection(waits) - {spelled[one] for one in spelled if one >= least}
    assert f"* {window} >= 5" in text
    assert {str(max(30, seconds))} == set(re.findall(r"\]\) \* (\d+)\) >=", text))


def test_scrape_interval_shapes_durations_before_they_are_scaled():
    """
    At a time scale of 60, eight minutes are eight seconds.
    """
    found = rules("orders", time_scale=60, scrape_interval=120)

    assert {"2s"} == {group.interval for group in found}
    assert "[8s]" in found[2].rules[0]["expr"]


@pytest.mark.parametrize("seconds", [0, -1, 121, 3600, float("nan"), 0.5])
def test_impossible_scrape_interval_is_refused(seconds):
    """
    The message has the value, the range and the reason.
    """
    with pytest.raises(
        ValueError, match=rf"of {seconds} seconds can't be used: give 1 to 120\. For Prometheus a series ends"
    ):
        rules(scrape_interval=seconds)


def test_mean_is_never_alerted_on():
    """
    The mean latency is recorded under its common name, for comparison only.
    """
    reading = [name for rule in alerts().values() for name, _ in selectors(rule["expr"])]

    assert "job:request_latency_seconds:mean5m" in rules_text()
    assert "job:request_latency_seconds:mean5m" not in reading


@pytest.mark.parametrize("name", ["", 'a"b', "a\\b", "a\nb", "a b", "orders\n", "{{x}}", "-a", "_", "ä", "a" * 201])
@pytest.mark.parametrize("kind", ["service", "job"])
def test_impossible_name_is_refused(kind, name):
    """
    Names that need escaping in PromQL, templates or file names are refused.
    """
    with pytest.raises(ValueError, match=f"The {kind} name .* can't be used"):
        rules(**{kind: name})


@pytest.mark.parametrize("service", [None, "orders", "Shop/Orders.v2:api_"])
def test_operator_accepts_the_resource(service):
    """
    The PrometheusRule has exactly the keys that its definition allows, and a valid name.
    """
    resource = yaml.safe_load(rules_text(service, objectives=OBJECTIVES, time_scale=7, format_="prometheusrule"))
    groups = resource["spec"]["groups"]

    assert [] == [error.message for error in Draft7Validator(PROMETHEUS_RULE).iter_errors(resource)]
    assert len(groups) == len({group["name"] for group in groups})


@pytest.mark.parametrize("service", [None, "orders"])
def test_both_formats_hold_the_same_groups(service):
    """
    Templates and expressions go through both unchanged.
    """
    plain = yaml.safe_load(rules_text(service))["groups"]
    resource = yaml.safe_load(rules_text(service, format_="prometheusrule"))["spec"]["groups"]

    assert [group.data() for group in rules(service)] == plain
    assert plain == resource


def test_file_names_the_command_that_made_it():
    """
    The header is the command that writes the same file again.
    """
    text = rules_text("orders", "shop/orders", [Availability(99.9), Latency(99, under=0.5)], 300.0)
    scope, slo = "--service orders --job shop/orders", "--slo availability=99.9 --slo latency=99:0.5"

    assert f"# Generated by: scaleobs rules {scope} {slo} --time-scale 300" == text.splitlines()[0]


def test_unknown_format_is_refused():
    """
    The message lists the formats.
    """
    with pytest.raises(ValueError, match="'yaml' is not known: give one of prometheus, prometheusrule"):
        rules_text(format_="yaml")


def test_expressions_are_literal_blocks():
    """
    No PromQL has quoted newlines, and no line ends in a blank.
    """
    text = rules_text()

    assert "\\n" not in text
    assert [] == [line for line in text.splitlines() if line != line.rstrip()]
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
