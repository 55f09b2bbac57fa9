"""Stories are made from the parameters of rules, and fail for rules that do not follow them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from scaleobs._cli.commands import scaleobs
from scaleobs._render.output import rules_text
from scaleobs._render.rules import rules
from scaleobs._render.stories import stories
from scaleobs.objectives import Availability, Latency

OBJECTIVES = [
    "--slo=availability=99.9",
    "--slo=availability=99:/pay",
    "--slo=latency=99:0.5",
    "--slo=latency=95:0.25:/pay",
]
# Stories with waits of hours run in `make soak`.
SOON = ["--set=ErrorBudgetBurn.for=5m", "--set=LatencyBudgetBurn.for=5m", "--disable=TrafficGone"]
OF_ORDERS = [Availability(99.9), Latency(99, under=0.5)]
OF_ROUTES = [*OF_ORDERS, Availability(99, route="/pay"), Latency(95, under=0.25, route="/pay")]

# The alerts with the fastest stories, and options that leave only these.
ALERTS = {rule["alert"] for group in rules("orders") for rule in group.rules if "alert" in rule}
OTHERS = sorted(ALERTS - {"ServiceNotReady", "InstanceDown"})
FEW = ["--service", "orders", *(word for name in OTHERS for word in ("--disable", name))]

OTHER_THAN_BURSTS = [f"--disable={name}" for name in sorted(ALERTS - {"ErrorLogBurst", "HighErrorRate"})]


def call(*arguments):
    """Run the command inside this process."""
    return CliRunner().invoke(scaleobs, ["stories", *map(str, arguments)], prog_name="scaleobs")


def failed_alerts(tool, *arguments):
    """Return the alerts of failed stories, the exit code and the JSON."""
    result = call("--json", "--promtool", tool("promtool"), *arguments)
    content = json.loads(result.stdout)
    assert len(content["stories"]) > 10
    return {one["alert"] for one in content["stories"] if not one["is_true"]}, result.exit_code, content


@pytest.mark.servers
@pytest.mark.parametrize(
    "arguments",
    [
        ["--set", "ServiceDown.severity=info", "--set", "InstanceDown.for=10m", "--scrape-interval", "2m"],
        ["--service", "orders", "--job", "shop/orders", *OBJECTIVES, "--window", "28", *SOON],
        ["--job", "orders", "--time-scale", "300", "--set", "HighErrorRate.for=1h", "--disable", "TrafficGone"],
        [*OTHER_THAN_BURSTS, "--set", "ErrorLogBurst.for=12h"],
    ],
    ids=["every service, changed", "objectives", "fire drill", "a burst of hours"],
)
def test_stories_pass_with_the_command_s_rules(arguments, tool):
    """
    With all options, each alert fires and is silent as configured.
    """
    assert (set(), 0) == failed_alerts(tool, *arguments)[:2]


def test_changed_threshold_is_that_of_the_stories(tmp_path, tool):
    """
    They pass with rules that have this threshold, and fail with others.
    """
    others = sorted(ALERTS - {"HighMemoryUsage"})
    arguments = ["--service", "orders", "--set", "HighMemoryUsage.above=95%"]
    arguments += [word for name in others for word in ("--disable", name)]
    (tmp_path / "mine.yaml").write_text(rules_text("orders"))
    result = call("--json", "--promtool", tool("promtool"), *arguments)
    without = call("--json", "--promtool", tool("promtool"), *arguments, "--rules", tmp_path / "mine.yaml")

    assert 0 == result.exit_code
    assert [("HighMemoryUsage", "A container uses slightly less of its memory limit than the threshold.")] == [
        (one["alert"], one["story"]) for one in json.loads(without.stdout)["stories"] if not one["is_true"]
    ]


@pytest.mark.servers
def test_application_defines_the_stories(tmp_path, tool, monkeypatch):
    """
    They are about its objectives, pass with rules for these, and fail with rules for others.
    """
    (tmp_path / "till.py").write_text(
        "import scaleobs\n"
        "def till(environ, start_response): ...\n"
        "objectives = [scaleobs.Availability(99.5, '/pay'), scaleobs.Latency(99, under=0.3)]\n"
        "app = scaleobs.instrument(till, service='till', objectives=objectives)\n"
    )
    monkeypatch.chdir(tmp_path)
    expected = {"HighRequestLatency", "QuietServiceFailing", "QuietServiceSlow", "ErrorBudgetBurn"}
    arguments = ["--app", "till:app", "--set=ErrorBudgetBurn.for=5m", "--disable=LatencyBudgetBurn"]
    arguments += [f"--disable={name}" for name in sorted(ALERTS - expected)]
    others = [Availability(99.9, route="/pay"), Latency(99, under=0.5)]
    (tmp_path / "others.yaml").write_text(rules_text("till", objectives=others, overrides=["ErrorBudgetBurn.for=5m"]))

    found, code, content = failed_alerts(tool, *arguments)
    of_others = failed_alerts(tool, *arguments, "--rules", tmp_path / "others.yaml")

    assert (set(), 0) == (found, code)
    assert expected == {one["alert"] for one in content["stories"] if one["alert"] != "every alert"}
    assert {"availability /pay"} == {
        one["which"] for one in content["stories"] if one["alert"] == "QuietServiceFailing"
    }
    assert ({"ErrorBudgetBurn", "HighRequestLatency", "QuietServiceSlow"}, 1) == of_others[:2]


def test_every_alert_has_a_story_of_each_kind():
    """
    One in which it fires and one in which it is silent, also for each pair of windows and each route.
    """
    expected = stories(service="orders", objectives=OF_ROUTES)
    kinds: dict[tuple[str, str], set[bool]] = {}
    for story in expected.stories[1:]:
        kinds.setdefault((story.alert, story.variant), set()).add(story.fires)
    names = {
        (rule["alert"], rule["labels"].get("route"), rule["labels"].get("long_window"))
        for group in rules("orders", objectives=OF_ROUTES)
        for rule in group.rules
        if "alert" in rule
    }

    assert names == {
        (story.alert, story.labels.get("route"), story.labels.get("long_window")) for story in expected.stories[1:]
    }
    # Only the story in which all is well covers the silence of this alert.
    assert {("InstanceDown", "")} == {which for which, found in kinds.items() if found != {True, False}}


# Changes of a rule file by hand: a pattern, its replacement, and the alert whose stories fail.
MISTAKES = {
    "another line": (r"(bad:ratio_rate5m\S*) > 0\.0144", r"\1 > 0.05", "HighErrorRate"),
    "a line that is too low": (r"(bad:ratio_rate5m\S*) > 0\.0144", r"\1 > 0.001", "HighErrorRate"),
    "the wrong way round": (r"(bad:ratio_rate5m\S*) > 0\.0144", r"\1 < 0.0144", "HighErrorRate"),
    "a shorter wait": (r"(alert: HighErrorRate\n(?:.*\n)*? *for: )5m", r"\g<1>1m", "HighErrorRate"),
    "a longer wait": (r"(alert: HighErrorRate\n(?:.*\n)*? *for: )5m", r"\g<1>15m", "HighErrorRate"),
    "another severity": (r"(alert: ServiceDown\n(?:.*\n)*? *severity: )critical", r"\1info", "ServiceDown"),
    "another service": (r"(alert: ServiceDown\n(?:.*\n)*? *service: )orders", r"\1shop", "ServiceDown"),
    "a renamed label": (r"status_code=~", "status=~", "HighErrorRate"),
    "a renamed series": ("http_requests_total", "http_requests", "HighErrorRate"),
    "another job": ('job="orders"', 'job="order"', "ServiceDown"),
    "no minimum of failures": (r"\n *and\n *job:http_requests_bad:rate5m\S* \* 300 >= 5", "", "HighErrorRate"),
    "errors of clients": (r'=~"5\.\."', '=~"[45].."', "HighErrorRate"),
    "one of two is down": (r"sum by \(job\) \((up\S*)\) == 0", r"min by (job) (\1) == 0", "ServiceDown"),
    "absent is down": (r"absent\((up\S*)\)", r"\1 == 0", "ServiceAbsent"),
    "another bucket": ('le="0.5"', 'le="0.25"', "HighRequestLatency"),
    "a ratio without a sum": (
        r"(- record: job:http_requests_bad:ratio_rate5m\n *expr: )\|-\n.*\n.*\n.*",
        r"\1rate(http_requests_total{status_code=~'5..'}[5m]) / rate(http_requests_total[5m])",
        "HighErrorRate",
    ),
    "a record that is missing": (
        r" *- record: job:http_requests_fast:rate5m\n(?:.*\n)*?(?= *- )",
        "",
        "HighRequestLatency",
    ),
    "a lost alert": ("alert: ConnectionsStuck", "alert: StuckConnections", "ConnectionsStuck"),
    "a slower budget": (r"(ratio_rate3d\S*) > 0\.001\b", r"\1 > 0.002", "ErrorBudgetBurn"),
    "no first burst": (r"\+\n( *)\((?:.|\n)*?\) / 300", "+ 0", "HighErrorRate"),
    "every new series is a first burst": (
        r"and on \(job, instance\)\n( *)\(\n.*\n.*\n.*\n *\)(?= / 300)?",
        "",
        "HighErrorRate",
    ),
    "first burst of a target that was down": ("offset 5m == 1", "offset 5m", "HighErrorRate"),
    "no first burst of a new process": (
        r"\n *or\n *process_start_time_seconds\S* > time\(\) - 300",
        "",
        "HighErrorRate",
    ),
    "fifty failures are needed": (r"(rate5m\S*) \* 300 >= 5\b", r"\1 * 300 >= 50", "HighErrorRate"),
    "sums before rates": (
        r"rate\((http_requests_total\S*)\[5m\]\)",
        r"rate((sum by (job, route, status_code) (\1))[5m:30s])",
        "HighErrorRate",
    ),
    "no failure is no number": (r"\n *or\n *0 \* job_route:http_requests:rate5m\S*", "", "ErrorBudgetBurn"),
    "routes are all one": (r"sum by \(job, route\)", "sum by (job)", "HighRouteErrorRate"),
    "another line of routes": (r"(sum_over_time\(job_route\S* / .*) > 0\.2\b", r"\1 > 0.3", "HighRouteErrorRate"),
    "a start that was at work": (
        r"\n *unless on \(job, instance\)\n *\((?:\n.*service_ready(?:.*\n){3} *\))",
        "",
        "StartupStuck",
    ),
    "every check is one of the start": (r'(health_check_up)\{job="orders",probe="startup"\}', r"\1", "StartupStuck"),
    "twice as many log lines as usual": (r"(log_messages_error:rate5m\S*) > 10 \*", r"\1 > 2 *", "ErrorLogBurst"),
    "very many log lines": (r"(log_messages_error:rate5m\S* \* 300) >= 50", r"\1 >= 100", "ErrorLogBurst"),
    "warnings are errors": (r'level=~"error\|critical"', 'level=~"warning|error|critical"', "ErrorLogBurst"),
    "throttled half of the time": (r"(\n *\)) > 0\.25\b", r"\1 > 0.5", "CPUThrottled"),
    "all replicas are missing": (
        r"\n *-\n *max by \(namespace, deployment\) \(kube_deployment_status.*",
        "",
        "ReplicasMissing",
    ),
    "nights count as traffic": (r"\n *and\n *min_over_time\(job:http_requests:rate5m.*", "", "TrafficGone"),
}


@pytest.fixture(scope="module")
def written():
    return rules_text("orders", objectives=OF_ORDERS)


@pytest.mark.servers
@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_in_a_changed_file_is_found(mistake, written, tmp_path, tool):
    """
    The alert's own stories fail.
    """
    pattern, instead, alert = MISTAKES[mistake]
    wrong = re.sub(pattern, instead, written)
    assert wrong != written
    (tmp_path / "mine.yaml").write_text(wrong)
    # The stories of the other alerts are slow, and do not test this one.
    budgets = {"ErrorBudgetBurn", "LatencyBudgetBurn", "QuietServiceFailing", "QuietServiceSlow"}
    disabled = [word for name in sorted((ALERTS | budgets) - {alert}) for word in ("--disable", name)]
    arguments = ["--service", "orders", "--slo", "availability=99.9", "--slo", "latency=99:0.5", *disabled]

    result = call("--json", "--promtool", tool("promtool"), *arguments, "--rules", tmp_path / "mine.yaml")

    assert alert in {one["alert"] for one in json.loads(result.stdout)["stories"] if not one["is_true"]}
    assert 1 == result.exit_code


def test_rules_for_uninstrumented_services_are_found(tmp_path, tool):
    """
    Rules for every service ignore services without scaleobs.
    """
    text = rules_text()
    wrong = re.sub(
        r"(\n *\))\n *and on \(job\)\n *last_over_time\S*(?=\n *- record: job_route:http_requests:)", r"\1", text
    )
    assert wrong != text
    (tmp_path / "mine.yaml").write_text(wrong)
    disabled = [f"--disable={name}" for name in sorted(ALERTS - {"InstanceDown"})]
    result = call("--json", "--promtool", tool("promtool"), *disabled, "--rules", tmp_path / "mine.yaml")

    assert ["every alert"] == [one["alert"] for one in json.loads(result.stdout)["stories"] if not one["is_true"]]


def test_alert_without_a_story_is_named(tmp_path, tool):
    """
    The output names an alert that was added to a PrometheusRule, and has no story.
    """
    text = rules_text("orders", disabled=OTHERS, format_="prometheusrule")
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    arguments = [*FEW, "--promtool", tool("promtool"), "--rules", path]
    well = call(*arguments)
    path.write_text(text + "    - name: mine\n      rules: [{alert: MyOwn, expr: up == 2}]\n")
    added, table = call(*arguments, "--json"), call(*arguments)
    content = json.loads(added.stdout)

    assert (0, 0, 0) == (well.exit_code, added.exit_code, table.exit_code)
    assert "4 stories, 0 failed." in well.stdout
    assert all(one["is_true"] for one in content["stories"])
    assert ["MyOwn"] == content["without_a_story"]
    assert "Not tested, since there is no story about them: MyOwn." in table.stdout


def test_files_are_kept_and_run_by_hand(tmp_path, tool):
    """
    With --out, promtool runs each story in that directory, which contains the rules, too.
    """
    result = call(*FEW, "--promtool", tool("promtool"), "--out", tmp_path / "a" / "b")
    test = min((tmp_path / "a" / "b").glob("*-ServiceNotReady.test.yaml"))
    done = subprocess.run([tool("promtool"), "test", "rules", test], capture_output=True, text=True, check=False)

    assert (0, 0) == (result.exit_code, done.returncode)
    content = yaml.safe_load(test.read_text())
    assert "ServiceNotReady: No instance is ready." == content["tests"][0]["name"]
    assert [test.name.replace(".test.", ".rules.")] == content["rule_files"]


def test_failure_has_the_output_of_promtool(written, tmp_path, tool):
    """
    The table has the story; below it are the expected and the actual result.
    """
    (tmp_path / "mine.yaml").write_text(written.replace("for: 5m", "for: 20m"))
    result = call(*FEW, "--promtool", tool("promtool"), "--rules", tmp_path / "mine.yaml")

    assert 1 == result.exit_code
    assert "\nServiceNotReady: No instance is ready.\n" in result.stdout
    assert re.search(r"exp:.*severity=\"critical\"", result.stdout)
    assert "got: nil" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["--promtool", "/nowhere/promtool"], 1, "Can't run '/nowhere/promtool'"),
        (["--slo", "availability=100"], 2, "give a percentage above 0 and below 100"),
        (["--disable", "Nothing"], 2, "The alert 'Nothing' is not among these rules"),
        (["--rules", "/nowhere"], 2, "Can't read '/nowhere'"),
        (["--out", "/proc/nowhere", "--promtool", sys.executable], 1, "Can't create the directory '/proc/nowhere'"),
    ],
)
def test_error_is_one_sentence(arguments, code, sentence):
    """
    No table and no traceback are printed.
    """
    result = call(*arguments)

    assert code == result.exit_code
    assert sentence in result.stderr
    assert "Traceback" not in result.output


def test_missing_promtool_is_one_sentence():
    """
    The sentence names the package.
    """
    program = Path(sys.executable).with_name("scaleobs")
    done = subprocess.run(
        [program, "stories"], env={**os.environ, "PATH": "/nowhere"}, capture_output=True, text=True, check=False
    )

    assert 2 == done.returncode
    assert "No promtool on PATH: it comes with Prometheus" in done.stderr


@pytest.mark.parametrize("command", [["stories"], ["check", "http://localhost:1/metrics"]], ids=["stories", "check"])
def test_one_service_of_a_file_must_be_selected(command, tmp_path):
    """
    With several services in a file, the error lists them.
    """
    (tmp_path / "scaleobs.toml").write_text('services = [{service = "orders"}, {service = "carts"}]')
    arguments = [*command, "--config", str(tmp_path / "scaleobs.toml")]
    every = CliRunner().invoke(scaleobs, arguments)
    unknown = CliRunner().invoke(scaleobs, [*arguments, "--service", "carts", "--set", "Nothing.for=5m"])

    assert (2, 2) == (every.exit_code, unknown.exit_code)
    assert "has several services: give --service with one of orders, carts." in every.stderr
    assert "The alert 'Nothing' is not among these rules" in unknown.stderr
