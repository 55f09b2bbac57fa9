"""The command line: the only package that parses arguments and writes files."""

from __future__ import annotations

import sys
from importlib.util import find_spec


def main() -> None:
    """
    Run the `scaleobs` command, which ends the process with its exit code.

    Without the libraries of the [cli] extra, print what to install and exit with 1.
    """
    if any(find_spec(library) is None for library in ("click", "rich", "yaml", "promql_parser")):
        print(
            "The scaleobs command needs click, rich, PyYAML and promql-parser: pip install 'scaleobs[cli]'",
            file=sys.stderr,
        )
        sys.exit(1)
    from scaleobs._cli.commands import scaleobs

    scaleobs(prog_name="scaleobs")
