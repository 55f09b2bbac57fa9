"""Rules and dashboards are compared with the metrics page of a real service."""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path

import pytest
import yaml

from scaleobs._render.output import dashboard_texts, rules_text
from support import servers
from support.check_command import call, check

SERVICES = {
    "orders": ("uvicorn", "orders:app", "--workers", "1"),
    "orders, two workers": ("uvicorn", "orders:app", "--workers", "2"),
    "billing": ("gunicorn", "billing:app", "--workers", "1"),
    "billing, two workers": ("gunicorn", "billing:app", "--workers", "2"),
    "many": ("uvicorn", "many:app", "--workers", "1"),
}
PATHS = {"orders": "/orders/1", "billing": "/bills/1"}


@contextlib.contextmanager
def service(name, folder, **environ):
    """Run a service, and yield its port and the address of its metrics."""
    server, application, *more = SERVICES[name]
    port = servers.free_port()
    address = ["--bind", f"127.0.0.1:{port}"] if server == "gunicorn" else ["--host", "127.0.0.1", "--port", str(port)]
    command = [sys.executable, "-m", server, application, *more, *address]
    places = str(Path(__file__).parents[1] / "support" / "services")
    with servers.running(command, port, folder, PYTHONPATH=f"{places}:{':'.join(sys.path)}", **environ):
        yield port, f"http://127.0.0.1:{port}/metrics"


@pytest.fixture(scope="module")
def orders(tmp_path_factory):
    """Run a FastAPI service that has answered a request."""
    with service("orders", tmp_path_factory.mktemp("orders")) as (port, url):
        servers.get(port, PATHS["orders"])
        # Thread pools are sampled four times a second.
        servers.until(lambda: b"thread_pool_busy" in servers.get(port, "/metrics")[1])
        yield url


def rule_file(folder, *rules):
    """Write a file of rules."""
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "mine", "rules": list(rules)}]}))
    return path


def alert(expression):
    return {"alert": "Mine", "expr": expression}


@pytest.mark.servers
@pytest.mark.parametrize("name", [name for name in SERVICES if name != "many"])
@pytest.mark.parametrize("has_traffic", [False, True], ids=["fresh", "after a request"])
def test_a_service_has_the_series_of_the_rules(name, has_traffic, tmp_path):
    """
    No finding for ASGI and WSGI, one worker or two, before and after the first request.
    """
    kind = name.partition(",")[0]
    with service(name, tmp_path) as (port, url):
        if has_traffic:
            servers.get(port, PATHS[kind])
        checked = check(url, "--service", kind, "--slo", "availability=99.9", "--slo", "latency=99:0.5")

    assert (0, {}) == (checked.code, checked.findings())
    assert "metrics" == checked.content["kind"]
    assert min(checked.content["checked"].values()) > 20
    assert "from Prometheus or Kubernetes" in checked.notes()["up"]
    assert "recorded by these rules" in checked.notes()["job:http_requests:rate5m"]
    assert ("event_loop_lag_seconds_count" in checked.notes()) is (kind == "billing")
    assert ("http_request_duration_seconds_bucket" in checked.notes()) is not has_traffic


@pytest.mark.servers
@pytest.mark.parametrize(
    ("expression", "subject", "sentence"),
    [
        ('rate(http_requests_total{status=~"5.."}[5m])', "http_requests_total", "has no label 'status'; it has method"),
        ('rate(http_requests_total{status!~"5.."}[5m])', "http_requests_total", "has no label 'status'"),
        ("http_request_total", "http_request_total", "no such series. Did you mean http_requests_total?"),
        (
            'http_requests_total{status_code="5xx"}',
            "http_requests_total",
            'never matches status_code="5xx": its values have three digits',
        ),
        (
            'http_requests_total{method="get"}',
            "http_requests_total",
            'never matches method="get": its values are CONNECT',
        ),
        (
            'log_messages_total{level="ERROR"}',
            "log_messages_total",
            'never matches level="ERROR": its values are debug',
        ),
        (
            'http_request_duration_seconds_bucket{le="0.3"}',
            "http_request_duration_seconds_bucket",
            'never matches le="0.3": the buckets are 0.005, 0.01',
        ),
        (
            'http_request_duration_seconds_bucket{le="1"}',
            "http_request_duration_seconds_bucket",
            'never matches le="1"',
        ),
        ('http_requests_total{route="/order/{id}"}', "http_requests_total", "Did you mean /orders/{order_id}?"),
        ('service_info{service_name="order"}', "service_info", "there are orders. Did you mean orders?"),
        (
            "sum by (code) (http_requests_total)",
            "alert Mine",
            "groups or matches by 'code', which none of its series has",
        ),
        ('http_requests_total{cluster="eu"}', "http_requests_total", "has no label 'cluster'"),
        ("sum(http_requests_total", "alert Mine", "is not valid PromQL: unclosed left parenthesis"),
    ],
)
def test_what_never_matches_is_found(expression, subject, sentence, orders, tmp_path):
    """
    Wrong names and labels, impossible values, an empty group: each finding lists what exists.
    """
    checked = check(orders, "--rules", rule_file(tmp_path, alert(expression)))

    assert 1 == checked.code
    assert [subject] == list(checked.findings())
    assert sentence in checked.findings()[subject]
    assert ["alert Mine"] == checked.used_by(sentence)


