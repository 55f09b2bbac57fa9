"""The management port under attack for half a minute each: for `make soak`."""

from __future__ import annotations

import os

import pytest

from support.attacks import ATTACKS
from test_management_attack import statuses_under_attack

SECONDS = 30


@pytest.mark.skipif(not os.environ.get("SOAK_SECONDS"), reason="It takes minutes: `make soak` runs it.")
@pytest.mark.parametrize("name", ATTACKS)
def test_probes_are_answered_under_attack(name, tmp_path):
    """Each of sixty probes is answered within its second, also after clients have connected again."""
    statuses, reopened = statuses_under_attack(name, SECONDS, tmp_path)

    assert [200] * 2 * SECONDS == statuses
    assert reopened
