"""`scaleobs check`: the command, and the checks of a service's page and of a Prometheus as a whole."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from scaleobs import catalog
from scaleobs._cli.check.expressions import Matcher, Selector, same
from scaleobs._cli.check.fetch import (
    Client,
    FetchError,
    LoadedRules,
    Page,
    Prometheus,
    RefusedError,
    checked_url,
    open_source,
)
from scaleobs._cli.check.sources import Question, Questions, read_file, read_text, title
from scaleobs._cli.check.verdicts import FINDING, NOTE, Finding, Findings, check_questions, name_list
from scaleobs._cli.options import rule_options, usage_errors
from scaleobs._cli.output import table_console
from scaleobs._cli.rules import single_request
from scaleobs._render import output
from scaleobs._render.links import service_and_job
from scaleobs._render.overrides import to_flag
from scaleobs._render.promql import ROUTE, Targets, equal
from scaleobs._render.rules import RuleArguments
from scaleobs.objectives import Availability
from scaleobs.settings import Settings

_NAMES_SHOWN = 5
_NEAR = 0.8
"""A share of a limit from which on there is a finding: of the cap on label sets, or of a group's interval."""


@click.command()
@click.argument("url")
@rule_options
@click.option(
    "--rules",
    "rule_files",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="Check these rules instead of those that `scaleobs rules` writes. May be repeated.",
)
@click.option(
    "--dashboard",
    "dashboard_files",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="FILE",
    help="Check this dashboard instead of the one that `scaleobs dashboards` writes. May be repeated.",
)
@click.option(
    "--target-label",
    "target_labels",
    multiple=True,
    metavar="NAME",
    help="A label that your scrapes add to every series, such as cluster. May be repeated.",
)
@click.option(
    "--max-label-sets",
    type=click.IntRange(min=1),
    default=Settings().max_label_sets,
    show_default=True,
    help="The service's setting max_label_sets.",
)
@click.option("--token", metavar="TOKEN", help="Send this bearer token; @FILE reads it from a file.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=10,
    show_default=True,
    metavar="SECONDS",
    help="The limit for each response.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def check(  # noqa: PLR0917
    ctx: click.Context,
    /,
    url: str,
    rule_files: tuple[Path, ...],
    dashboard_files: tuple[Path, ...],
    target_labels: tuple[str, ...],
    max_label_sets: int,
    token: str | None,
    timeout: float,
    as_json: bool,
    **flags: Any,
) -> None:
    """
    Compare rules and dashboards with a service or a Prometheus.

    URL is the metrics page of a service, http://localhost:8000/metrics, or a Prometheus, http://prometheus:9090. The
    command reports rules and panels whose series do not exist, labels that do not match, and services near their limit
    of label sets; for a Prometheus, also the state of rules and targets.

    \b
    Without files, it checks the output of `scaleobs rules` and `scaleobs dashboards` with the same options. Give files
    if they were changed by hand, or written with more options.

    \b
    Exit codes: 0 without findings, 1 with findings, 2 if the check was not possible.
    """  # noqa: D301 - Click keeps the paragraph after a backspace as it is.
    with usage_errors():
        request = single_request(flags)
        questions = _questions(request, rule_files, dashboard_files)
        client = Client(timeout, _token(token))
    findings = Findings()
    try:
        source = open_source(checked_url(url), client, target_labels)
        queries = [*questions.rules, *questions.panels, *questions.routes]
        selectors = check_questions(queries, questions.recorded, source, findings)
        if isinstance(source, Page):
            _check_page(source, request.get("service"), max_label_sets, findings)
        else:
            _, job = service_and_job(request.get("service"), request.get("job"))
            level = FINDING if rule_files else NOTE
            _check_prometheus(source, job, questions.groups, level, max_label_sets, findings)
    except FetchError as error:
        if as_json:
            click.echo(json.dumps({"url": url, "error": str(error)}, indent=2))
        click.echo(f"Error: {error}", err=True)
        ctx.exit(2)
    kind = "metrics" if isinstance(source, Page) else "prometheus"
    counts = {"rules": len(questions.rules), "panels": len(questions.panels), "selectors": selectors}
    if as_json:
        click.echo(_json(url, kind, counts, findings))
    else:
        _show(kind, counts, findings)
    ctx.exit(1 if findings.of(FINDING) else 0)


def _questions(request: RuleArguments, rule_files: tuple[Path, ...], dashboard_files: tuple[Path, ...]) -> Questions:
    """Return the queries of the files; without files, those of the generated rules and dashboards."""
    questions = Questions()
    for path in (*rule_files, *dashboard_files):
        read_file(path, questions)
    if not rule_files and not dashboard_files:
        read_text(output.rules_text(**request), questions, "rules")
        for name, text in output.dashboard_texts(request.get("service"), request.get("job")).items():
            read_text(text, questions, name)
        _, job = service_and_job(request.get("service"), request.get("job"))
        targets = Targets((equal("job", job),) if job else ())
        # The rules select these routes in series that they record themselves, which are not on a metrics page.
        questions.routes = [
            Question(f"objective {to_flag(objective)}", targets.of(catalog.REQUESTS, equal(ROUTE, objective.route)))
            for objective in request.get("objectives", ())
            if isinstance(objective, Availability) and objective.route
        ]
    return questions