@pytest.mark.servers
@pytest.mark.parametrize(
    ("expression", "note"),
    [
        ('http_requests_total{status_code="418"}', "no series yet"),
        ('http_requests_total{method="DELETE"}', "no series yet"),
        ('http_requests_total{route="unmatched"}', "no series yet"),
        ('http_requests_total{method="POST",route="/orders/{order_id}"}', "no series yet with all of"),
        ('thread_pool_busy{pool="asyncio"}', "no series yet"),
        ('kube_deployment_status_replicas{deployment="orders"}', "from Prometheus or Kubernetes"),
        ("team:budget:ratio", "recorded by other rules"),
        ('{__name__=~"http_.*"}', "not checked"),
        ("histogram_count(rate(http_request_duration_seconds[5m]))", "Prometheus keeps no native histogram"),
        ('http_requests_total{job="orders",pod=~"orders-.*"}', None),
        ('http_requests_total{route=~"/orders/.*"}', None),
        ('sum by (job, route, le) (http_request_duration_seconds_bucket{le=~"1|1\\\\.0"})', None),
        ('sum by (short) (label_replace(http_requests_total, "short", "$1", "route", "/(.*)"))', None),
    ],
)
def test_what_may_come_is_no_finding(expression, note, orders, tmp_path):
    """
    Events that have not happened and series of other sources are notes; series that exist are not mentioned.
    """
    checked = check(orders, "--rules", rule_file(tmp_path, alert(expression)))

    assert (0, {}) == (checked.code, checked.findings())
    notes = " ".join(checked.notes().values())
    assert note in notes if note else notes == ""


@pytest.mark.servers
def test_labels_that_scrapes_add_are_taken_as_given(orders, tmp_path):
    """
    An option names the labels of targets.
    """
    rules = rule_file(tmp_path, alert('sum by (cluster) (http_requests_total{cluster="eu"})'))

    assert 1 == check(orders, "--rules", rules).code
    assert 0 == check(orders, "--rules", rules, "--target-label", "cluster").code


@pytest.mark.servers
def test_route_of_an_objective_has_to_exist(tmp_path):
    """
    Routes are present from the start, before there is a histogram.
    """
    with service("billing", tmp_path) as (_, url):
        wrong = check(url, "--service", "billing", "--slo", "latency=99:0.5:/bills/{bill_id}")
        right = check(url, "--service", "billing", "--slo", "latency=99:0.5:/bills/<int:bill_id>")

    assert (1, 0) == (wrong.code, right.code)
    assert {"http_request_duration_seconds_count", "http_request_duration_seconds_bucket"} == set(wrong.findings())
    assert "Did you mean /bills/<int:bill_id>?" in wrong.findings()["http_request_duration_seconds_count"]


@pytest.mark.servers
def test_application_defines_the_queries(orders, tmp_path, monkeypatch):
    """
    The application's page has its name, route and boundary; the page of another service does not.
    """
    (tmp_path / "till.py").write_text(
        "import fastapi, scaleobs\n"
        "app = fastapi.FastAPI()\n"
        "app.get('/pay')(lambda: 'paid')\n"
        "objectives = [scaleobs.Availability(99.9, '/pay'), scaleobs.Latency(99, under=0.3)]\n"
        "scaleobs.instrument(app, service='till', objectives=objectives)\n"
    )
    monkeypatch.chdir(tmp_path)
    port = servers.free_port()
    command = [sys.executable, "-m", "uvicorn", "till:app", "--host", "127.0.0.1", "--port", str(port)]
    with servers.running(command, port, tmp_path, PYTHONPATH=":".join(["", *sys.path])):
        servers.get(port, "/pay")
        own = check(f"http://127.0.0.1:{port}/metrics", "--app", "till:app")
    others, without = check(orders, "--app", "till:app"), check(orders)

    assert (0, {}) == (own.code, own.findings())
    assert 1 == others.code
    assert ["objective availability=99.9:/pay"] == others.used_by('route="/pay"')
    assert ["record job:http_requests_fast:rate5m"] == others.used_by('le="0.3"')
    assert "this is the page of orders, but the rules are for till" == others.notes()["service_info"]
    assert (0, {}) == (without.code, without.findings())


