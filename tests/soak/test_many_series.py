"""32 scrapes of 100,000 series of the user at once: memory, and `/health` meanwhile."""

from __future__ import annotations

import pytest

from support import many_series

HEADERS = [
    {},
    {"Accept": "application/openmetrics-text", "Accept-Encoding": "gzip"},
    {"Accept": "application/vnd.google.protobuf"},
]


@pytest.mark.parametrize(
    "server", [many_series.UVICORN, many_series.GUNICORN, many_series.GEVENT], ids=["uvicorn", "gunicorn", "gevent"]
)
@pytest.mark.parametrize("headers", HEADERS, ids=["text", "openmetrics", "protobuf"])
def test_32_scrapes_of_100000_series(headers, server, tmp_path):
    """The peak is at most 3 times that of one scrape, and `/health` answers within a second, three with gevent."""
    one, every, statuses, slowest = many_series.measure(
        tmp_path, series=100_000, scrapes=32, headers=headers, server=server
    )
    print(f"one {one:.0f} MiB, 32 at once {every:.0f} MiB, /health {slowest:.2f} s, {statuses.count(200)} times 200")

    assert {200} == set(statuses) or server is many_series.GUNICORN
    assert 3 * one > every
    # The loop of gevent runs all greenlets that are ready before it reads new requests.
    assert (3 if server is many_series.GEVENT else 1) > slowest
