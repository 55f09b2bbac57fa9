"""One check, as it is registered."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal, TypedDict

Probe = Literal["ready", "startup", "live"]
CheckFunction = Callable[[], Any] | Callable[[], Awaitable[Any]]

_PROBES = ("ready", "startup", "live")


class Options(TypedDict, total=False):
    """What may be said about a check beside its name and its function; see `Check`."""

    probe: Probe
    timeout: float
    every: float | None
    cache: float
    critical: bool
    failure_threshold: int
    restart_container: bool


@dataclass(frozen=True, slots=True)
class Check:
    """
    A check of a probe, to be given to `instrument(checks=[...])`; `Observer.check` makes one of a function.

    The function, sync or async, passes by returning `None`, `True`, or a mapping to show as its data. It fails by
    raising (`CheckFailed` where a reason is enough), by returning `False`, or by taking longer than its timeout. It
    has one run at a time, however often it is asked, so one that hangs costs one thread; until it has ended, probes
    answer from what is known.

    Attributes:
        name: what the probe calls it.
        function: takes no arguments. An async one runs on the application's event loop under ASGI, where its
            connection pools live; a sync one in a thread of its own.
        probe: `ready`, `startup`, or `live`, which needs `restart_container`. Until the service has started, readiness
            requires the critical checks of `startup`, too, and runs them; after that, one that fails degrades it.
        timeout: in seconds; a run that takes longer has failed. Past half of it, a warning is logged.
        every: run it so often, in seconds, in the background; probes then answer from its last run. It begins
            with the first request or probe.
        cache: without `every`, for how many seconds a result is good for every probe that asks.
        critical: whether its failure fails the probe. Otherwise the service is degraded: the check is UP with
            `{"state": "DEGRADED"}` as its data, and the probe answers 200.
        failure_threshold: how many runs in a row have to fail before what was UP fails. One that was never UP fails
            at once.
        restart_container: a liveness check that fails makes the orchestrator restart the container. Give `True` for
            one that a restart heals; a probe of liveness never waits for it.

    Raises:
        ValueError: a value can't be used; the message has it, and the fix.
        TypeError: the function is none.
    """

    name: str
    function: CheckFunction
    _: KW_ONLY
    probe: Probe = "ready"
    timeout: float = 1.0
    every: float | None = None
    cache: float = 1.0
    critical: bool = True
    failure_threshold: int = 1
    restart_container: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name or not self.name.isprintable():
            msg = f"A check is named {self.name!r}: give a short printable name, e.g. 'postgres'."
            raise ValueError(msg)
        self._refuse_wrong_probe()
        if not callable(self.function):
            msg = f"The check {self.name!r} is {self.function!r}: give a function without arguments."
            raise TypeError(msg)
        self._require_seconds("timeout", "timeout=1.0")
        if self.every is not None:
            self._require_seconds("every", "every=10.0")
        if self.cache != 0:
            self._require_seconds("cache", "cache=1.0, or 0 to keep nothing")
        threshold = self.failure_threshold
        if not isinstance(threshold, int) or isinstance(threshold, bool) or threshold < 1:
            msg = f"The check {self.name!r} has failure_threshold={threshold!r}: give a whole number, 1 or more."
            raise ValueError(msg)

    def _refuse_wrong_probe(self) -> None:
        if self.probe in ("live", "health") and not self.restart_container:
            msg = (
                f"The check {self.name!r} is for the probe {self.probe!r}: a failing liveness check makes the "
                "orchestrator restart the container, which heals no dependency. Give 'ready' or 'startup', or "
                "probe='live' with restart_container=True where a restart is what heals it."
            )
            raise ValueError(msg)
        if self.probe not in _PROBES:
            msg = (
                f"The check {self.name!r} is for the probe {self.probe!r}: there is no such probe. "
                "Give 'ready' or 'startup'."
            )
            raise ValueError(msg)
        if self.restart_container and self.probe != "live":
            msg = (
                f"The check {self.name!r} has restart_container=True for the probe {self.probe!r}, which restarts "
                "nothing: leave it out, or give probe='live'."
            )
            raise ValueError(msg)

    def _require_seconds(self, name: str, example: str) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            msg = f"The check {self.name!r} has {name}={value!r}: give seconds above 0, e.g. {example}."
            raise ValueError(msg)