@pytest.mark.servers
def test_changed_files_of_every_kind_are_read(orders, tmp_path):
    """
    A PrometheusRule, a dashboard exported by the API, and a ConfigMap; findings name the rules and panels.
    """
    (tmp_path / "rule.yaml").write_text(rules_text("orders", format_="prometheusrule").replace("status_code", "status"))
    (page,) = (json.loads(text) for text in dashboard_texts("orders").values())
    exported = json.dumps({"dashboard": page, "meta": {}}).replace("active_connections", "connections_active")
    (tmp_path / "exported.json").write_text(exported)
    config_map = {"kind": "ConfigMap", "data": {"page.json": json.dumps(page).replace("log_messages", "log_lines")}}
    (tmp_path / "map.yaml").write_text(yaml.safe_dump(config_map))
    files = ["--rules", tmp_path / "rule.yaml", "--dashboard", tmp_path / "exported.json"]

    checked = check(orders, *files, "--dashboard", tmp_path / "map.yaml")

    assert "record job:http_requests_fast:rate5m" in checked.used_by("has no label 'status'")
    assert ["panel Open connections"] == checked.used_by("Did you mean active_connections")
    assert ["panel Log lines"] == checked.used_by("Did you mean log_messages_total")
    # The label is in the rule's own grouping, so the rule is the subject.
    assert "status" in checked.findings()["record job_route_status:http_requests:rate5m"]
    assert {"connections_active", "log_lines_total"} <= set(checked.findings())


@pytest.mark.servers
def test_dashboard_s_variables_and_folded_rows_are_checked(orders, tmp_path):
    """
    Panels in a folded row and a variable's label are checked; panels with another data source are not.
    """
    inner = [
        {"title": "Inner", "targets": [{"expr": 'rate(http_reqs_total{job="$job"}[$__rate_interval])'}]},
        {"title": "Logs", "datasource": {"type": "loki"}, "targets": [{"expr": '{app="orders"} |= "error"'}]},
    ]
    variable = {
        "name": "path",
        "type": "query",
        "query": {"query": 'label_values(http_requests_total{job="$job"}, path)'},
    }
    page = {"panels": [{"type": "row", "panels": inner}], "templating": {"list": [variable]}}
    (tmp_path / "page.json").write_text(json.dumps(page))

    checked = check(orders, "--dashboard", tmp_path / "page.json")

    assert {"http_reqs_total", "variable path"} == set(checked.findings())
    assert ["panel Inner"] == checked.used_by("no such series")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: [", "is not valid YAML or JSON"),
        ("{", "is not valid YAML or JSON"),
        ("hello", "contains neither rule groups nor panels"),
        ("", "contains neither rule groups nor panels"),
        ("groups: [{name: a, rules: [{alert: b}]}]", "is not a rule file or dashboard"),
        ("groups: 7", "is not a rule file or dashboard"),
    ],
)
def test_file_that_can_t_be_read_is_one_sentence(text, sentence, tmp_path):
    """
    The error comes before any request.
    """
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    result = call("http://nowhere.invalid/metrics", "--rules", path)

    assert 2 == result.exit_code
    assert sentence in result.stderr
    assert str(path) in result.stderr
    assert "Traceback" not in result.stderr
    assert (
        "Can't read '/nowhere': No such file or directory."
        in call("http://nowhere.invalid/metrics", "--rules", "/nowhere").stderr
    )


@pytest.mark.servers
def test_page_of_another_service_is_noted(tmp_path):
    """
    The rules are for another service.
    """
    with service("billing", tmp_path) as (_, url):
        checked = check(url, "--service", "orders")

    assert "this is the page of billing, but the rules are for orders" == checked.notes()["service_info"]


@pytest.mark.servers
def test_limit_of_label_sets_is_reported_before_and_after(tmp_path):
    """
    At four fifths of the limit, with examples of routes, and after label sets were dropped.
    """
    with service("many", tmp_path) as (port, url):
        for number in range(7):
            servers.get(port, f"/u/{number}")
        before = check(url, "--service", "many", "--max-label-sets", 10)
        servers.get(port, "/u/7")
        near = check(url, "--service", "many", "--max-label-sets", 10)
        for number in range(20):
            servers.get(port, f"/v/{number}")
        over = check(url, "--service", "many", "--max-label-sets", 10)

    assert (0, 1, 1) == (before.code, near.code, over.code)
    assert (
        "has 8 label sets of at most 10 (max_label_sets); routes with many of them: /u/"
        in near.findings()["http_requests_total"]
    )
    assert "were dropped at the limit" in over.findings()["scaleobs_label_sets_dropped_total"]


@pytest.mark.servers
def test_table_has_the_content_of_json(orders, tmp_path):
    """
    The table has the series, the finding and the rule, with unchanged brackets.
    """
    rules = rule_file(tmp_path, alert('http_requests_total{status_code=~"[a-z]x"}'))
    result = call(orders, "--rules", rules)

    assert 1 == result.exit_code
    assert 'never matches status_code=~"[a-z]x"' in result.stdout
    assert "alert Mine" in result.stdout
    assert "Findings: 1. Notes: 0." in result.stdout


@pytest.mark.servers
def test_token_opens_the_metrics(tmp_path):
    """
    A service with a token can be checked only with it.
    """
    with service("orders", tmp_path, SCALEOBS_METRICS_TOKEN="s3cret") as (_, url):
        without, with_it = call(url), call(url, "--token", "s3cret")

    assert (2, 0) == (without.exit_code, with_it.exit_code)
    assert "answered 401: give a valid token with --token." in without.stderr
