"""The doors of the house open inward only."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "scaleobs"
FILES = sorted(SOURCE.rglob("*.py"))

CORE = [
    {"catalog", "settings", "objectives", "group", "_workers"},
    {"metrics", "_metrics", "health", "_health", "lifecycle", "drain", "_lifecycle", "hooks", "startup"}
    | {"logs", "tracing", "_tracing"},
    {"_routes", "checks"},
    {"_http", "_service", "observer", "management", "_management", "_instrument"},
]
MAY_IMPORT = {room: set().union(*CORE[: level + 1]) for level, rooms in enumerate(CORE) for room in rooms}
MAY_IMPORT["settings"] |= {"_health"}  # The type of a check.
MAY_IMPORT |= {room: {"_fork", *may} for room, may in MAY_IMPORT.items()}
MAY_IMPORT |= {key: {*CORE[0], "render", "_render"} for key in ("render", "_render")}
MAY_IMPORT |= {"probe": set(), "_fork": set(), "__init__": {*MAY_IMPORT}}

FRAMEWORKS = {"starlette", "fastapi", "flask", "werkzeug", "django", "asgiref", "uvicorn", "gunicorn"}
FRAMEWORKS |= {"litestar", "quart", "falcon", "pyramid", "bottle"}
EXTRAS = {"yaml", "click", "rich", "opentelemetry", "orjson", "promql_parser"}


def imports(path, *, also_inside):
    """Yield what a file imports, as whole dotted names; those of functions and TYPE_CHECKING only where asked."""
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
    """A room imports its own kind and what is further in; extras are imported where they are used."""
    room = path.relative_to(SOURCE).with_suffix("").parts[0]
    everything = set(imports(path, also_inside=True))
    at_start = {name.partition(".")[0] for name in imports(path, also_inside=False)}

    if room != "_cli":  # Among it the demo's shop, which a server loads, and nothing else.
        assert set() == at_start & FRAMEWORKS
        ours = {name.split(".")[1] for name in everything if name.startswith("scaleobs.")}
        assert ours <= MAY_IMPORT[room]
        assert set() == at_start & EXTRAS
    if room in {"render", "_render"}:
        assert set() == {name for name in everything if name.startswith(("prometheus_client", "structlog"))}


def test_every_room_has_its_place():
    """A new module is given its place in the house before it is imported from anywhere."""
    rooms = {path.relative_to(SOURCE).with_suffix("").parts[0] for path in FILES}

    assert rooms <= {*MAY_IMPORT, "_cli"}
