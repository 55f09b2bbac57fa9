"""The answers of the four endpoints, without any framework."""

from __future__ import annotations

import contextlib
import hmac
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import parse_qs

from prometheus_client import CollectorRegistry

from scaleobs._health import Checks, Report, Result
from scaleobs._http.answer import BROKEN, Answer, Header, text_answer
from scaleobs._lifecycle import signals
from scaleobs._lifecycle.state import Lifecycle
from scaleobs._metrics.families import attach
from scaleobs._metrics.page import MEDIA_TYPES, headers_of
from scaleobs._metrics.scrapes import Pages, ScrapeRefused
from scaleobs.logs._encoding import encode
from scaleobs.settings import Settings

_ALIASES = {"/livez": "live", "/healthz": "live", "/readyz": "ready"}
"""The paths of the probes of Kubernetes' own programs."""

METHODS = ("GET", "HEAD")
"""The methods that endpoints answer."""

_MAX_ENTRIES = 64
"""The entries of a header that are read: a real one has five, and each costs time."""

_WHOLE_BYTES = 64 * 1024
_WHOLE_PIECES = 16
"""A page within both limits is sent in one piece, with its length."""


class Answers:
    """
    Makes the answers of the endpoints of one service; safe to call from any thread.

    Args:
        settings: of the service.
        lifecycle: the state of its process.
        checks: its checks.
        registry: its metrics.
        warn: writes a line to the log.
        on_fault: called with errors of scaleobs itself.
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
        self._pages = Pages(*attach(registry), on_fault)
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

    @staticmethod
    def needs_report(kind: str, method: str) -> bool:
        """Return whether the caller must pass a report of the checks; liveness needs none."""
        return kind in ("ready", "startup") and method in METHODS

    def answer(
        self,
        kind: str,
        method: str,
        header: Header,
        *,
        query: str = "",
        report: Report | None = None,
        details: bool = False,
        stalled_seconds: float = 0.0,
        may_block: bool = True,
    ) -> Answer:
        """
        Return the answer of an endpoint; never raises.

        Args:
            kind: `live`, `ready`, `startup` or `metrics`.
            method: of the request.
            header: of the request.
            query: of the request.
            report: of the checks, if it `needs_report`.
            details: see `probe`.
            stalled_seconds: see `probe`.
            may_block: see `metrics`.
        """
        if method not in METHODS:
            return self.not_allowed()
        if kind == "metrics":
            return self.metrics(header, query, may_block=may_block)
        return self.probe(kind, report, header, details=details, stalled_seconds=stalled_seconds)

    def probe(
        self, kind: str, report: Report | None, header: Header, *, details: bool = False, stalled_seconds: float = 0.0
    ) -> Answer:
        """
        Return the answer of a probe: 200 or 503, and the checks with their states, as MicroProfile Health or
        `application/health+json`.

        Liveness is up if the process answers and its own checks pass. The other two require the end of start-up; until
        then they list `lifecycle` as a check that is down. Until one of the two has passed, both require the start-up
        checks. After that, a failing start-up check only degrades the service, since an orchestrator does not request
        `/startup` again.

        Any client can request a probe, so it contains names and states only. The data of a check and the reason for its
        failure are `details`. A failing probe is logged once, until its state or its failing checks change.

        Args:
            kind: `live`, `ready` or `startup`.
            report: of its checks; by default the latest results, as for liveness.
            header: of the request.
            details: show them regardless of the setting `details`. If there is a token, they require it.
            stalled_seconds: for how many seconds all workers have been stuck.
        """
        try:
            report = self._checks.report_at_once(kind) if report is None else report
            if stalled_seconds >= self._stall_seconds:
                reason = f"for {stalled_seconds:.0f} s each worker's event loop, or all its threads, have been stuck"
                report = _failed(report, "progress", Result(is_up=False, reason=reason))
            shows_details = (details or self._shows_details) and self._is_authorized(header)
            shown = report if shows_details else names_and_states(report)
            if not self._is_reached(kind, report):
                shown = _failed(shown, "lifecycle", Result(is_up=False, data=self._lifecycle_data(report)))
            elif kind != "live" and report.is_started:
                self._checks.end_startup()
            media_type, body = encode_report(shown, header("accept"))
        except Exception as error:
            self._on_fault(error)
            return BROKEN
        self._log_failure(kind, report, is_up=shown.is_up)
        return Answer(
            200 if shown.is_up else 503,
            [("Content-Type", media_type), ("Cache-Control", "no-store"), ("Vary", "Accept")],
            body,
        )

    def _is_authorized(self, header: Header) -> bool:
        return self._token is None or _is_bearer_of(self._token, header("authorization"))

    def _is_reached(self, kind: str, report: Report) -> bool:
        if kind == "ready":
            return self._lifecycle.is_ready and report.is_started
        return kind == "live" or self._lifecycle.is_started

    def _lifecycle_data(self, report: Report) -> dict[str, Any]:
        return self._lifecycle.probe_data(has_passed=report.is_started)

    def _log_failure(self, kind: str, report: Report, *, is_up: bool) -> None:
        if is_up:
            self._failing.pop(kind, None)
            return
        failure = self._lifecycle_data(report)["state"], [name for name, result in report.checks if not result.is_up]
        if self._failing.get(kind) != failure:
            self._failing[kind] = failure
            with contextlib.suppress(Exception):
                self._warn("probe.failed", probe=kind, status_code=503, state=failure[0], checks_down=failure[1])

    def metrics(self, header: Header, query: str, *, may_block: bool) -> Answer:
        """
        Return the page of a scrape; see `Pages`. Neither this nor the iteration of `rest` raises an error of the page.

        If a token is set, a request without it receives 401. If there are too many scrapes, it receives 503.

        Args:
            header: of the request.
            query: of the request.
            may_block: whether this thread may wait for another one that is making the page.
        """
        if not self._is_authorized(header):
            return text_answer(401, "Send the bearer token.", ("WWW-Authenticate", "Bearer"))
        media_type = preferred(header("accept"), MEDIA_TYPES)
        is_gzipped = is_gzip_accepted(header("accept-encoding"))
        names = parse_qs(query).get("name[]", [])
        threads = signals.threads() if may_block and "metrics" in self.endpoints.values() else 0
        pieces = self._pages.scrape(
            media_type, is_gzipped=is_gzipped, names=names, may_block=may_block, threads=threads
        )
        if pieces is None:
            return _too_many()
        headers = [*headers_of(media_type, is_gzipped=is_gzipped), ("Cache-Control", "no-store")]
        begun: list[bytes] = []
        if not may_block and self._pages.has_others(pieces):  # More scrapes may join the page before it is begun.
            return Answer(200, headers, b"", pieces)
        try:
            for piece in pieces:
                begun.append(piece)
                if sum(map(len, begun)) >= _WHOLE_BYTES or len(begun) == _WHOLE_PIECES:
                    return Answer(200, headers, b"".join(begun), pieces)
        except ScrapeRefused:
            return _too_many()
        return Answer(200, headers, b"".join(begun))

    @staticmethod
    def not_found(paths: Iterable[str]) -> Answer:
        """Return the answer to an unknown path: 404 with the list of paths."""
        return text_answer(404, f"Here are {' '.join(sorted(paths))}")

    @staticmethod
    def not_allowed() -> Answer:
        """Return the answer to any other method."""
        return text_answer(405, "Use GET or HEAD.", ("Allow", ", ".join(METHODS)))


def _too_many() -> Answer:
    return text_answer(503, "Too many scrapes at once; try again in a second.", ("Retry-After", "1"))


def _failed(report: Report, name: str, result: Result) -> Report:
    return report._replace(is_up=False, checks=((name, result), *report.checks))


def _is_bearer_of(token: str, authorization: str) -> bool:
    """Return whether a header has the token (RFC 6750, section 2.1), in constant time."""
    scheme, _, given = authorization.partition(" ")
    # `surrogatepass` encodes any text, and different texts differently.
    return hmac.compare_digest(given.strip(" ").encode("utf-8", "surrogatepass"), token.encode()) and (
        scheme.lower() == "bearer"
    )


def names_and_states(report: Report) -> Report:
    """Return a report that is safe to publish: without the data, reasons and times of the checks."""
    checks = ((name, Result(result.is_up, is_degraded=result.is_degraded)) for name, result in report.checks)
    return report._replace(checks=tuple(checks))


def encode_report(report: Report, accept: str) -> tuple[str, bytes]:
    """Return the media type and the text of a report in the preferred format; MicroProfile's is the default."""
    media_type = preferred(accept, _OFFERS)
    return media_type, _json(_FORMATS[media_type](report))


