"""A path in, an answer out, for the four endpoints; no framework."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple
from urllib.parse import parse_qs

from prometheus_client import CollectorRegistry

from scaleobs.health import Report, Result
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


class Answers:
    """What a service says about itself."""

    def __init__(self, settings: Settings, lifecycle: Lifecycle, registry: CollectorRegistry) -> None:
        self._lifecycle = lifecycle
        self._registry, self._storage = attach(registry)
        self._token = settings.metrics_token
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

    def probe(self, kind: str, report: Report, *, accept: str, details: bool) -> Answer:
        """
        Return what a probe answers: 200 or 503, and the checks with their states, as MicroProfile Health or
        `application/health+json` has them.

        Liveness is up as long as the process can answer at all, and its own checks pass where it has any. The other two
        need start-up to be over; until then they name it as a check that is down.

        A probe is answered to anyone who asks, so it has names and states; what a check returned to be shown, and why
        it failed, are `details`.
        """
        if not details:
            report = names_and_states(report)
        if (kind == "ready" and not self._lifecycle.is_ready) or (kind == "startup" and not self._lifecycle.is_started):
            state = Result(is_up=False, data=self._lifecycle.said())
            report = Report(is_up=False, checks=(("lifecycle", state), *report.checks))
        media_type, body = written(report, accept)
        return Answer(200 if report.is_up else 503, [*_headers(media_type), ("Vary", "Accept")], body)

    def metrics(
        self,
        *,
        accept: str,
        accept_encoding: str,
        query: str,
        authorization: str,
        on_fault: Callable[[Exception], None],
    ) -> Answer:
        """
        Return what a scrape reads; see `exposition.expose`. Never raises, neither here nor on the way.

        Where there is a token, 401 to who doesn't send it.
        """
        if self._token is not None and not _is_bearer_of(self._token, authorization):
            return self.unauthorized()
        headers, pieces = expose(
            self._registry,
            self._storage,
            accept=accept,
            accept_encoding=accept_encoding,
            names=parse_qs(query).get("name[]", []),
            on_fault=on_fault,
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
    def unauthorized() -> Answer:
        """Return the answer to who has to send a token, and sent none or another one."""
        challenge = ("WWW-Authenticate", "Bearer")
        return Answer(401, [challenge, *_headers("text/plain; charset=utf-8")], b"Send the bearer token.\n")

    @staticmethod
    def broken() -> Answer:
        """Return the answer where scaleobs itself failed to make one."""
        return Answer(500, _headers("text/plain; charset=utf-8"), b"scaleobs failed to answer; its log says why.\n")


def _headers(content_type: str) -> list[tuple[str, str]]:
    return [("Content-Type", content_type), ("Cache-Control", "no-store")]


def _is_bearer_of(token: str, authorization: str) -> bool:
    """Return whether a header has the token (RFC 6750, section 2.1), in the same time whichever of its bytes differ."""
    scheme, _, given = authorization.partition(" ")
    # Whatever a client or a server makes of the header, each text has bytes of its own.
    return hmac.compare_digest(given.strip(" ").encode("utf-8", "surrogatepass"), token.encode()) and (
        scheme.lower() == "bearer"
    )
