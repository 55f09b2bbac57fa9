"""A path in, an answer out, for the four endpoints; no framework."""

from __future__ import annotations

import contextlib
import hmac
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from prometheus_client import CollectorRegistry

from scaleobs.health import Checks, Report, Result
from scaleobs.lifecycle import Lifecycle
from scaleobs.metrics.exposition import expose
from scaleobs.metrics.registry import attach
from scaleobs.reports import names_and_states, written
from scaleobs.settings import Settings

_ALIASES = {"/livez": "live", "/healthz": "live", "/readyz": "ready"}
"""What Kubernetes calls the probes of its own programs."""

_WHOLE_BYTES = 64 * 1024
_WHOLE_PIECES = 16
"""A page that is no longer than this, and no more work, is sent in one piece, with its length."""


class Answer(NamedTuple):
    """
    A status, its headers and its body.

    Where the body is long, `rest` has what follows its beginning, in pieces, each the work of about a millisecond; an
    empty one is a pause. Otherwise `rest` is `None`.
    """

    status: int
    headers: list[tuple[str, str]]
    body: bytes
    rest: Iterator[bytes] | None = None


Header = Callable[[str], str]
"""From a header's name to what the request has there; empty where it has nothing."""


class Answers:
    """
    What a service says about itself.

    Args:
        settings: how it is observed.
        lifecycle: where its process stands.
        checks: its checks.
        registry: its metrics.
        warn: writes a line to the log.
        on_fault: hears of what goes wrong here.
    """

    def __init__(
        self,
        settings: Settings,
        lifecycle: Lifecycle,
        checks: Checks,
        registry: CollectorRegistry,
        *,
        warn: Callable[..., object],
        on_fault: Callable[[Exception], None],
    ) -> None:
        self._lifecycle = lifecycle
        self._checks = checks
        self._registry, self._storage = attach(registry)
        self._warn = warn
        self._on_fault = on_fault
        self._token = settings.metrics_token
        self._stall_seconds = settings.stall_seconds
        self._shows_details = settings.details and settings.management_port is None
        self._failing: dict[str, tuple[str, list[str]]] = {}
        paths = {
            settings.health_path: "live",
            settings.ready_path: "ready",
            settings.startup_path: "startup",
            settings.metrics_path: "metrics",
        }
        configured = {path: kind for path, kind in paths.items() if path is not None}
        aliases = {path: kind for path, kind in _ALIASES.items() if kind in configured.values()}
        self.on_management_port: dict[str, str] = aliases | configured
        """Path to `live`, `ready`, `startup` or `metrics`."""
        self.endpoints: dict[str, str] = self.on_management_port if settings.probe_aliases else configured
        """The same on the application's port."""
        if settings.management_port is not None:
            self.endpoints = {path: kind for path, kind in self.endpoints.items() if kind != "metrics"}

    def answer(self, kind: str, header: Header, query: str, *, details: bool = False, stuck_for: float = 0.0) -> Answer:
        """
        Return what an endpoint answers; may wait for checks.

        Args:
            kind: `live`, `ready`, `startup` or `metrics`.
            header: of the request.
            query: of the request.
            details: see `probe`.
            stuck_for: see `probe`.
        """
        if kind == "metrics":
            return self.metrics(header, query)
        report = None if kind == "live" else self._checks.report(kind)
        return self.probe(kind, report, header, details=details, stuck_for=stuck_for)

    def probe(
        self, kind: str, report: Report | None, header: Header, *, details: bool = False, stuck_for: float = 0.0
    ) -> Answer:
        """
        Return what a probe answers: 200 or 503, and the checks with their states, as MicroProfile Health or
        `application/health+json` has them.

        Liveness is up as long as the process can answer at all, and its own checks pass where it has any. The other two
        need start-up to be over; until then they list `lifecycle` as a check that is down. The checks of the start
        are a part of it: readiness requires them, too, until one of the two probes has passed. From then on one of them
        that fails degrades the service, since an orchestrator doesn't request `/startup` again.

        A probe is answered to anyone who asks, so it has names and states; what a check returned to be shown, and why
        it failed, are `details`. That it says no is logged, once until it says something else.

        Args:
            kind: `live`, `ready` or `startup`.
            report: what its checks say; liveness, which waits for no check, is answered from what is known.
            header: of the request.
            details: show them whatever the settings say.
            stuck_for: for how many seconds no worker has gone on.
        """
        try:
            report = self._checks.known(kind) if report is None else report
            if stuck_for >= self._stall_seconds:
                reason = f"for {stuck_for:.0f} s each worker's event loop, or all its threads, have been stuck"
                report = _failed(report, "progress", Result(is_up=False, reason=reason))
            shown = report if details or self._shows_details else names_and_states(report)
            if not self._is_far_enough(kind, report):
                shown = _failed(shown, "lifecycle", Result(is_up=False, data=self._said(report)))
            elif kind != "live" and report.is_started:
                self._checks.end_startup()
            media_type, body = written(shown, header("accept"))
        except Exception as error:
            self._on_fault(error)
            return self._broken()
        self._tell(kind, report, is_up=shown.is_up)
        return Answer(200 if shown.is_up else 503, [*_headers(media_type), ("Vary", "Accept")], body)

    def _is_far_enough(self, kind: str, report: Report) -> bool:
        if kind == "ready":
            return self._lifecycle.is_ready and report.is_started
        return kind == "live" or self._lifecycle.is_started

    def _said(self, report: Report) -> dict[str, Any]:
        return self._lifecycle.said(has_passed=report.is_started)

    def _tell(self, kind: str, report: Report, *, is_up: bool) -> None:
        if is_up:
            self._failing.pop(kind, None)
            return
        said = self._said(report)["state"], [name for name, result in report.checks if not result.is_up]
        if self._failing.get(kind) != said:
            self._failing[kind] = said
            with contextlib.suppress(Exception):
                self._warn("probe.failed", probe=kind, status_code=503, state=said[0], checks_down=said[1])

    def metrics(self, header: Header, query: str) -> Answer:
        """
        Return what a scrape reads; see `exposition.expose`. Never raises, neither here nor on the way.

        Where there is a token, 401 to who doesn't send it.
        """
        if self._token is not None and not _is_bearer_of(self._token, header("authorization")):
            return self._unauthorized()
        headers, pieces = expose(
            self._registry,
            self._storage,
            accept=header("accept"),
            accept_encoding=header("accept-encoding"),
            names=parse_qs(query).get("name[]", []),
            on_fault=self._on_fault,
        )
        headers = [*headers, ("Cache-Control", "no-store")]
        begun: list[bytes] = []
        for piece in pieces:
            begun.append(piece)
            if sum(map(len, begun)) >= _WHOLE_BYTES or len(begun) == _WHOLE_PIECES:
                return Answer(200, headers, b"".join(begun), pieces)
        return Answer(200, headers, b"".join(begun))

    @staticmethod
    def not_allowed() -> Answer:
        """Return the answer to any method but GET and HEAD."""
        return Answer(405, [("Allow", "GET, HEAD"), *_headers("text/plain; charset=utf-8")], b"Use GET or HEAD.\n")

    @staticmethod
    def not_found(known: Iterable[str]) -> Answer:
        """Return the answer where there is nothing, with what there is."""
        text = f"Here are {' '.join(sorted(known))}\n"
        return Answer(404, _headers("text/plain; charset=utf-8"), text.encode())

    @staticmethod
    def _unauthorized() -> Answer:
        """Return the answer to who has to send a token, and sent none or another one."""
        challenge = ("WWW-Authenticate", "Bearer")
        return Answer(401, [challenge, *_headers("text/plain; charset=utf-8")], b"Send the bearer token.\n")

    @staticmethod
    def _broken() -> Answer:
        """Return the answer where scaleobs itself failed to make one."""
        return Answer(500, _headers("text/plain; charset=utf-8"), b"scaleobs failed to answer; its log says why.\n")


def _failed(report: Report, name: str, result: Result) -> Report:
    return report._replace(is_up=False, checks=((name, result), *report.checks))


def _headers(content_type: str) -> list[tuple[str, str]]:
    return [("Content-Type", content_type), ("Cache-Control", "no-store")]


def _is_bearer_of(token: str, authorization: str) -> bool:
    """Return whether a header has the token (RFC 6750, section 2.1), in the same time whichever of its bytes differ."""
    scheme, _, given = authorization.partition(" ")
    # Whatever a client or a server makes of the header, each text has bytes of its own.
    return hmac.compare_digest(given.strip(" ").encode("utf-8", "surrogatepass"), token.encode()) and (
        scheme.lower() == "bearer"
    )
