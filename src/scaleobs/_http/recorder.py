"""The recorder of one application: finds the child of each request."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, MutableMapping, Sequence
from contextvars import ContextVar
from http import HTTPStatus
from typing import Any

from scaleobs import catalog
from scaleobs._http.exchange import AccessLog, code_of
from scaleobs._http.reports import Reports
from scaleobs._metrics.child import Child, Labels, Shard, ThreadShards
from scaleobs._metrics.storage import Storage
from scaleobs._routes import ROUTE, PlainRoutes, Routes
from scaleobs._tracing import Spans
from scaleobs.logs._context import RequestIds

Request = MutableMapping[str, Any]
"""An ASGI scope or a WSGI environ."""

_USUAL = {f"{status.value} {status.phrase}".upper() for status in HTTPStatus}
_MAX_CACHED = 20_000
_MAX_UNMATCHED = 20
_MAX_EXAMINED = 1000

_CLAIMS = "scaleobs.counted_in"
_OUTER_REQUESTS = ("asgi.scope", "wsgi_environ")
"""The keys of the other protocol's request in what a2wsgi passes on."""

_IDENTIFYING = (("HTTP_HOST", b"host"), ("HTTP_USER_AGENT", b"user-agent"), ("HTTP_TRACEPARENT", b"traceparent"))

_claimed: ContextVar[Sequence[Request]] = ContextVar("scaleobs_claimed", default=())
"""The claimed request of this context, for adapters that pass on no object of it."""


class Recorder:
    """
    Counts the requests of one application; `local.shard` holds the calling thread's counts.

    Args:
        storage: where requests are counted.
        routes: returns their templates.
        log: writes their lines.
        reports: logs faults and limits.
        ids: makes the ids of requests.
        method: the key of a request's method in the scope or environ.
        spans: makes their server spans.

    Attributes:
        by_identity: whether the values of `route_key` are compared by identity.
        on_memory_changed: called after the storage has moved to other memory.
    """

    __slots__ = (
        *("_templates", "_unmatched", "by_identity", "ids", "local", "log"),
        *("method", "on_memory_changed", "reports", "route_key", "routes", "spans", "storage"),
    )

    def __init__(
        self,
        storage: Storage,
        routes: Routes,
        *,
        log: AccessLog,
        reports: Reports,
        ids: RequestIds,
        method: str,
        spans: Spans,
    ) -> None:
        self.storage = storage
        self.local = ThreadShards(storage.new_shard)
        self.routes = routes
        self.route_key = routes.route_key
        self.by_identity = False
        self.log = log
        self.reports = reports
        self.ids = ids
        self.method = method
        self.spans = spans
        self.on_memory_changed: Callable[[], None] = lambda: None
        self._templates: Iterable[tuple[str, str]] = ()
        self._unmatched = UnmatchedRow(is_over=isinstance(routes, PlainRoutes))  # Those are the fix.

    def claim(self, request: Request) -> Claim | None:
        """
        Return the claim of the first recorder of this storage, which counts the request; `None` to the others.

        Without this, an instrumented application inside another one would count each request twice, even if an adapter
        between them translates the request into the other protocol.
        """
        claimed: tuple[Storage, ...] = next((one[_CLAIMS] for one in _forms_of(request) if _CLAIMS in one), ())
        is_first = self.storage not in claimed
        request[_CLAIMS] = (*claimed, self.storage) if is_first else claimed
        return Claim(request) if is_first else None

    def refresh_routes(self) -> Iterable[tuple[str, str]]:
        """Clear the caches if routes have changed; return all current pairs of method and template."""
        templates = self.routes.known()
        if templates is not self._templates:
            # A route was added: an endpoint that had one template may have several.
            self._templates = templates
            self.storage.clear_child_caches()
        return templates

    def fault(self, error: BaseException) -> None:
        """Count a fault of scaleobs itself, and log it once; never raises."""
        self.storage.fault()
        self.reports.fault(error)

    def child_of_request(self, request: Request, status: object, shard: Shard) -> Child:
        """Return the child of a request, and cache it for similar requests."""
        method = request.get(self.method, "")
        # Read once, since another thread may replace it. The dict keeps the routes alive whose ids are its keys.
        cache = shard.child_cache
        with contextlib.suppress(Exception):  # Not in the cache, or a status without a hash.
            return cache[method, self._route_key_of(request), status]  # type: ignore[no-any-return]
        route, is_cacheable = catalog.UNMATCHED_ROUTE, False
        try:
            route, is_cacheable = self.routes.template(request)
            self.route_key, self.by_identity = self.routes.route_key, self.routes.route_key == ROUTE
        except Exception as error:
            self.fault(error)
        route_key = self._route_key_of(request) if is_cacheable else route
        if not is_cacheable:
            with contextlib.suppress(Exception):
                return cache[method, route, status]  # type: ignore[no-any-return]
        is_standard = isinstance(method, str) and method in catalog.METHODS
        labels = (method if is_standard else catalog.OTHER_METHOD, route, f"{code_of(status):03d}")
        child = shard.child_of(labels)
        if child.labels != labels:
            self.reports.limit_reached(self.storage.limit)
        if not self._unmatched.is_over and self._is_examined(labels):
            return child
        # Values that a client invents are not cached, nor are overflows, which are counted each time.
        if is_standard and child.labels == labels and _is_usual(status) and len(cache) < _MAX_CACHED:
            with contextlib.suppress(Exception):
                if is_cacheable and self.by_identity:
                    cache[route_key] = request[ROUTE]
                cache[method, route_key, status] = child
        return child

    def _is_examined(self, labels: Labels) -> bool:
        """Add a request to the row of unmatched ones; return whether the next ones like it must be added, too."""
        row = self._unmatched
        method, route, status = labels
        was_begun = row.is_begun
        if row.add(is_success=status[0] == "2" and method != "OPTIONS", is_matched=route != catalog.UNMATCHED_ROUTE):
            self.reports.route_missing(_MAX_UNMATCHED)
        if row.is_begun and not was_begun:
            self.storage.clear_child_caches()
        return row.is_begun and not row.is_over

    def _route_key_of(self, request: Request) -> object:
        value = request.get(self.route_key)
        return id(value) if self.by_identity else value


