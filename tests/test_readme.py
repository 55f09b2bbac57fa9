"""What the README shows is true: its Python runs, its commands work, its output is what comes out."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry

from callers import log_lines
from scaleobs import catalog
from scaleobs.objectives import Availability, Latency
from scaleobs.render.output import dashboard_texts, rules_text
from scaleobs.settings import Settings

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()
FOLDERS = ("docs", "integrations/*", "dashboards", "alert_rules", "benchmarks")
PAGES = sorted(page.relative_to(ROOT) for folder in (".", *FOLDERS) for page in ROOT.glob(f"{folder}/*.md"))
SHOWN = {"drain_seconds": "5", "stall_seconds": "30"}
ALERTS = re.findall(r"- alert: (\w+)", rules_text(objectives=[Availability(99.9), Latency(99, under=0.5)]))


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


COMMANDS = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("scaleobs ")]


def test_python_runs_and_answers_as_shown(monkeypatch, capsys):
    """
    The Python of the README makes a service that answers its curl lines as shown, and writes its log line.
    """
    import scaleobs

    async def pool_answers():
        return True

    instrument = scaleobs.instrument
    monkeypatch.setattr(
        scaleobs, "instrument", lambda app, **given: instrument(app, registry=CollectorRegistry(), **given)
    )
    names = {"pool_answers": pool_answers}
    first, *others = blocks("python")
    exec(first, names)
    shown_ready, shown_count = re.findall(
        r"^\$ curl .*?\n(.*?)\n(?:\n|\Z)", blocks("console")[0], re.MULTILINE | re.DOTALL
    )

    async def talk():
        transport = httpx.ASGITransport(names["app"])
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as client:
            ready = (await client.get("/ready")).text
            await client.get("/items/3")
            lines = (await client.get("/metrics")).text.splitlines()
            counts = [line for line in lines if re.match("http_requests_total.*/items", line)]
            for other in others:
                exec(other, names)
            checked = (await client.get("/ready")).json()
        return ready, counts, checked

    ready, counts, checked = asyncio.run(talk())
    (written,) = [line for line in log_lines(capsys) if line["event"] == "request.finished"]
    shown = json.loads(blocks("json")[0])
    measured = ("timestamp", "request_id", "duration_seconds")

    assert shown_ready.strip() == ready.strip()
    assert shown_count.strip().splitlines() == counts
    assert {"status": "UP", "checks": [{"name": "database", "status": "UP"}]} == checked
    assert list(shown) == list(written)
    assert {**shown, **dict.fromkeys(measured)} == {**written, **dict.fromkeys(measured)}


@pytest.mark.parametrize("command", COMMANDS)
def test_command_works(command, tmp_path):
    """
    Each scaleobs command of the README ends well and writes something, beside its application and its file.
    """
    (tmp_path / "shop.py").write_text(blocks("python")[0])
    (tmp_path / "scaleobs.toml").write_text(blocks("toml")[0])
    before = set(tmp_path.rglob("*.*"))
    program, *arguments = shlex.split(command)
    done = subprocess.run(
        [Path(sys.executable).with_name(program), *arguments], cwd=tmp_path, capture_output=True, check=False
    )

    assert 0 == done.returncode, done.stderr
    assert done.stdout or set(tmp_path.rglob("*.*")) - before


def test_tables_name_every_metric_and_every_setting():
    """
    The tables hold the catalog's metrics with their labels, and every setting.
    """
    rows = {
        metric.name: f"| `{metric.name}` | {metric.kind} | {', '.join(f'`{label}`' for label in metric.labels)}"
        for metric in (*catalog.EXPOSED, *catalog.RUNTIME)
    }
    settings = {field.name for field in dataclasses.fields(Settings)}

    assert [] == [name for name, row in rows.items() if row.rstrip() not in TEXT]
    assert set() == {name for name in settings if f"`{name}`" not in TEXT}


def test_the_table_of_settings_has_variables_and_defaults():
    """
    Beside each setting stand the variable that sets it, where there is one, and its default, where that is a value.
    """
    rows = {cells[1].strip(" `"): cells for cells in (line.split("|") for line in TEXT.splitlines()) if len(cells) == 5}
    wrong = []
    for field in dataclasses.fields(Settings):
        if field.name.endswith("_path"):
            continue
        _, _, variables, default, _ = rows[field.name]
        if variables.strip() and f"`SCALEOBS_{field.name.upper()}`" not in variables:
            wrong.append(field.name)
        if (
            isinstance(field.default, bool | int | float | str)
            and f"`{SHOWN.get(field.name, field.default)}`" not in default
        ):
            wrong.append(field.name)

    assert [] == wrong


def test_every_folder_of_integrations_is_named():
    """
    The README says of each folder of `integrations/` what it is for.
    """
    about = TEXT[TEXT.index("[`integrations/`](integrations) has files") :].split("\n\n")[0].lower()

    assert [] == [folder.name for folder in (ROOT / "integrations").iterdir() if folder.name not in about]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_lead_somewhere(page):
    """
    Every file and folder that a page links to exists.
    """
    links = re.findall(r"\]\((?!http|#)([^)#]+)", (ROOT / page).read_text())

    assert [] == [link for link in links if not (ROOT / page).parent.joinpath(link).exists()]


def test_changelog_names_every_alert():
    """
    The list of alerts in the changelog is complete.
    """
    changelog = (ROOT / "CHANGELOG.md").read_text()

    assert [] == [one for one in ALERTS if f"`{one}`" not in changelog]


def test_runbook_names_panels_that_there_are():
    """
    What the runbook has in italics is a row or a panel of the dashboard, or a page of Prometheus.
    """
    runbook = (ROOT / "alert_rules" / "RUNBOOK.md").read_text()
    panels = json.loads(dashboard_texts()["service.json"])["panels"]
    titles = {panel["title"] for row in panels for panel in (row, *row.get("panels", ()))}
    named = {name.replace("\n  ", " ") for name in re.findall(r"(?<!\*)\*([A-Z][^*]+)\*(?!\*)", runbook)}

    assert named
    assert set() == {name for name in named if not name.startswith("Status →")} - titles


def test_changes_of_the_runbook_are_possible():
    """
    Each `--set` that the runbook shows is one that the rules take.
    """
    runbook = (ROOT / "alert_rules" / "RUNBOOK.md").read_text()
    changes = re.findall(r"--set (\w+\.\w+=[^`\s]+)`", runbook)

    assert len(changes) >= 3
    assert rules_text("orders", overrides=changes)
