"""The wheel, built as a release is, carries exactly the shipped files."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.servers

ROOT = Path(__file__).parents[1]
FOLDERS = ("alert_rules", "dashboards", "integrations")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """
    Through the sdist, since a wheel built straight from the tree takes ignored files along.
    """
    out = tmp_path_factory.mktemp("dist")
    result = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT],
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == result.returncode, result.stdout + result.stderr
    (path,) = out.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield {name: archive.read(name) for name in archive.namelist()}


def test_shipped_files_are_in_it(wheel):
    """
    The same paths below `scaleobs/_shipped`, the same bytes, nothing more.
    """
    on_disk = {
        f"scaleobs/_shipped/{path.relative_to(ROOT)}": path.read_bytes()
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }

    assert on_disk == {name: content for name, content in wheel.items() if name.startswith("scaleobs/_shipped/")}


def test_package_is_typed_and_complete(wheel):
    """
    Each module is in it, and so is the marker for type checkers.
    """
    modules = {
        str(path.relative_to(ROOT / "src")) for path in (ROOT / "src").rglob("*") if path.suffix in {".py", ".typed"}
    }

    assert "scaleobs/py.typed" in wheel
    assert modules <= set(wheel)


def test_nothing_else_is_in_it(wheel):
    """
    The package and its metadata: no tests, no tools.
    """
    tops = {name.split("/")[0] for name in wheel}

    assert {"scaleobs"} == {top for top in tops if not top.endswith(".dist-info")}
