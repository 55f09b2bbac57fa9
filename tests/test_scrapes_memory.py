"""Many scrapes of very many series at once, on real servers."""

from __future__ import annotations

import pytest

from support import many_series

pytestmark = pytest.mark.servers

SERIES = 15_000
"""`tests/soak/test_many_series.py` has 100,000."""


@pytest.mark.parametrize("server", [many_series.UVICORN, many_series.GEVENT], ids=["uvicorn", "gevent"])
def test_32_scrapes_at_once_take_little_more_memory_than_one(server, tmp_path):
    """All are answered, their peak is at most 3 times that of one scrape, and `/health` answers within a second."""
    for attempt in range(3):  # Another program may delay a probe.
        folder = tmp_path / str(attempt)
        folder.mkdir()
        one, every, statuses, slowest = many_series.measure(folder, series=SERIES, scrapes=32, server=server)
        assert [200] * 32 == statuses
        assert 3 * one > every
        if slowest < 1:
            return
    pytest.fail(f"/health took {slowest} s.")


def test_threads_that_scrape_leave_one_for_probes(tmp_path):
    """Scrapes that would take the last of 8 threads for long receive 503, and `/health` answers all the time."""
    one, every, statuses, slowest = many_series.measure(
        tmp_path, series=SERIES, scrapes=32, server=many_series.GUNICORN
    )

    assert 7 <= statuses.count(200)
    assert {200, 503} >= set(statuses)
    assert 3 * one > every
    assert 10 > slowest
