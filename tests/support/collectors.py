"""Collectors of a user that misbehave."""

from __future__ import annotations

import threading

from prometheus_client.core import GaugeMetricFamily

from support import servers


class Hanging:
    """
    A collector that hangs until it is released.

    Args:
        hangs: whether it does so from the start.
    """

    def __init__(self, *, hangs=True):
        self.released = threading.Event()
        self.threads = []
        if not hangs:
            self.released.set()

    def describe(self):
        """Return the family, so that it is not collected to be registered."""
        return [GaugeMetricFamily("hanging", "Of a collector that hangs.")]

    def collect(self):
        """Return one family."""
        self.threads.append(threading.get_ident())
        self.released.wait(servers.LIMIT)
        return [GaugeMetricFamily("hanging", "Of a collector that hangs.", 7)]


class Generating(Hanging):
    """The same as a generator that hangs in its second step."""

    def collect(self):
        """Yield two families."""
        yield GaugeMetricFamily("hanging", "Of a collector that hangs.", 7)
        yield from super().collect()