def _microprofile(report: Report) -> dict[str, Any]:
    """Return the JSON of MicroProfile Health; state, reason and times are in the data of a check."""
    checks = []
    for name, result in report.checks:
        data: dict[str, Any] = {"state": "DEGRADED"} if result.is_degraded else {}
        if result.reason:
            data["reason"] = result.reason
        if result.at:
            data["duration_seconds"] = round(result.seconds, 3)
            data["age_seconds"] = round(time.monotonic() - result.at, 3)
        data |= result.data or {}
        check = {"name": name, "status": "UP" if result.is_up else "DOWN"}
        checks.append({**check, "data": data} if data else check)
    return {"status": "UP" if report.is_up else "DOWN", "checks": checks}


def _health_json(report: Report) -> dict[str, Any]:
    """
    Return the JSON of draft-inadarei-api-health-check-06.

    The observed value of a check is its duration, and `time` is the end of its run (sections 4.3 to 4.7). A check that
    does not pass has `output` (section 4.8). The draft has no key for the data of a check, which is `data` (section
    4.10).
    """
    checks: dict[str, list[dict[str, Any]]] = {}
    for name, result in report.checks:
        status = _status(is_up=result.is_up, is_degraded=result.is_degraded)
        check: dict[str, Any] = {"status": status}
        if result.reason and status != "pass":
            check["output"] = result.reason
        if result.at:
            check |= {"observedValue": round(result.seconds, 6), "observedUnit": "s", "time": _wall_clock(result.at)}
        if result.data:
            check["data"] = dict(result.data)
        checks.setdefault(name, []).append(check)
    is_degraded = any(result.is_degraded for _, result in report.checks)
    return {"status": _status(is_up=report.is_up, is_degraded=is_degraded), "checks": checks}


