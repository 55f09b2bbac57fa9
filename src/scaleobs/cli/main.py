"""The console script: runs the commands, or says what to install where their libraries are missing."""

from __future__ import annotations

import sys
from importlib.util import find_spec


def run() -> None:
    """Run the `scaleobs` command, which ends the process with its exit code."""
    if any(find_spec(library) is None for library in ("click", "rich", "yaml", "promql_parser")):
        print(
            "The scaleobs command needs click, rich, PyYAML and promql-parser: pip install 'scaleobs[cli]'",
            file=sys.stderr,
        )
        sys.exit(1)
    from scaleobs.cli.commands import scaleobs

    scaleobs(prog_name="scaleobs")
