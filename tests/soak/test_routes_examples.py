"""The examples of docs/routes.md that the other tests do not run, each in an environment of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.servers

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "routes.md").read_text()
EXAMPLES = {
    re.search(r"from (\w+) import", text)[1]: text
    for text in re.findall(r"^```py\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
}

CALL = """
import asyncio
from prometheus_client import generate_latest


async def call(path):
    events = []

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        events.append(message)

    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http"}
    scope |= {"path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "extensions": {}}
    await app({**scope, "headers": [(b"host", b"a")], "client": ("a", 1), "server": ("a", 1)}, receive, send)


async def main():
    received, started = asyncio.Queue(), asyncio.Event()

    async def send(message):
        started.set()

    await received.put({"type": "lifespan.startup"})
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    lifespan = asyncio.create_task(app(scope, received.get, send))
    await started.wait()
    for path in ("/items/1", "/items/2", "/nowhere"):
        await call(path)
    lifespan.cancel()


asyncio.run(main())
print(generate_latest().decode())
"""


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_has_its_templates(name, tmp_path):
    """The page's function finds the template, and nothing for a path without a route."""
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", name, ROOT], check=True)
    done = subprocess.run([python, "-c", EXAMPLES[name] + CALL], capture_output=True, text=True, check=False)

    assert re.search(
        r'http_requests_total{method="GET",route="/items/[<{]item_id[^"]*",status_code="200"} 2', done.stdout
    )
    assert 'http_requests_total{method="GET",route="unmatched",status_code="404"} 1' in done.stdout