_FORMATS = {"application/json": _microprofile, "application/health+json": _health_json}
_OFFERS: dict[str, dict[str, str]] = {media_type: {} for media_type in _FORMATS}


def _status(*, is_up: bool, is_degraded: bool) -> str:
    if not is_up:
        return "fail"
    return "warn" if is_degraded else "pass"


def _wall_clock(monotonic: float) -> str:
    """Return a time of `time.monotonic` as RFC 3339 in UTC."""
    at = datetime.fromtimestamp(time.time() - (time.monotonic() - monotonic), UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _json(body: dict[str, Any]) -> bytes:
    try:
        text = json.dumps(body, allow_nan=False, default=str)
    except Exception:  # The data of a check has a circular reference, or no text.
        text = encode(body)
    return text.encode() + b"\n"


class _Entry(NamedTuple):
    """One element of an `Accept` header."""

    name: str
    parameters: dict[str, str]
    weight: float


def preferred(accept: str, offers: Mapping[str, Mapping[str, str]]) -> str:
    """
    Return the preferred media type of these, which have parameters; the first one if the request accepts none.

    The answer is never 406, an error that would set `up` to 0: text is better for a client with an unusual `Accept`.
    The weight of an offer is that of the most specific entry that it matches. Among equal weights, the offer with the
    more specific entry wins, then the one with the earlier entry (RFC 9110, sections 12.4.2 to 12.5.1).
    """
    entries = list(_entries(accept))
    best, best_rank = next(iter(offers)), (0.0, 0, 0)
    for offer, parameters in offers.items():
        matches = [(_specificity(entry, offer, parameters), -at, entry.weight) for at, entry in enumerate(entries)]
        specificity, at, weight = max(matches, default=(0, 0, 0.0))
        rank = (weight, specificity, at)
        if specificity and weight and rank > best_rank:
            best, best_rank = offer, rank
    return best


def is_gzip_accepted(accept_encoding: str) -> bool:
    """Return whether gzip is accepted, with at least the weight of the identity (RFC 9110, section 12.5.3)."""
    weights = {entry.name: entry.weight for entry in _entries(accept_encoding)}
    gzip = weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0)))
    return gzip > 0 and gzip >= weights.get("identity", 0.0)


def _specificity(entry: _Entry, offer: str, parameters: Mapping[str, str]) -> int:
    """Return how specific an entry is for an offer; 0 if it does not match."""
    if entry.name == "*/*":
        return 1
    if entry.name == offer.partition("/")[0] + "/*":
        return 2
    if entry.name != offer:
        return 0
    shared = entry.parameters.keys() & parameters.keys()
    if any(entry.parameters[name] != parameters[name].lower() for name in shared):
        return 0
    return 3 + len(shared)


def _entries(header: str) -> Iterator[_Entry]:
    for element in header.lower().split(",", _MAX_ENTRIES)[:_MAX_ENTRIES]:
        name, *pieces = (piece.strip() for piece in element.split(";"))
        pairs = (piece.partition("=") for piece in pieces)
        parameters = {key.strip(): value.strip().strip('"') for key, _, value in pairs}
        yield _Entry(name, parameters, _weight(parameters.pop("q", "1")))


def _weight(text: str) -> float:
    """Return a weight between 0 and 1; 0 for a text that is not a number."""
    try:
        weight = float(text)
    except ValueError:
        return 0.0
    return min(weight, 1.0) if weight > 0 else 0.0
