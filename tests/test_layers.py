"""Imports point inward: a module imports its own layer and those before it in `LAYERS`."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "scaleobs"
FILES = sorted(SOURCE.rglob("*.py"))

LAYERS = [
    {"catalog", "settings", "_environment", "objectives", "_workers"},
    {"_metrics", "_health", "_lifecycle", "logs", "_tracing"},
    {"_routes", "checks"},
    {"_http", "_management", "_service", "observer", "_instrument"},
]
EVERYWHERE = {"_fork", "_gevent", "_trio"}
IMPORTS = {name: EVERYWHERE.union(*LAYERS[: level + 1]) for level, names in enumerate(LAYERS) for name in names}
IMPORTS["settings"] |= {"_health"}  # The type of a check.
IMPORTS |= {"_render": {*LAYERS[0], "_render"}, "probe": set(), **{name: set() for name in EVERYWHERE}}
IMPORTS |= {"__init__": {*IMPORTS}, "_cli": {*IMPORTS, "_cli"}}
"""What a module or package may import of scaleobs, by its name."""

FRAMEWORKS = {"starlette", "fastapi", "flask", "werkzeug", "django", "asgiref", "uvicorn", "gunicorn"}
FRAMEWORKS |= {"litestar", "quart", "falcon", "pyramid", "bottle"}
EXTRAS = {"yaml", "click", "rich", "opentelemetry", "orjson", "promql_parser"}


def name_of(path):
    """Return the name of the module or package below scaleobs that a file belongs to."""
    return path.relative_to(SOURCE).with_suffix("").parts[0]


def imports(path, *, also_inside):
    """Yield what a file imports, as whole dotted names; those of functions only if `also_inside`."""
    pending = list(ast.parse(path.read_text()).body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert 0 == node.level, f"{path}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif also_inside or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            pending.extend(ast.iter_child_nodes(node))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_point_inward(path):
    """A module imports its own layer and those before it; frameworks and extras are imported in functions."""
    name = name_of(path)
    everything = set(imports(path, also_inside=True))
    at_start = {one.partition(".")[0] for one in imports(path, also_inside=False)}
    ours = {one.split(".")[1] for one in everything if one.startswith("scaleobs.")}

    assert ours <= IMPORTS[name]
    if name != "_cli":  # It has the application of the demo, which a server loads.
        assert set() == at_start & (FRAMEWORKS | EXTRAS)
    if name == "_render":
        assert set() == {one for one in everything if one.startswith(("prometheus_client", "structlog"))}


def test_every_module_has_a_layer():
    """A new module is given a layer before another module imports it."""
    assert {name_of(path) for path in FILES} == IMPORTS.keys()


def test_the_layers_are_those_of_the_page():
    """CONTRIBUTING.md has the same table."""
    page = (ROOT / "CONTRIBUTING.md").read_text().partition("\n## Layers\n")[2].partition("\n## ")[0]
    rows = [row for row in page.splitlines() if row.startswith("| ") and "`" in row]

    assert LAYERS == [set(re.findall(r"`(\w+)(?:\.py|/)`", row)) for row in rows]