def _token(text: str | None) -> str | None:
    if text is None or not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        msg = f"Can't read the token file {text[1:]!r}: {getattr(error, 'strerror', None) or error}."
        raise ValueError(msg) from None


def _check_page(page: Page, service: str | None, limit: int, findings: Findings) -> None:
    """Check that the page is that of the service, and that its label sets are not near the limit."""
    infos = page.rows(Selector(catalog.INFO.name))
    if not infos:
        text = "not present: the service is not instrumented, or its metrics are at another URL"
        findings.add(FINDING, catalog.INFO.name, text)
    names = {row.get("service_name", "") for row in infos}
    if service and names and service not in names:
        text = f"this is the page of {name_list(names)}, but the rules are for {service}"
        findings.add(NOTE, catalog.INFO.name, text)
    rows = page.rows(Selector(f"{catalog.DURATION.name}_count"))
    if len(rows) >= limit * _NEAR:
        routes = Counter(row.get("route", "") for row in rows)
        text = _near_limit(len(rows), limit, [route for route, _ in routes.most_common(3)])
        findings.add(FINDING, catalog.REQUESTS.name, text)
    if requests := page.value(catalog.DROPPED.name):
        findings.add(FINDING, catalog.DROPPED.name, _above_limit(requests))


def _near_limit(count: int, limit: int, routes: list[str]) -> str:
    return f"has {count} label sets of at most {limit} (max_label_sets); routes with many of them: {', '.join(routes)}"


def _above_limit(requests: float) -> str:
    return f"the label sets of {requests:.0f} requests were dropped at the limit: a route is not a template"


def _check_prometheus(  # noqa: PLR0917
    prometheus: Prometheus, job: str | None, groups: LoadedRules, level: str, limit: int, findings: Findings
) -> None:
    """
    Check rules, targets, Alertmanagers and the number of label sets.

    Args:
        prometheus: to check.
        job: of the service; None for every instrumented one.
        groups: the rules that should be loaded.
        level: of a rule that is loaded with another expression.
        limit: the cap on label sets.
        findings: to add to.
    """
    checks: tuple[Callable[[], None], ...] = (
        lambda: _check_rules(prometheus, groups, level, findings),
        lambda: _check_targets(prometheus, job, findings),
        lambda: _check_alertmanagers(prometheus, findings),
        lambda: _check_label_sets(prometheus, job, limit, findings),
    )
    for one in checks:
        try:
            one()
        except FetchError as error:
            findings.add(NOTE, prometheus.url, f"not checked completely: {error}")


def _check_rules(prometheus: Prometheus, groups: LoadedRules, level: str, findings: Findings) -> None:
    loaded = prometheus.rules()
    for name, rules in groups.items():
        if name not in loaded:
            findings.add(FINDING, f"group {name}", "not loaded")
        for rule in _not_loaded(name, rules, loaded.get(name, []), level, findings):
            with suppress(FetchError):  # Prometheus has this endpoint since version 2.42.
                _check_syntax(prometheus, rule, findings)
        _check_group(name, loaded.get(name, []), findings)
    services = {_service(name) for name in loaded if name.startswith("scaleobs.")}
    if None in services and len(services) > 1:
        names = name_list(service for service in services if service)
        text = f"rules for every service are loaded together with those for {names}: alerts fire twice"
        findings.add(FINDING, "groups scaleobs.*", text)


def _not_loaded(
    name: str, rules: list[dict[str, Any]], loaded: list[dict[str, Any]], level: str, findings: Findings
) -> list[dict[str, Any]]:
    """Return the rules that are not loaded as they are; if their group is loaded, add a finding for each."""
    remaining, missing = list(loaded), []
    for rule in rules:
        named = [one for one in remaining if one["name"] == rule.get("alert", rule.get("record"))]
        equal_ones = [one for one in named if same(one["query"], str(rule["expr"]))]
        for one in (equal_ones or named)[:1]:
            remaining.remove(one)
        missing += [] if equal_ones else [rule]
        if named and not equal_ones:
            text = f"has another expression in the loaded group {name}: it is older, or has other options"
            findings.add(level, title(rule), text)
        elif loaded and not named:
            findings.add(FINDING, title(rule), f"not in the loaded group {name}: load these rules again")
    return missing


def _check_syntax(prometheus: Prometheus, rule: dict[str, Any], findings: Findings) -> None:
    try:
        prometheus.api("format_query", query=str(rule["expr"]))
    except RefusedError as error:
        findings.add(FINDING, title(rule), f"Prometheus can't parse it: {error}", [title(rule)])


