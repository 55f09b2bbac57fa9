"""The call paths are those of docs/architecture.md: which files are entered, in which order, and which again."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support import servers

TESTS = Path(__file__).parent
DOCUMENT = TESTS.parent / "docs" / "architecture.md"

PATHS = {
    "A request with its line, ASGI": ("asgi", "steady"),
    "A request with its line, WSGI": ("wsgi", "steady"),
    "The first request, ASGI": ("asgi", "first"),
    "The first request, WSGI": ("wsgi", "first"),
    "A probe, ASGI": ("asgi", "probe"),
    "A probe, WSGI": ("wsgi", "probe"),
    "A rendering": ("rendering", "rendering"),
}
MAX_FILES = {"steady": 7, "first": 22, "probe": 9}


def documented(title):
    """Return the files of a call path by name, in order, and whether a reason is given for entering it again."""
    text = DOCUMENT.read_text()
    assert f"\n### {title}\n" in text, f"docs/architecture.md has no call path {title!r}"
    section = text.partition(f"\n### {title}\n")[2].partition("\n#")[0]
    return {file: "Again:" in what for file, what in re.findall(r"^\d+\. `([^`]+)`(.*)$", section, re.MULTILINE)}


def assert_as_documented(title, entered):
    """The files are those of the document; those that are entered again have a reason there."""
    expected = documented(title)

    assert list(expected) == list(dict.fromkeys(entered))
    assert {file for file, is_again in expected.items() if is_again} == {f for f in entered if entered.count(f) > 1}


@pytest.fixture(name="entered", scope="module")
def _entered():
    """Return a function that returns what a process of its own enters, which is run once."""
    known = {}

    def entered(kind, path):
        if kind not in known:
            own = {name: value for name, value in os.environ.items() if not name.startswith(("SCALEOBS_", "OTEL_"))}
            command = [sys.executable, TESTS / "support" / "call_paths.py", kind]
            result = subprocess.run(
                command,
                env={**own, "PYTHONPATH": os.pathsep.join(sys.path)},
                capture_output=True,
                text=True,
                check=True,
            )
            known[kind] = json.loads(result.stdout)
        return known[kind][path]

    return entered


@pytest.mark.parametrize("title", PATHS)
def test_call_path_is_the_documented_one(title, entered):
    """Each path enters the files that docs/architecture.md lists, in that order."""
    assert_as_documented(title, entered(*PATHS[title]))


@pytest.mark.parametrize("path", MAX_FILES)
@pytest.mark.parametrize("kind", ["asgi", "wsgi"])
def test_call_path_is_short(kind, path, entered):
    """A call path enters no more files than a reader can follow."""
    assert len(set(entered(kind, path))) <= MAX_FILES[path]


APP = """
import json
import os

import scaleobs
from support.call_paths import Recorder


async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"%d" % os.getpid()})


observed = scaleobs.instrument(app, service="shop", log_format="json")


async def recording(scope, receive, send):
    if scope.get("query_string") != b"record":
        await observed(scope, receive, send)
        return

    async def discard(_):
        pass

    # What is new to this worker is read before, and requests without a template are examined.
    for _ in range(30):
        await observed({**scope, "query_string": b""}, receive, discard)
    with Recorder() as recorder:
        await observed({**scope, "query_string": b""}, receive, discard)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(recorder.files).encode()})
"""


@pytest.mark.servers
def test_scrape_of_many_workers(tmp_path):
    """A scrape reads the ledgers of all siblings in one module."""
    (tmp_path / "app.py").write_text(APP)
    port = servers.free_port()
    command = [servers.BIN / "uvicorn", "app:recording", "--port", str(port), "--workers", "3"]
    with servers.running(command, port, tmp_path, PYTHONPATH=os.pathsep.join(sys.path)):
        servers.until_workers(port, 3)
        answered = set()
        servers.until(lambda: answered.add(servers.get(port, "/x")[1]) or len(answered) == 3)
        entered = json.loads(servers.get(port, "/metrics?record")[1])

    assert_as_documented("A scrape of many workers", entered)
    assert 1 == len([file for file in set(entered) if file.startswith("_workers/sibling")])
