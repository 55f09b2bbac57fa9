"""Rolling restarts for minutes, behind a HAProxy that follows `/ready`: for `make soak`."""

from __future__ import annotations

import os
import time

import pytest

from test_drain_rolling_restart import COMMANDS, INSTANCES, losses

SECONDS = float(os.environ.get("SOAK_SECONDS", "0"))


@pytest.mark.skipif(not SECONDS, reason="It takes minutes: `make soak` runs it.")
@pytest.mark.parametrize("name", COMMANDS)
def test_rolling_restarts_lose_nothing(name, tmp_path, tool):
    """Three rounds, and more for as long as there is time: every request is answered."""
    over = time.monotonic() + SECONDS / len(COMMANDS)
    answered = 0
    for number in range(3600):
        if number and time.monotonic() > over:
            break
        folder = tmp_path / str(number)
        folder.mkdir()
        more, failures = losses(COMMANDS[name], folder, tool("haproxy"), drain_seconds=1, restarts=3 * INSTANCES)
        answered += more

        assert [] == failures
    assert answered > 1000
