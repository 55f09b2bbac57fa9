"""What mypy and pyright accept, and what both refuse."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import scaleobs

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "tests" / "typing").glob("*.py"))
SOURCE = Path(scaleobs.__file__).parents[1]
MARK = "  # expect-error"


def run(*command):
    """Run a type checker of this environment on this source, and return its output; no checker needs the network."""
    offline = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), "http://127.0.0.1:9")
    paths = {"PYTHONPATH": str(SOURCE), "MYPYPATH": str(SOURCE)}
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=ROOT,
        env={**os.environ, **paths, **offline},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def mypy(files):
    """Return the lines that mypy refuses, by the names of their files."""
    output = run("mypy", "--strict", "--hide-error-context", "--no-error-summary", *map(str, files))
    found = re.findall(r"^(\S+?):(\d+): error: (.*)$", output, re.MULTILINE)
    return {(Path(path).name, int(line)): message for path, line, message in found}


def pyright(files):
    """Return the lines that pyright refuses, by the names of their files."""
    found = json.loads(run("pyright", "--outputjson", "--pythonpath", sys.executable, *map(str, files)))
    return {
        (Path(one["file"]).name, one["range"]["start"]["line"] + 1): one["message"]
        for one in found["generalDiagnostics"]
        if one["severity"] == "error"
    }


@pytest.mark.servers
@pytest.mark.parametrize("check", [mypy, pyright])
def test_type_checkers_refuse_exactly_the_marked_lines(check):
    """
    Right uses of every public name are accepted, and each wrong use is refused.
    """
    lines = [
        (path.name, number, line) for path in FILES for number, line in enumerate(path.read_text().splitlines(), 1)
    ]
    marked = {(name, number): line for name, number, line in lines if line.endswith(MARK)}

    errors = check(FILES)

    assert len(marked) >= 40
    assert {} == {place: line for place, line in marked.items() if place not in errors}, "accepted"
    assert {} == {place: message for place, message in errors.items() if place not in marked}, "refused"


def test_every_public_name_is_used():
    """
    The files use each public name.
    """
    text = "".join(path.read_text() for path in FILES if path.name != "wrong.py")

    assert [] == [name for name in (*scaleobs.__all__, "__version__") if not re.search(rf"\b{name}\b", text)]


@pytest.mark.servers
def test_every_public_type_is_complete():
    """
    The public interface has at most 200 public symbols, and no checker has to infer the type of one.
    """
    output = run("pyright", "--verifytypes", "scaleobs", "--ignoreexternal", "--outputjson")
    report = json.loads(output)["typeCompleteness"]
    unclear = [one["name"] for one in report["symbols"] if one["isTypeAmbiguous"] or not one["isTypeKnown"]]

    assert [] == unclear
    assert 100 <= report["exportedSymbolCounts"]["withKnownType"] <= 200
