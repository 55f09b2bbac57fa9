"""
Stories with waits of hours; for `make soak`.

Without SOAK_SECONDS in the environment there is nothing to do here.
"""

from __future__ import annotations

import json
import os

import pytest
from click.testing import CliRunner

from scaleobs._cli.commands import scaleobs

OBJECTIVES = ["availability=99.9", "availability=99:/pay", "latency=99:0.5", "latency=95:0.25:/pay"]

pytestmark = pytest.mark.skipif("SOAK_SECONDS" not in os.environ, reason="It takes minutes: `make soak` runs it.")


def test_stories_of_budgets_pass_with_their_own_waits(tool):
    """
    Each pair of windows, of the service and of a route, with the waits that they have.
    """
    flags = [f"--slo={one}" for one in OBJECTIVES]
    result = CliRunner().invoke(
        scaleobs, ["stories", "--json", "--service=orders", *flags, "--promtool", tool("promtool")]
    )
    stories = json.loads(result.stdout)["stories"]

    assert len(stories) > 100
    assert [] == [one for one in stories if not one["is_true"]]
