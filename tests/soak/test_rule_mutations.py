"""
Mistakes planted in the rendered rules, each of which some story has to notice: for `make soak`.

Without SOAK_SECONDS in the environment there is nothing to do here. A mistake that survives is a test that fails.
"""

from __future__ import annotations

import os
import re
import subprocess

import pytest
import yaml

from rules.test_promtool import RULES, STORIES
from scaleobs._render.output import rules_text

AND_SEEN = r"\n *and on \(job\)\n *last_over_time\S*"
MISTAKES = {
    # Requests that fail.
    "no first burst": (r"\+\n( *)\((?:.|\n)*?\) / 300", "+ 0"),
    "every new series is a first burst": (r"and on \(job, instance\)\n( *)\(\n.*\n.*\n.*\n *\)", ""),
    "no first burst of a new process": (r"\n *or\n *process_start_time_seconds\S* > time\(\) - 300", ""),
    "first burst of new processes only": (r"up\S* offset 5m == 1\n *or\n *(process_start)", r"\1"),
    "first burst of a target that was down": (r"offset 5m == 1", "offset 5m"),
    "no ratio without errors": (r"\n *or\n *0 \* job_route:http_requests:rate5m\S*", ""),
    "a ratio without requests": (r"\((job:http_requests:rate5m\S*) > 0\)", r"\1"),
    "clients' mistakes are failures": (r'status_code=~"5\.\."', 'status_code=~"[45].."'),
    "one failure is enough": (r"(rate5m\S*) \* 300 >= 5\b", r"\1 * 300 >= 0"),
    "fifty failures are needed": (r"(rate5m\S*) \* 300 >= 5\b", r"\1 * 300 >= 50"),
    "a line of 20 %": (r"(_bad:ratio_rate5m\S*) > 0\.05", r"\1 > 0.2"),
    "a line of 0.05 %": (r"(_bad:ratio_rate5m\S*) > 0\.05", r"\1 > 0.0005"),
    "better than the line": (r"(_bad:ratio_rate5m\S*) > 0\.05", r"\1 < 0.05"),
    "series divided one by one": (
        r"job:http_requests_bad:rate5m\S*\n *\/\n *\(job:http_requests:rate5m\S* > 0\)",
        'max by (job) (rate(http_requests_total{status_code=~"5.."}[5m]) / rate(http_requests_total[5m]))',
    ),
    "sums before rates": (
        r"rate\((http_requests_total\S*)\[5m\]\)",
        r"rate((sum by (job, route, status_code) (\1))[5m:30s])",
    ),
    "status codes are all one": (r"sum by \(job, route, status_code\)", "sum by (job, route)"),
    "failures are all there is": (
        r"(expr: sum by \(job, route\) \(job_route_status_code\S*)\)\n",
        r'\1 and job_route_status_code:http_requests:rate5m{status_code=~"5.."})\n',
    ),
    "sums of half a minute ago": (
        r"( *- record: job_route_status_code:(?:.*\n)+?)( *- record: job_route:(?:.*\n)+?)(?= *- record: job:)",
        r"\2\1",
    ),
    "failures without a wait": (r"(alert: HighErrorRate\n(?:.*\n)*? *for: )5m", r"\g<1>1m"),
    "strangers' requests": (rf"(\n *\)){AND_SEEN}(?=\n *- record: job_route:http_requests:)", r"\1"),
    # Routes that fail.
    "a route's line of 60 %": (r"(sum_over_time\(job_route\S* / .*) > 0\.2", r"\1 > 0.6"),
    "a route's line of 10 %": (r"(sum_over_time\(job_route\S* / .*) > 0\.2", r"\1 > 0.1"),
    "one failure of a route": (r"(job_route\S*\[30m\]\) \* 30\)) >= 5", r"\1 >= 1"),
    "fifty failures of a route": (r"(job_route\S*\[30m\]\) \* 30\)) >= 5", r"\1 >= 50"),
    "routes are remembered for two hours": (r"(sum_over_time\(job_route\S*)\[30m\]", r"\1[2h]"),
    "a route fails for a minute": (r"(alert: HighRouteErrorRate\n(?:.*\n)*? *for: )5m", r"\g<1>1m"),
    "a route fails for half an hour": (r"(alert: HighRouteErrorRate\n(?:.*\n)*? *for: )5m", r"\g<1>30m"),
    "routes are all one": (r"sum by \(job, route\)", "sum by (job)"),
    # Log lines.
    "a few log lines": (r"(log_messages_error:rate5m\S* \* 300) >= 50", r"\1 >= 5"),
    "very many log lines": (r"(log_messages_error:rate5m\S* \* 300) >= 50", r"\1 >= 500"),
    "twice as many log lines as usual": (r"(log_messages_error:rate5m\S*) > 10 \*", r"\1 > 2 *"),
    "a hundred times as many log lines": (r"(log_messages_error:rate5m\S*) > 10 \*", r"\1 > 100 *"),
    "a burst of log lines is usual": (r"(log_messages_error:rate5m\S*\[1d\]) offset 1h", r"\1"),
    "log lines of a young service": (r"\n *or\n *min_over_time\(job:log.*", ""),
    "no log lines are usual at first": (r"min_over_time\((job:log\S*)\[1h\]\)", r"0 * \1"),
    "warnings are errors": (r'level=~"error\|critical"', 'level=~"warning|error|critical"'),
    "critical lines are none": (r'level=~"error\|critical"', 'level="error"'),
    "log lines for longer than five minutes": (r"(alert: ErrorLogBurst\n(?:.*\n)*? *for: )2m", r"\g<1>10m"),
    "strangers' log lines": (rf"(log_messages_total\S*\[5m\]\)\n *\)){AND_SEEN}", r"\1"),
    # Requests that are slow.
    "failures are answers": (r'status_code!~"499\|5\.\."', 'status_code!~"499"'),
    "clients that left are answers": (r'status_code!~"499\|5\.\."', 'status_code!~"5.."'),
    "one spelling of a boundary": (r'le=~"1\|1\\\\\.0"', 'le="1"'),
    "slow by the mean": (
        r"_slow:ratio_rate5m(\S*) > 0.05",
        r"_slow:ratio_rate5m\1 > -1 and job:request_latency_seconds:mean5m\1 > 0.5",
    ),
    "a line of 1 % for slow answers": (r"_slow:ratio_rate5m(\S*) > 0.05", r"_slow:ratio_rate5m\1 > 0.01"),
    "slow for half as long": (r"(alert: HighRequestLatency\n(?:.*\n)*? *for: )10m", r"\g<1>5m"),
    "strangers' slow answers": (rf"(histogram_count\(.*\n *\)){AND_SEEN}", r"\1"),
    # Who is there.
    "down when one instance is": (r"sum by \(job\) \((up\S*)\) == 0", r"min by (job) (\1) == 0"),
    "down at once": (r"(alert: ServiceDown\n(?:.*\n)*? *for: )2m", r"\g<1>0m"),
    "strangers that are down": (rf"(\(up\) == 0){AND_SEEN}", r"\1"),
    "absent at once": (r"(absent\(\S*\)\n *)for: 5m", r"\1for: 0m"),
    "absent is down": (r"absent\((up\S*)\)", r"\1 == 0"),
    "absent is forgotten at once": (
        r"last_over_time\(job:service_info:count\[1d\]\)(?=\n *unless)",
        "job:service_info:count",
    ),
    "absent is remembered for two days": (r"\[1d\](?=\)\n *unless)", "[2d]"),
    "an instance is down when it is up": (r"(alert: InstanceDown\n *expr: (?:\|-\n *)?up\S*) == 0", r"\1 == 1"),
    "an instance is down at once": (r"(alert: InstanceDown\n(?:.*\n)*? *for: )5m", r"\g<1>1m"),
    "no metrics is no reason": (r"\n *unless on \(job\)\n *service_info.*", ""),
    "instances that are down show no metrics": (r"count by \(job\) \((up\S*) == 1\)", r"count by (job) (\1)"),
    "two starts are a crash loop": (r"(changes\(.*\)) > 2", r"\1 > 1"),
    "four starts are a crash loop": (r"(changes\(.*\)) > 2", r"\1 > 3"),
    "starts of an hour": (r"(changes\(.*)\[15m\]", r"\1[1h]"),
    "one instance that isn't ready is the service": (r"\n *unless on \(job\)\n *service_ready.*", ""),
    "no instance is ready, and that is a warning": (
        r"(alert: ServiceNotReady\n(?:.*\n)*? *severity: )critical",
        r"\1warning",
    ),
    "an instance of none isn't ready": (r"(alert: InstanceNotReady\n(?:.*\n)*?.*== 0)\n *and.*\n.*", r"\1"),
    "not ready at once": (r"(alert: InstanceNotReady\n(?:.*\n)*? *for: )15m", r"\g<1>1m"),
    "checks repeat the readiness alert": (r"(health_check_up\S* == 0)\n *and.*\n.*", r"\1"),
    "traffic of nights": (r"\n *and\n *min_over_time\(job:http_requests:rate5m.*", ""),
    "traffic of an hour ago": (r" offset 1d\) > 0", ") > 0"),
    "traffic of weeks": (r"avg_over_time\((\S*)\[6h\]\) > 0\.1", r"avg_over_time(\1[2d]) > 0.1"),
    "hardly any traffic": (r"(avg_over_time\(\S*\[6h\]\)) > 0\.1", r"\1 > 0.001"),
    "an hour of which five minutes are known": (r"\n *and\n *job:http_requests:rate5m\S* offset 1d1h", ""),
    # Who doesn't come up.
    "a start that takes its time": (r"(alert: StartupStuck\n(?:.*\n)*? *for: )10m", r"\g<1>1m"),
    "a start is tried again": (r"max_over_time\((health_check_up\S*)\[10m\]\)", r"\1"),
    "a start that was stuck": (r"max_over_time\((health_check_up\S*)\[10m\]\)", r"min_over_time(\1[10m])"),
    "every check is one of the start": (r'(health_check_up)\{(job="orders",)?probe="startup"\}', r"\1"),
    "a pod that is gone starts": (r"\n *and on \(job, instance\)\n *up\S*(?=\n *unless)", ""),
    "checks of the start that fail later": (
        r"\n *unless on \(job, instance\)\n *\((?:\n.*service_ready(?:.*\n){3} *\))",
        "",
    ),
    "an hour of a start is a minute": (r"(process_start_time_seconds\S* < time\(\) - )3600", r"\g<1>60"),
    "strangers that start": (rf"(< time\(\) - 3600\n *\)){AND_SEEN}", r"\1"),
    "replicas are missing at once": (r"(alert: ReplicasMissing\n(?:.*\n)*? *for: )15m", r"\g<1>1m"),
    "replicas of two exporters": (r"max by \(namespace, deployment\)", "sum by (namespace, deployment)"),
    "replicas of the same name elsewhere": (
        r"\* on \(namespace, deployment\) group_left \(\)\n *\(",
        "* on (deployment) group_left () max without (namespace) (",
    ),
    "ReplicaSets are Deployments": (r'owner_kind="Deployment"', 'owner_kind="ReplicaSet"'),
    "all replicas are missing": (r"\n *-\n *max by \(namespace, deployment\) \(kube_deployment_status.*", ""),
    # What runs short.
    "throttling is no rate": (r"rate\((container_cpu_cfs_throttled\S*)\[5m\]\)", r"\1"),
    "throttled half of the time": (r"(\n *\)) > 0\.25\b", r"\1 > 0.5"),
    "throttled a little": (r"(\n *\)) > 0\.25\b", r"\1 > 0.15"),
    "throttled at once": (r"(alert: CPUThrottled\n(?:.*\n)*? *for: )15m", r"\g<1>5m"),
    "control groups are throttled": (r'(container_cpu_cfs\w+)\{container!="",container!="POD"\}', r"\1"),
    "CPU time is no rate": (r"rate\((container_cpu\S*)\[5m\]\)", r"\1"),
    "pods of the same name elsewhere": (
        r"\* on \(namespace, pod\) group_left\n *max by \(namespace, pod\)",
        "* on (pod) group_left max by (pod)",
    ),
    "a CPU limit of 0": (r'(resource="cpu"\}\)) > 0', r"\1"),
    "a memory limit of 0": (r'(resource="memory"\}\)) > 0', r"\1"),
    "limits of two exporters": (
        r"max by \(namespace, pod, container\) \(kube",
        "sum by (namespace, pod, container) (kube",
    ),
    "a limit of anything": (r'\{resource="memory"\}', ""),
    "a process repeats the alert of its container": (r"or on \(job, namespace, pod\)", "or"),
    "half of a core": (r"(\[5m\]\)\)\n *\)?|\[5m\]\)\)\)) > 0\.8", r"\1 > 0.5"),
    "nearly all of the memory": (r"> 0\.9\n", "> 0.96\n"),
    "a loop that is a little late": (r'(event_loop_lag_seconds_bucket\{.*?)le="0\.25"', r'\1le="0.1"'),
    "a loop that is late half of the time": (r"(\n *\)) > 0\.1\b(?!\d)", r"\1 > 0.5"),
    "loops of all instances": (
        r"sum by \(job, instance\) (\(\n *rate\(event_loop)",
        r"sum by (job) \1",
    ),
    "calls that waited once": (r"min_over_time\(thread_pool", "max_over_time(thread_pool"),
    "nearly all file descriptors": (r"(process_max_fds\S*\)) > 0\.8", r"\1 > 0.95"),
    "file descriptors of all instances": (r"sum by \(job, instance\) \((process_\w+_fds)", r"sum by (job) (\1"),
    "WebSockets are stuck": (r'(active_connections)\{(job="orders",)?protocol="http"\}', r"\1"),
    "working instances are stuck": (r"\n *unless on \(job, instance\)\n.*rate\(http_requests_total.*", ""),
    "strangers' file descriptors": (r"(process_max_fds\) > 0\.8)\n.*and on.*\n.*service_info", r"\1"),
    # scaleobs itself.
    "label sets of long ago": (r"increase\((scaleobs_label_sets\S*)\[15m\]\)", r"\1"),
    "label sets of the fleet": (r"increase\((scaleobs_label_sets\S*)\[15m\]\)", r"sum by (job) (increase(\1[15m]))"),
    "faults of long ago": (r"increase\((scaleobs_internal\S*)\[15m\]\)", r"\1"),
    # The links of alerts.
    "the runbook of another alert": ("RUNBOOK.md#servicedown", "RUNBOOK.md#serviceabsent"),
    "a link with a route's braces": (r"(var-route=\{\{ \$labels\.route) \| urlquery", r"\1"),
    "a link with an instance's colon": (r"(var-instance=\{\{ (?:\.|\$labels\.instance)) \| urlquery", r"\1"),
    # Error budgets.
    "ten times the line": (r"(ratio_rate\w+\S*) > 0\.0144", r"\1 > 0.144"),
    "a tenth of the line": (r"(ratio_rate\w+\S*) > 0\.0144", r"\1 > 0.00144"),
    "the line of six hours": (r"(ratio_rate\w+\S*) > 0\.006", r"\1 > 0.06"),
    "the line of three days": (r"(ratio_rate\w+\S*) > 0\.001\b", r"\1 > 0.01"),
    "no short window": (r"(ratio_rate1h\S* > \S+)\n *and\n *\S*ratio_rate5m.*", r"\1"),
    "no long window": (r"job:\w+:ratio_rate1h\S* > \S+\n *and\n( *\S*ratio_rate5m)", r"\1"),
    "either window": (r"(ratio_rate1h\S* > \S+\n *)and", r"\1or"),
    "a few failures wake somebody": (r"(\[1h\]\) \* 30\)) >= 5", r"\1 >= 0"),
    "many failures wake nobody": (r"(\[1h\]\) \* 30\)) >= 5", r"\1 >= 50000"),
    "half an hour is an hour": (r"(avg_over_time\(job:http_requests_bad:rate5m\S*)\[30m\]", r"\1[1h]"),
    "an hour is two": (r"(avg_over_time\(job:http_requests_bad:rate5m\S*)\[1h\]", r"\1[2h]"),
    "two hours are one": (r"(avg_over_time\(job:http_requests_bad:rate5m\S*)\[2h\]", r"\1[1h]"),
    "six hours are a day": (r"(avg_over_time\(job:http_requests_bad:rate5m\S*)\[6h\]", r"\1[1d]"),
    "a day is three": (r"(avg_over_time\(job:http_requests_bad:rate5m\S*)\[1d\]", r"\1[3d]"),
    "three days are one": (r"(avg_over_time\(job:http_requests_bad:rate5m\S*)\[3d\]", r"\1[1d]"),
    "a mean of ratios": (
        r"job:http_requests_bad:rate1d(\S*)\n *\/\n.*",
        r"avg_over_time(job:http_requests_bad:ratio_rate5m\1[1d])",
    ),
    "a ratio of an hour without requests": (r"\((job:http_requests:rate1h\S*) > 0\)", r"\1"),
    "a ticket at once": (r"(ratio_rate3d(?:.*\n)*? *for: )3h", r"\g<1>15m"),
    "six hours are a ticket": (r"(ratio_rate6h\S* > 0.006(?:.*\n)*? *severity: )critical", r"\1warning"),
    "windows with the wrong names": ("long_window: 6h", "long_window: 1d"),
    "a month is a mean of ratios": (
        r"avg_over_time\(job:http_requests_bad:rate5m(\S*)\[30d\]\)\n *\/\n.*",
        r"avg_over_time(job:http_requests_bad:ratio_rate5m\1[30d])",
    ),
    "a month is four weeks": (r"\[30d\]", "[28d]"),
    "a month is longer": (r"\[30d\]", "[35d]"),
    "what is spent is left": (r"1 - (job:http_requests_bad:ratio_rate30d)", r"\1"),
    "more is left than there was": (r"1 - (job:http_requests_bad:ratio_rate30d)", r"1 + \1"),
    "a tenth of the budget": (r"(ratio_rate30d\S* \/ )0\.001\b", r"\g<1>0.0001"),
    "the budget of the last hour": (r"(job:http_requests(?:_bad)?:)ratio_rate30d(\S* \/)", r"\1ratio_rate1h\2"),
    "half of few requests": (r"(ratio_rate6h\S*) > 0\.55", r"\1 >= 0.5"),
    "half of few requests, as rate() guesses": (r"(ratio_rate6h\S*) > 0\.55", r"\1 > 0.51"),
    "one of few requests": (r"(\[6h\]\) \* 30\)) >= 2", r"\1 >= 1"),
    "five of few requests": (r"(\[6h\]\) \* 30\)) >= 2", r"\1 >= 5"),
    "the budget of another route": (r',?route="/o/\{id:int\}"(?=,status)', ""),
    "the budget of a route is the service's": (
        r'job_route(:http_requests(?:_bad)?:rate5m)\{job="orders",route="/o/\{id:int\}"\}',
        r'job\1{job="orders"}',
    ),
    "another boundary of a route": (r'(route="/o/[^\n]*)le="0\.25"', r'\1le="0.5"'),
}
RENDERED = {name: rules_text(**arguments) for name, arguments in RULES.items()}
# What takes least time first: most mistakes are found there.
ORDERED_STORIES = sorted(
    STORIES, key=lambda path: ("long" in path.name, "budgets" in path.name, "traffic" in path.name)
)


@pytest.mark.skipif("SOAK_SECONDS" not in os.environ, reason="It takes minutes: `make soak` runs it.")
@pytest.mark.parametrize("mistake", MISTAKES)
def test_planted_mistake_is_noticed(mistake, tmp_path, tool):
    """
    Some story doesn't come true any more, and not because the rules can't be read.
    """
    planted = {name: re.sub(*MISTAKES[mistake], text) for name, text in RENDERED.items()}
    for name, text in planted.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    changed = {name for name, text in planted.items() if text != RENDERED[name]}
    for story in ORDERED_STORIES:
        text = story.read_text(encoding="utf-8")
        if not changed & set(yaml.safe_load(text)["rule_files"]):
            continue
        (tmp_path / story.name).write_text(text, encoding="utf-8")
        command = [tool("promtool"), "test", "rules", tmp_path / story.name]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        printed = result.stdout + result.stderr
        assert "parse error" not in printed, printed
        if result.returncode:
            return

    assert changed, "The mistake fits nowhere: it has to be planted anew."
    pytest.fail(f"No story noticed: {mistake}")