class UnmatchedRow:
    """
    Successful requests in a row without a template, which show that the routes of an application are not found.

    Other requests are no part of a row and do not end it: failures, and the `OPTIONS` that a middleware answers.

    Attributes:
        is_begun: whether there was one. From then on requests are not cached, so that each is added.
        is_over: whether a row was long enough, or so many requests were added that the routes are found.
    """

    def __init__(self, *, is_over: bool) -> None:
        self.is_begun = False
        self.is_over = is_over
        self._length = self._added = 0

    def add(self, *, is_success: bool, is_matched: bool) -> bool:
        """Add a request; return whether the row is long enough now. Threads may lose some."""
        if is_success and is_matched:
            self._length = 0
        elif is_success:
            self.is_begun = True
            self._length += 1
        self._added += self.is_begun
        is_long = self._length >= _MAX_UNMATCHED
        self.is_over = is_long or self._added >= _MAX_EXAMINED
        return is_long


class Claim:
    """A claimed request, which adapters inside the block can be compared with."""

    __slots__ = ("_holder", "_token")

    def __init__(self, request: Request) -> None:
        self._holder = [request]

    def __enter__(self) -> None:
        self._token = _claimed.set(self._holder)

    def __exit__(self, *_: object) -> None:
        self._holder.clear()  # Tasks and threads that continue in a copy of the context serve other requests.
        with contextlib.suppress(ValueError):  # It was collected in another context.
            _claimed.reset(self._token)


def _forms_of(request: Request) -> Iterator[Request]:
    """Yield a request, then the request of the other protocol that an adapter has translated into it."""
    yield request
    for key in _OUTER_REQUESTS:
        outer = request.get(key)
        if isinstance(outer, dict):
            yield outer
    for outer in _claimed.get():
        try:
            is_same = _is_translation(outer, request)
        except Exception:  # A malformed request.
            is_same = False
        if is_same:
            yield outer


def _is_translation(one: Request, other: Request) -> bool:
    """Return whether one request is an environ, the other one a scope, and both the same request."""
    if ("REQUEST_METHOD" in one) is ("REQUEST_METHOD" in other):
        return False
    environ, scope = (one, other) if "REQUEST_METHOD" in one else (other, one)
    headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
    client = scope.get("client")
    path = environ.get("PATH_INFO", "").encode("latin-1").decode()
    return (
        environ["REQUEST_METHOD"] == scope["method"]
        and scope["path"].endswith(path)
        and environ.get("QUERY_STRING", "") == scope.get("query_string", b"").decode("latin-1")
        and all(environ.get(key, "") == headers.get(name, "") for key, name in _IDENTIFYING)
        and (client is None or environ.get("REMOTE_ADDR", client[0]) == client[0])
    )


def _is_usual(status: object) -> bool:
    """Return whether a status is a number or has its standard phrase, so that caching it is bounded."""
    return isinstance(status, int) or (isinstance(status, str) and status.upper() in _USUAL)
