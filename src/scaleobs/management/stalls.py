"""Whether the workers of a group go on, or are stuck."""

from __future__ import annotations

import sys
from collections.abc import Callable
from time import monotonic
from typing import Any

from scaleobs._metrics.runtime import runtime
from scaleobs.drain import servers


class StallDetector:
    """
    Whether this worker goes on, and for how long none of its group has.

    A worker with an event loop goes on as long as that runs: asyncio's tells so itself, gevent's is asked. One with
    threads does so unless each of them is in the same request as at the last look. Where it isn't known how many
    threads there are, it goes on.

    Args:
        requests: returns how many requests this process has begun, and ended.
    """

    def __init__(self, requests: Callable[[], tuple[float, float]]) -> None:
        self._requests = requests
        self._seen = (0.0, 0.0)
        self._hub: Any = None

    def note_hub(self) -> None:
        """Note gevent's event loop, where there is one; to be called by what it runs."""
        if self._hub is None and "gevent.monkey" in sys.modules:
            hub = sys.modules["gevent"].get_hub()
            self._hub = hub if sys.modules["gevent.monkey"].is_module_patched("threading") else None

    def look(self) -> None:
        """Note whether this worker goes on."""
        if runtime.has_loops:
            return
        if self._hub is not None:
            self._hub.loop.run_callback_threadsafe(runtime.beat)
            return
        before, self._seen = self._seen, self._requests()
        begun, ended = self._seen
        threads = servers.threads()
        if not threads or begun - ended < threads or self._seen != before:
            runtime.beat()

    @staticmethod
    def stalled_seconds() -> float:
        """Return for how many seconds no worker has gone on; 0 as long as one is starting."""
        pulses = runtime.pulses().values()
        return monotonic() - max(pulses) if all(pulses) else 0.0
