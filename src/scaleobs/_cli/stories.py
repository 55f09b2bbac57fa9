"""`scaleobs stories`: test rules with promtool scenarios, in which each alert has to fire or be silent."""

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

from scaleobs._cli.check import expressions
from scaleobs._cli.check.sources import Questions, read_file, read_text
from scaleobs._cli.demo.processes import find
from scaleobs._cli.options import rule_options, usage_errors
from scaleobs._cli.output import table_console, write
from scaleobs._cli.rules import single_request
from scaleobs._render import output
from scaleobs._render.output import yaml_text
from scaleobs._render.stories import EVERY_ALERT, Stories, Story
from scaleobs._render.stories import stories as stories_of

_TIMEOUT_SECONDS = 300
_Rules = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class _Outcome:
    """The result of a story; `output` is promtool's if it failed."""

    story: Story
    file: str
    passed: bool
    output: str


@click.command()
@rule_options
@click.option(
    "--rules",
    "rule_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Test these rules, which may have been changed, instead of those that `scaleobs rules` writes.",
)
@click.option("--promtool", type=click.Path(), metavar="FILE", help="Prometheus's promtool.  [default: from PATH]")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="Keep the rules and stories in this directory."
)
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
    Test that each alert fires when it should, and only then.

    Each story is a promtool test that is made from the options: for example, a share of failed requests just above the
    threshold of your objective, and one just below it; an instance that is down for as long as the alert waits, and for
    less. Give the same options as to `scaleobs rules`; if a file has several services, select one with --service.

    \b
    The stories prove each alert's threshold, wait, severity and service, and its silence while all is well.
    They do not prove the texts, nor the length of the windows of error budgets above 5m.

    \b
    Exit codes: 0 if all pass, 1 if one fails, 2 if they can't run. Your own alerts in --rules FILE have no story: they
    are listed, and do not change the exit code.
    """  # noqa: D301 - Click keeps the paragraph after a backspace as it is.
    questions = Questions()
    with usage_errors():
        request = single_request(flags)
        planned = stories_of(**request)
        if rule_file:
            read_file(rule_file, questions)
        else:
            read_text(output.rules_text(**request), questions, "rules")
    rules = [rule for group in questions.groups.values() for rule in group]
    uncovered = sorted(_alerts(rules) - {story.alert for story in planned.stories})
    tool = promtool or find("promtool")
    if tool is None:
        click.echo(
            "Error: No promtool on PATH: it comes with Prometheus (Debian: apt install prometheus). "
            "Install it, or give its path with --promtool.",
            err=True,
        )
        ctx.exit(2)
    with ExitStack() as opened:
        folder = out or Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="scaleobs-stories-")))
        outcomes = _test(planned, rules, folder, tool)
    _show_json(outcomes, uncovered) if as_json else _show(outcomes, uncovered)
    ctx.exit(0 if all(one.passed for one in outcomes) else 1)


def _test(planned: Stories, rules: _Rules, folder: Path, tool: str) -> list[_Outcome]:
    """Write every story with the rules that it needs, and return the outcome of each."""
    files: dict[str, str] = {}
    rule_files: dict[str, str] = {}
    for number, story in enumerate(planned.stories):
        name = f"{number:03}-{story.alert.replace(' ', '-')}"
        if _title(story) not in rule_files:
            rule_files[_title(story)] = f"{name}.rules.yaml"
            group = {"name": "story", "rules": _needed(story, rules)}
            files[f"{name}.rules.yaml"] = yaml_text({"groups": [group]})
        files[f"{name}.test.yaml"] = story.text(rule_files[_title(story)], planned.step)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        msg = f"Can't create the directory {str(folder)!r}: {error.strerror}. Give --out a directory that is writable."
        raise click.ClickException(msg) from None
    for name, text in files.items():
        write(folder / name, text)
    tests = sorted(name for name in files if name.endswith(".test.yaml"))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda story, test: _outcome(story, test, folder, tool), planned.stories, tests))


def _needed(story: Story, rules: _Rules) -> _Rules:
    """Return the rule of a story and the rules that record its series: more rules only cost time."""
    if story.alert == EVERY_ALERT:
        return rules
    needed = [rule for rule in rules if _is_about(story, rule)]
    names = _selected_names(needed)
    while more := [rule for rule in rules if rule.get("record") in names and rule not in needed]:
        needed += more
        names |= _selected_names(more)
    return [rule for rule in rules if rule in needed]


def _is_about(story: Story, rule: dict[str, Any]) -> bool:
    return rule.get("alert") == story.alert and story.labels.items() <= rule.get("labels", {}).items()


def _selected_names(rules: _Rules) -> set[str]:
    return {selector.name for rule in rules for selector in _selectors(str(rule["expr"]))}


def _selectors(expression: str) -> Iterable[expressions.Selector]:
    try:
        return expressions.read(expression).selectors
    except ValueError:  # promtool has the better error message.
        return ()


def _alerts(rules: _Rules) -> set[str]:
    return {rule["alert"] for rule in rules if "alert" in rule}


def _outcome(story: Story, file: str, folder: Path, tool: str) -> _Outcome:
    command = [tool, "test", "rules", str(folder / file)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_TIMEOUT_SECONDS)  # noqa: S603
    except OSError as error:
        msg = f"Can't run {tool!r}: {error.strerror}. Give the path of promtool with --promtool."
        raise click.ClickException(msg) from None
    except subprocess.TimeoutExpired:
        return _Outcome(story, file, passed=False, output=f"promtool took longer than {_TIMEOUT_SECONDS} s.")
    printed = re.sub(r"\n{2,}", "\n", done.stdout + done.stderr).strip()
    return _Outcome(story, file, done.returncode == 0, "" if done.returncode == 0 else printed)


def _show_json(outcomes: list[_Outcome], uncovered: list[str]) -> None:
    content = [
        {
            "alert": one.story.alert,
            "which": one.story.variant,
            "story": one.story.name,
            "fires": one.story.fires,
            "is_true": one.passed,
            "said": one.output,
        }
        for one in outcomes
    ]
    click.echo(json.dumps({"stories": content, "without_a_story": uncovered}, indent=2, ensure_ascii=False))


def _show(outcomes: list[_Outcome], uncovered: list[str]) -> None:
    console = table_console()
    table = Table()
    for column in ("Alert", "Story", "Expected", "Passed"):
        table.add_column(column, overflow="fold")
    for one in outcomes:
        passed = Text("yes", "green") if one.passed else Text("NO", "bold red")
        expected = "fires" if one.story.fires else "is silent"
        table.add_row(Text(_title(one.story)), Text(one.story.name), expected, passed)
    console.print(table)
    for one in outcomes:
        if not one.passed:
            console.print(f"\n{_title(one.story)}: {one.story.name}", style="bold")
            console.print(one.output, soft_wrap=True)
    if uncovered:
        console.print(f"\nNot tested, since there is no story about them: {', '.join(uncovered)}.")
    failed = sum(not one.passed for one in outcomes)
    console.print(f"\n{len(outcomes)} stories, {failed} failed.")


def _title(story: Story) -> str:
    return f"{story.alert} {story.variant}".strip()
