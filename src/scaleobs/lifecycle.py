"""Where a process stands between its start and its end."""

from __future__ import annotations

from typing import Literal

State = Literal["new", "starting", "ready", "failed", "stopping"]


class Lifecycle:
    """
    The state that readiness and start-up answer from.

    Each method is one assignment, so any thread may call it. ASGI applications move by their lifespan; where
    a server sends none or the application has none, the first HTTP request says that start-up is over, since
    servers send no request before.

    Args:
        manual_start: only `started()` ends start-up.
    """

    def __init__(self, *, manual_start: bool) -> None:
        self._manual_start = manual_start
        self.state: State = "new"

    @property
    def is_started(self) -> bool:
        """Whether start-up is over and went well."""
        return self.state in ("ready", "stopping")

    @property
    def is_ready(self) -> bool:
        """Whether the process can take requests, as far as it knows itself."""
        return self.state == "ready"

    def started(self) -> None:
        """Note that the application said itself that it has started."""
        if self.state in ("new", "starting"):
            self.state = "ready"

    def lifespan_begun(self) -> None:
        """Note that the server opened a lifespan, the first or, as test clients do, another one after its end."""
        if self.state != "ready":
            self.state = "starting"

    def lifespan_left(self) -> None:
        """Note that the application left its lifespan; without an answer, servers take it for having none."""
        if self.state == "starting":
            self.state = "new"

    def lifespan_started(self) -> None:
        """Note that the application's start-up is complete."""
        if not self._manual_start:
            self.started()

    def lifespan_failed(self) -> None:
        """Note that the application's start-up failed; it never becomes ready."""
        self.state = "failed"

    def lifespan_stopping(self) -> None:
        """Note that the server asked the application to shut down."""
        self.state = "stopping"

    def request_seen(self) -> None:
        """Note that a request came."""
        if self.state == "new":
            self.lifespan_started()
