"""Rendered files are what their functions return, static ones have no function, and there are no others."""

import ast
import json
from pathlib import Path

import pytest
import yaml

from scaleobs._render.output import RENDERED, STATIC, rules_text
from scaleobs.objectives import Availability, Latency

ROOT = Path(__file__).parents[1]
FOLDERS = ("alert_rules", "dashboards", "integrations")
BY_HAND = {"README.md", "RUNBOOK.md"}


@pytest.mark.parametrize("name", RENDERED)
def test_is_current(name):
    """
    Each rendered file is byte for byte what its function returns.
    """
    path = ROOT / name
    on_disk = path.read_bytes() if path.exists() else b""

    assert RENDERED[name]().encode() == on_disk, f"{name} is stale; run: scaleobs render --out ."


def test_nothing_else_is_shipped():
    """
    Beside them lie only the pages that people wrote.
    """
    found = {
        str(path.relative_to(ROOT))
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        # A run of gunicorn with its configuration leaves bytecode there, which git and the wheel leave out.
        if path.is_file() and path.name not in BY_HAND and path.suffix != ".pyc"
    }

    assert {*RENDERED, *STATIC} == found


def test_every_folder_explains_itself():
    """
    Each folder with shipped files has a page that people wrote.
    """
    folders = {(ROOT / name).parent for name in (*RENDERED, *STATIC)}

    assert [] == [str(folder) for folder in folders if not any((folder / page).is_file() for page in BY_HAND)]


def test_runbook_has_a_section_for_every_alert():
    """
    Sections and alerts are the same set.
    """
    runbook = (ROOT / "alert_rules" / "RUNBOOK.md").read_text(encoding="utf-8")
    rules = rules_text(objectives=[Availability(99.9), Latency(99, under=0.5)])
    alerts = {line.split()[-1] for line in rules.splitlines() if "- alert: " in line}
    sections = {line.removeprefix("## ") for line in runbook.splitlines() if line.startswith("## ")}

    assert alerts == sections - {"When they stay silent"}


def test_rendering_twice_gives_the_same_bytes():
    """
    Nothing in a file depends on when or where it was made.
    """
    first, second = ({name: render() for name, render in RENDERED.items()} for _ in range(2))

    assert first == second


@pytest.mark.parametrize("name", STATIC)
def test_static_file_can_be_read(name):
    """
    It is YAML, JSON or Python without a slip, and doesn't send its reader to a command.
    """
    text = (ROOT / name).read_text(encoding="utf-8")
    parse = {".json": json.loads, ".py": ast.parse}.get(Path(name).suffix, yaml.safe_load)

    assert parse(text)
    assert "scaleobs render" not in text
    assert text.endswith("\n")
