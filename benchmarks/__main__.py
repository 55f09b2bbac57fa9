"""Runs the benchmarks: `make bench`, or `python -m benchmarks [--quick] [--out FILE] [FAMILY...]`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from benchmarks import imports, logs, memory, report, requests, scrape, served, workers

_FAMILIES = {
    "requests": requests,
    "workers": workers,
    "scrape": scrape,
    "memory": memory,
    "logs": logs,
    "imports": imports,
    "served": served,
}


def main() -> int:
    """Print each table as soon as it is complete; return 1 if a subject failed or did not count."""
    parser = argparse.ArgumentParser(prog="make bench", description="scaleobs beside its peers and beside the floor.")
    known = ", ".join(_FAMILIES)
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=f"{known}; all if none is named")
    parser.add_argument("--quick", action="store_true", help="fewer rounds, and only what the budgets are gated on")
    parser.add_argument("--out", metavar="FILE", type=Path, help="write the results there too, as JSON")
    options = parser.parse_args()
    for name in options.families:
        if name not in _FAMILIES:
            parser.error(f"{name!r} is not a family: choose from {known}")
    begun = time.monotonic()
    where = report.machine()
    versions = ", ".join(f"{name} {version}" for name, version in where["versions"].items())
    print(f"{where['python']}, {where['processors']} processors, load {where['load']} before the run\n{versions}\n")
    sections = []
    for name in options.families or _FAMILIES:
        for section in _FAMILIES[name].sections(quick=options.quick):
            sections.append(section)
            print(report.shown(section), flush=True)
    print(f"{time.monotonic() - begun:.0f} seconds")
    if options.out:
        options.out.write_text(json.dumps(report.as_data(sections), indent=1) + "\n", encoding="utf-8")
    return int(any(row.failure for section in sections for row in section.rows))


if __name__ == "__main__":
    sys.exit(main())
