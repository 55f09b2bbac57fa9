"""`scaleobs stories`: tell promtool what happens to a service, and see whether each alert fires and is silent."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from scaleobs._render import output
from scaleobs._render.output import yaml_text
from scaleobs._render.stories import EVERY_ALERT, Stories, Story
from scaleobs._render.stories import stories as stories_of
from scaleobs.cli.check import expressions
from scaleobs.cli.check.sources import Asked, read_file, read_text
from scaleobs.cli.files import write
from scaleobs.cli.options import said_plainly, watched
from scaleobs.cli.rules import of_one_service
from scaleobs.cli.stack import find
from scaleobs.cli.tables import plain_console

_LONGEST_SECONDS = 300
_Rules = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of a story, and what promtool said where it didn't come true."""

    story: Story
    file: str
    is_true: bool
    said: str


@click.command()
@watched
@click.option(
    "--rules",
    "rule_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Tell them to these rules, which somebody may have changed, instead of those that `scaleobs rules` writes.",
)
@click.option("--promtool", type=click.Path(), metavar="FILE", help="Prometheus's promtool.  [default: that on PATH]")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Keep the rules and the stories here.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def stories(
    ctx: click.Context,
    /,
    rule_file: Path | None,
    promtool: str | None,
    out: Path | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """
    Tell rules what happens to a service, and see that each alert fires and is silent when it should.

    Each story is a test of promtool that is made from the options: a share of failed requests a little above the line
    that your objective draws, and one a little below; an instance that is down for as long as the alert waits, and for
    less. Give the same options as to `scaleobs rules`; of a file, --service picks one of several services.

    \b
    What they prove: each alert's line, wait, severity and service, and that it is silent while all is well.
    What they don't: texts, and that the windows of budgets beyond 5m have their length.

    \b
    The exit code is 0 where all come true, 1 where one doesn't, 2 where they can't be told. Alerts of your own in
    --rules FILE have no story: they are named, and change nothing of that.
    """  # noqa: D301 - Click leaves the paragraph after a backspace as it is.
    asked = Asked()
    with said_plainly():
        one = of_one_service(flags)
        told = stories_of(**one)
        if rule_file:
            read_file(rule_file, asked)
        else:
            read_text(output.rules_text(**one), asked, "rules")
    rules = [rule for group in asked.groups.values() for rule in group]
    untold = sorted(_alerts(rules) - {story.alert for story in told.stories})
    tool = promtool or find("promtool")
    if tool is None:
        click.echo("Error: No promtool on PATH: it comes with Prometheus (Debian: apt install prometheus).", err=True)
        ctx.exit(2)
    with ExitStack() as opened:
        folder = out or Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="scaleobs-stories-")))
        outcomes = _tell(told, rules, folder, tool)
    _show_json(outcomes, untold) if as_json else _show(outcomes, untold)
    ctx.exit(0 if all(one.is_true for one in outcomes) else 1)


def _tell(told: Stories, rules: _Rules, folder: Path, tool: str) -> list[_Outcome]:
    """Write every story and what it needs, and return what became of each."""
    files: dict[str, str] = {}
    rule_files: dict[str, str] = {}
    for number, story in enumerate(told.stories):
        name = f"{number:03}-{story.alert.replace(' ', '-')}"
        if _named(story) not in rule_files:
            rule_files[_named(story)] = f"{name}.rules.yaml"
            files[f"{name}.rules.yaml"] = yaml_text({"groups": [{"name": "told", "rules": _needed(story, rules)}]})
        files[f"{name}.test.yaml"] = story.text(rule_files[_named(story)], told.step)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"Can't make the directory {str(folder)!r}: {error.strerror}."
        raise click.ClickException(msg) from None
    for name, text in files.items():
        write(folder / name, text)
    tests = sorted(name for name in files if name.endswith(".test.yaml"))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda story, test: _outcome(story, test, folder, tool), told.stories, tests))


def _needed(story: Story, rules: _Rules) -> _Rules:
    """Return the rule that a story is about and those that record what it reads: others take time alone."""
    if story.alert == EVERY_ALERT:
        return rules
    needed = [rule for rule in rules if _is_about(story, rule)]
    wanted = _read_by(needed)
    while more := [rule for rule in rules if rule.get("record") in wanted and rule not in needed]:
        needed += more
        wanted |= _read_by(more)
    return [rule for rule in rules if rule in needed]


def _is_about(story: Story, rule: dict[str, Any]) -> bool:
    return rule.get("alert") == story.alert and story.labels.items() <= rule.get("labels", {}).items()


def _read_by(rules: _Rules) -> set[str]:
    """Return the names of the series that rules read."""
    return {selector.name for rule in rules for selector in _selected(str(rule["expr"]))}


def _selected(expression: str) -> Iterable[expressions.Selector]:
    try:
        return expressions.read(expression).selectors
    except ValueError:  # promtool says it better.
        return ()


def _alerts(rules: _Rules) -> set[str]:
    return {rule["alert"] for rule in rules if "alert" in rule}


def _outcome(story: Story, file: str, folder: Path, tool: str) -> _Outcome:
    command = [tool, "test", "rules", str(folder / file)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_LONGEST_SECONDS)  # noqa: S603
    except OSError as error:
        msg = f"Can't run {tool!r}: {error.strerror}. Give promtool with --promtool."
        raise click.ClickException(msg) from None
    except subprocess.TimeoutExpired:
        return _Outcome(story, file, is_true=False, said=f"promtool took longer than {_LONGEST_SECONDS} s.")
    said = re.sub(r"\n{2,}", "\n", done.stdout + done.stderr).strip()
    return _Outcome(story, file, done.returncode == 0, "" if done.returncode == 0 else said)


def _show_json(outcomes: list[_Outcome], untold: list[str]) -> None:
    content = [
        {
            "alert": one.story.alert,
            "which": one.story.which,
            "story": one.story.name,
            "fires": one.story.fires,
            "is_true": one.is_true,
            "said": one.said,
        }
        for one in outcomes
    ]
    click.echo(json.dumps({"stories": content, "without_a_story": untold}, indent=2, ensure_ascii=False))


def _show(outcomes: list[_Outcome], untold: list[str]) -> None:
    console = plain_console()
    table = Table()
    for column in ("Alert", "What happens", "It has to", "Came true"):
        table.add_column(column, overflow="fold")
    for one in outcomes:
        came_true = Text("yes", "green") if one.is_true else Text("NO", "bold red")
        table.add_row(
            Text(_named(one.story)), Text(one.story.name), "fire" if one.story.fires else "be silent", came_true
        )
    console.print(table)
    for one in outcomes:
        if not one.is_true:
            console.print(f"\n{_named(one.story)}: {one.story.name}", style="bold")
            console.print(one.said, soft_wrap=True)
    if untold:
        console.print(f"\nNo story is told about {', '.join(untold)}: nothing here says whether they work.")
    failed = sum(not one.is_true for one in outcomes)
    console.print(f"\n{len(outcomes)} stories, of which {failed} didn't come true.")


def _named(story: Story) -> str:
    return f"{story.alert} {story.which}".strip()