def _check_group(name: str, loaded: list[dict[str, Any]], findings: Findings) -> None:
    for rule in loaded:
        if rule["health"] == "err" or rule.get("lastError"):
            findings.add(FINDING, f"rule {rule['name']}", f"fails: {rule.get('lastError') or 'no reason given'}")
        elif rule["health"] != "ok":
            findings.add(NOTE, f"rule {rule['name']}", "not evaluated yet")
    if loaded:
        group = loaded[0]["group"]
        seconds, interval = float(group.get("evaluationTime") or 0), float(group["interval"])
        if seconds > interval * _NEAR:
            text = f"one evaluation takes {seconds:.3g} s of an interval of {interval:g} s: evaluations will be missed"
            findings.add(FINDING, f"group {name}", text)


def _service(group: str) -> str | None:
    return group.removeprefix("scaleobs.").rpartition(".")[0] or None


def _check_targets(prometheus: Prometheus, job: str | None, findings: Findings) -> None:
    # A service that is down has no series now.
    recent = prometheus.query(f"count by (job) (last_over_time({catalog.INFO.name}[1d]))")
    jobs = {row.get("job", "") for row, _ in recent}
    if not job and not jobs:
        text = "no target has exposed it for a day: no service is instrumented"
        findings.add(FINDING, catalog.INFO.name, text)
    checked = {job} if job else jobs
    targets = prometheus.api("targets", state="active")["activeTargets"]
    of_jobs = [one for one in targets if one["labels"].get("job") in checked]
    if job and not of_jobs:
        others = name_list({one["labels"].get("job", "") for one in targets})
        findings.add(FINDING, f"job {job}", f"has no target; there are jobs {others}")
    for one in of_jobs:
        if one["health"] != "up":
            reason = one.get("lastError") or "not scraped yet"
            findings.add(FINDING, f"target {one['scrapeUrl']}", f"is {one['health']}: {reason}")


def _check_alertmanagers(prometheus: Prometheus, findings: Findings) -> None:
    if not prometheus.api("alertmanagers")["activeAlertmanagers"]:
        findings.add(FINDING, "Alertmanager", "Prometheus has none: alerts fire, but nobody is notified")


def _check_label_sets(prometheus: Prometheus, job: str | None, limit: int, findings: Findings) -> None:
    of = (Matcher("job", "=", job),) if job else ()
    full = f"topk(10, count by (job, instance) ({_label_sets(of)})) >= {limit * _NEAR:g}"
    for labels, value in prometheus.query(full):
        of_instance = tuple(Matcher(name, "=", labels.get(name, "")) for name in ("job", "instance"))
        routes = prometheus.query(f"topk(3, count by (route) ({_label_sets(of_instance)}))")
        text = _near_limit(int(value), limit, [row.get("route", "") for row, _ in routes])
        findings.add(FINDING, f"{labels.get('job')} {labels.get('instance')}", text)
    for labels, value in prometheus.query(f"topk(10, {Selector(catalog.DROPPED.name, of)} > 0)"):
        findings.add(FINDING, f"{labels.get('job')} {labels.get('instance')}", _above_limit(value))


def _label_sets(of: tuple[Matcher, ...]) -> str:
    """Return a query with one series per label set, for classic and native histograms."""
    return f"{Selector(f'{catalog.DURATION.name}_count', of)} or {Selector(catalog.DURATION.name, of)}"


def _json(url: str, kind: str, counts: dict[str, int], findings: Findings) -> str:
    content: dict[str, Any] = {"url": url, "kind": kind, "checked": counts}
    content["findings"] = [finding.data() for finding in findings.of(FINDING)]
    content["notes"] = [finding.data() for finding in findings.of(NOTE)]
    return json.dumps(content, indent=2, ensure_ascii=False)


def _show(kind: str, counts: dict[str, int], findings: Findings) -> None:
    console = table_console()
    for level, heading, style in ((NOTE, "Notes: normal, or not visible", ""), (FINDING, "Findings", "bold red")):
        if findings.of(level):
            console.print(_table(heading, findings.of(level), style))
            console.print()
    source = "a metrics page" if kind == "metrics" else "a Prometheus"
    console.print(
        f"Checked against {source}: {counts['rules']} rules, {counts['panels']} queries of dashboards, "
        f"{counts['selectors']} selectors. Findings: {len(findings.of(FINDING))}. Notes: {len(findings.of(NOTE))}."
    )


def _table(heading: str, findings: list[Finding], style: str) -> Table:
    table = Table(title=heading, title_justify="left", title_style=style, show_lines=True)
    for column in ("Subject", "Result", "Used by"):
        table.add_column(column, overflow="fold")
    for finding in findings:
        table.add_row(_first(finding.subjects), Text(finding.text), _first(finding.used_by))
    return table


def _first(names: list[str]) -> Text:
    more = len(names) - _NAMES_SHOWN
    return Text("\n".join([*names[:_NAMES_SHOWN], *([f"and {more} more"] if more > 0 else [])]))
