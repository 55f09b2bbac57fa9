"""`scaleobs check`: ask a service or a Prometheus whether rules and dashboards can see what they look for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from scaleobs._render import output
from scaleobs._render.links import service_and_job
from scaleobs._render.overrides import to_flag
from scaleobs._render.promql import ROUTE, Targets, equal
from scaleobs._render.rules import Request
from scaleobs.catalog import REQUESTS
from scaleobs.cli.check.asking import Asking, CantAskError, checked_url, json_of, refusal, with_query
from scaleobs.cli.check.judging import judge
from scaleobs.cli.check.page import Page
from scaleobs.cli.check.prometheus import Prometheus
from scaleobs.cli.check.remarks import FINDING, NOTE, Remark, Remarks
from scaleobs.cli.check.sources import Asked, Question, read_file, read_text
from scaleobs.cli.options import said_plainly, watched
from scaleobs.cli.rules import of_one_service
from scaleobs.cli.tables import plain_console
from scaleobs.objectives import Availability
from scaleobs.settings import Settings

_SHOWN = 5


@click.command()
@click.argument("url")
@watched
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
    help="The service's max_label_sets.",
)
@click.option("--token", metavar="TOKEN", help="Send this bearer token; @FILE reads it from a file.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=10,
    show_default=True,
    metavar="SECONDS",
    help="How long one answer may take.",
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
    Check rules and dashboards against what is there.

    URL is the page of metrics of a service, http://localhost:8000/metrics, or a Prometheus, http://prometheus:9090.
    It says which rules and panels select series that aren't there, which labels don't fit, and how near a service is to
    its cap on label sets; a Prometheus is asked for the health of rules and targets as well.

    \b
    Rules and dashboard are those of `scaleobs rules` and `scaleobs dashboards` with the same options, unless files are
    given: those that were changed by hand, or written with more options.

    \b
    The exit code is 0 where all is well, 1 where there is a finding, 2 where it couldn't be asked.
    """  # noqa: D301 - Click leaves the paragraph after a backspace as it is.
    with said_plainly():
        one = of_one_service(flags)
        asked = _asked(one, rule_files, dashboard_files)
        asking = Asking(timeout, _token(token))
    remarks = Remarks()
    try:
        series = _found(checked_url(url), asking, target_labels)
        selectors = judge([*asked.rules, *asked.panels, *asked.routes], asked.recorded, series, remarks)
        if isinstance(series, Page):
            series.look(one.get("service"), max_label_sets, remarks)
        else:
            _, job = service_and_job(one.get("service"), one.get("job"))
            series.look(job, asked.groups, max_label_sets, remarks, is_exact=bool(rule_files))
    except CantAskError as error:
        if as_json:
            click.echo(json.dumps({"url": url, "error": str(error)}, indent=2))
        click.echo(f"Error: {error}", err=True)
        ctx.exit(2)
    kind = "metrics" if isinstance(series, Page) else "prometheus"
    checked = {"rules": len(asked.rules), "panels": len(asked.panels), "selectors": selectors}
    if as_json:
        click.echo(_json(url, kind, checked, remarks))
    else:
        _show(kind, checked, remarks)
    ctx.exit(1 if remarks.of(FINDING) else 0)


def _asked(one: Request, rule_files: tuple[Path, ...], dashboard_files: tuple[Path, ...]) -> Asked:
    """Return what the files ask, and where there are none, what the commands write."""
    asked = Asked()
    for path in (*rule_files, *dashboard_files):
        read_file(path, asked)
    if not rule_files and not dashboard_files:
        read_text(output.rules_text(**one), asked, "rules")
        for name, text in output.dashboard_texts(one.get("service"), one.get("job")).items():
            read_text(text, asked, name)
        _, job = service_and_job(one.get("service"), one.get("job"))
        targets = Targets((equal("job", job),) if job else ())
        # The rules read such a route from what they record themselves, which a page of metrics doesn't show.
        asked.routes = [
            Question(f"objective {to_flag(aim)}", targets.of(REQUESTS, equal(ROUTE, aim.route)))
            for aim in one.get("objectives", ())
            if isinstance(aim, Availability) and aim.route
        ]
    return asked


def _found(url: str, asking: Asking, added: tuple[str, ...]) -> Page | Prometheus:
    """
    Return what is at the address.

    Raises:
        CantAskError: neither a page of metrics nor a Prometheus.
    """
    # A service counts what it is asked: it is asked for what it has only.
    answer = asking.get(url)
    try:
        return Page(answer, added)
    except CantAskError as error:
        if url.rstrip("/").endswith("/metrics"):
            raise
        said = error
    api = asking.get(with_query(f"{url.rstrip('/')}/api/v1/query", query="vector(1)"))
    try:
        json_of(api)
    except CantAskError:
        msg = (
            f"{url} is neither a page of metrics ({said.args[0].removeprefix(url).strip(' .')}) nor a Prometheus "
            f"({refusal(api).partition(' ')[2].strip('.')} at /api/v1/query)."
        )
        raise CantAskError(msg) from None
    return Prometheus(url, asking)


def _token(text: str | None) -> str | None:
    if text is None or not text.startswith("@"):
        return text
    try:
        return Path(text[1:]).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        msg = f"Can't read the token's file {text[1:]!r}: {error}."
        raise ValueError(msg) from None


def _json(url: str, kind: str, checked: dict[str, int], remarks: Remarks) -> str:
    content: dict[str, Any] = {"url": url, "kind": kind, "checked": checked}
    content["findings"] = [remark.data() for remark in remarks.of(FINDING)]
    content["notes"] = [remark.data() for remark in remarks.of(NOTE)]
    return json.dumps(content, indent=2, ensure_ascii=False)


def _show(kind: str, checked: dict[str, int], remarks: Remarks) -> None:
    console = plain_console()
    for level, title, style in (
        (NOTE, "Notes: fine as it is, or not to be seen here", ""),
        (FINDING, "Findings", "bold red"),
    ):
        if remarks.of(level):
            console.print(_table(title, remarks.of(level), style))
            console.print()
    what = "a page of metrics" if kind == "metrics" else "a Prometheus"
    findings, notes = len(remarks.of(FINDING)), len(remarks.of(NOTE))
    console.print(
        f"Checked against {what}: {checked['rules']} rules, {checked['panels']} questions of dashboards, "
        f"{checked['selectors']} selectors. Findings: {findings}. Notes: {notes}."
    )


def _table(title: str, remarks: list[Remark], style: str) -> Table:
    table = Table(title=title, title_justify="left", title_style=style, show_lines=True)
    for column in ("Of", "What", "Used by"):
        table.add_column(column, overflow="fold")
    for remark in remarks:
        table.add_row(_first(remark.subjects), Text(remark.what), _first(remark.used_by))
    return table


def _first(names: list[str]) -> Text:
    more = len(names) - _SHOWN
    return Text("\n".join([*names[:_SHOWN], *([f"and {more} more"] if more > 0 else [])]))
