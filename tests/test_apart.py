"""Workers without a group: each has its own label."""

from __future__ import annotations

import os

import pytest
from prometheus_client import Counter

from scaleobs._metrics.families import attach
from support.expositions import FORMATS, observe, page, samples


@pytest.mark.parametrize("content_type", FORMATS)
def test_every_sample_names_its_worker(content_type, registry):
    """The label is on our samples and the user's, in every format."""
    storage = attach(registry)[1]
    storage.is_isolated = True
    observe(storage, ("GET", "/x", "200"), 0.1, times=3)
    Counter("orders", "Help.", registry=registry).inc()
    found = samples(page(registry, content_type), content_type)

    assert {str(os.getpid())} == {dict(labels).get("worker") for _, labels in found}
    assert 3 in [value for (name, _), value in found.items() if name == "http_requests_total"]


def test_together_no_worker_is_named(registry):
    """Without isolation there is no label."""
    storage = attach(registry)[1]
    observe(storage, ("GET", "/x", "200"), 0.1)

    assert b"worker=" not in page(registry)
