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

from scaleobs import catalog
from scaleobs.settings import Settings

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text()


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


COMMANDS = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("scaleobs ")]


def test_python_runs_and_answers_as_shown(monkeypatch):
    """
    The Python of the README makes a service that answers its curl lines as shown.
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

    assert shown_ready.strip() == ready.strip()
    assert shown_count.strip().splitlines() == counts
    assert {"status": "UP", "checks": [{"name": "database", "status": "UP"}]} == checked


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


def test_log_line_has_the_keys_of_a_real_one():
    """
    The log line of the README is one JSON object with the keys of the access event.
    """
    (block,) = blocks("json")
    shown = json.loads(block)

    assert "request.finished" == shown["event"]
    assert {"method", "route", "path", "status_code", "duration_seconds", "client", "request_id"} <= shown.keys()


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


def test_links_lead_somewhere():
    """
    Every file and folder that the README links to exists.
    """
    links = re.findall(r"\]\((?!http)([^)#]+)\)", TEXT)

    assert links
    assert [] == [link for link in links if not (ROOT / link).exists()]
