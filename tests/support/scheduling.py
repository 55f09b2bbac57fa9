"""The order in which pytest-xdist's processes get the tests."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from xdist.scheduler import LoadScopeScheduling


class Scheduling(LoadScopeScheduling):
    """
    Gives a process one file after another, and single tests of files that start servers.

    Those take long, and would leave the other processes without work at the end. If tests of a file share a fixture,
    one process runs them all, so that the fixture is set up once.
    """

    def _split_scope(self, nodeid):
        file = nodeid.partition("::")[0]
        return nodeid if is_divisible(self.config.rootpath / file) else file


@cache
def is_divisible(path: Path) -> bool:
    """Return whether several processes may run the tests of a file."""
    text = path.read_text()
    return "pytest.mark.servers" in text and 'scope="module"' not in text
