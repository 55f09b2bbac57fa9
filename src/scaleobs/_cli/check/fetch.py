"""The HTTP client of the check, and its two sources of series: a metrics page and a Prometheus."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from email.message import Message
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode, urlsplit, urlunsplit

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from scaleobs import catalog
from scaleobs._cli.check.expressions import Matcher, Selector

_MAX_BYTES = 200_000_000
_CHUNK = 1 << 16
_EXAMPLES = "a URL like http://localhost:8000/metrics or http://prometheus:9090"
_PARSERS: dict[str, Callable[[str], Iterable[Any]]] = {
    "text/plain": parse_text,
    "application/openmetrics-text": parse_openmetrics,
}

LoadedRules = dict[str, list[dict[str, Any]]]


class FetchError(Exception):
    """There is no usable response; the message has the reason and the fix."""


class RefusedError(FetchError):
    """A Prometheus responded with an error."""


@dataclass(frozen=True, slots=True)
class Response:
    """A response to GET."""

    url: str
    status: int
    content_type: str
    body: bytes
    location: str = ""


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirect, since the token must not go to another address."""

    def redirect_request(self, *_: Any) -> None:
        """Return the redirect as the response."""


@dataclass(frozen=True, slots=True)
class Client:
    """
    An HTTP client.

    Args:
        timeout: the limit for a whole response, in seconds.
        token: a bearer token, or None.
    """

    timeout: float = 10
    token: str | None = None

    def get(self, url: str) -> Response:
        """
        Return the response to GET, with any status.

        Raises:
            FetchError: there is none.
        """
        address, user = _without_user(url)
        headers = {"Accept": "text/plain;version=0.0.4, application/json;q=0.5, */*;q=0.1", "User-Agent": "scaleobs"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        elif user:
            headers["Authorization"] = f"Basic {base64.b64encode(user.encode()).decode()}"
        deadline = time.monotonic() + self.timeout
        try:
            request = urllib.request.Request(address, headers=headers)  # noqa: S310 - `checked_url` checks the scheme.
            with urllib.request.build_opener(_NoRedirects).open(request, timeout=self.timeout) as response:
                return self._read(response, address, deadline)
        except urllib.error.HTTPError as error:
            with error:
                return self._read(error, address, deadline)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise FetchError(self._reason(address, error)) from None

    def _read(self, response: Any, url: str, deadline: float) -> Response:
        body = bytearray()
        try:
            while chunk := response.read1(_CHUNK) if hasattr(response, "read1") else response.read(_CHUNK):
                body += chunk
                if time.monotonic() > deadline:
                    raise TimeoutError
                if len(body) > _MAX_BYTES:
                    msg = f"{url} answered with more than {_MAX_BYTES // 1_000_000} MB, which is the limit."
                    raise FetchError(msg)
        except (OSError, http.client.HTTPException) as error:
            raise FetchError(self._reason(url, error)) from None
        headers = response.headers
        content_type, location = headers.get("Content-Type") or "", headers.get("Location") or ""
        return Response(url, response.status, content_type, bytes(body), location)

    def _reason(self, url: str, error: Exception) -> str:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(cause, TimeoutError):
            return f"{url} did not answer within {self.timeout:g} s: give a longer --timeout."
        if isinstance(cause, ssl.SSLCertVerificationError):
            return (
                f"{url} has a certificate that is not trusted ({cause.verify_message}): "
                "set SSL_CERT_FILE to the certificate of its authority."
            )
        if isinstance(cause, ssl.SSLError):
            return f"{url} does not accept TLS ({cause.reason or cause}): if it serves plain HTTP, use http://."
        if isinstance(cause, http.client.RemoteDisconnected | http.client.BadStatusLine | ConnectionResetError):
            return f"{url} closed the connection without an HTTP response: if it serves TLS, use https://."
        if isinstance(cause, socket.gaierror):
            return f"{url} can't be reached: there is no host {urlsplit(url).hostname!r}. Check the URL."
        if isinstance(cause, OSError):
            return f"{url} can't be reached: {cause.strerror or cause}. Check the URL, and that the service runs."
        return f"{url} can't be requested: {cause}."


def checked_url(url: str) -> str:
    """
    Return the URL.

    Raises:
        FetchError: it is not an HTTP URL.
    """
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_usable = False
    if not is_usable or not url.isascii() or any(one.isspace() for one in url):
        msg = f"{url!r} is not an HTTP URL: give {_EXAMPLES}."
        raise FetchError(msg)
    return url


def open_source(url: str, client: Client, extra_labels: Iterable[str]) -> Page | Prometheus:
    """
    Return the source of series at a URL.

    Args:
        url: of a metrics page or a Prometheus.
        client: for the requests.
        extra_labels: labels that scrapes add to the series of a metrics page.

    Raises:
        FetchError: it is neither a metrics page nor a Prometheus.
    """
    # A service counts the requests of this command, too: only the URL itself is requested from it.
    response = client.get(url)
    try:
        return Page(response, extra_labels)
    except FetchError as error:
        if url.rstrip("/").endswith("/metrics"):
            raise
        reason = str(error).removeprefix(url).strip(" .")
    api = client.get(_with_query(f"{url.rstrip('/')}/api/v1/query", query="vector(1)"))
    try:
        _api_data(api)
    except FetchError:
        msg = (
            f"{url} is neither a metrics page ({reason}) nor a Prometheus (/api/v1/query "
            f"{_unusable(api).partition(' ')[2].strip('.')}): give {_EXAMPLES}."
        )
        raise FetchError(msg) from None
    return Prometheus(url, client)


class Page:
    """The series of one metrics page."""

    external_reason = "from Prometheus or Kubernetes: not on the metrics page of a service"

    def __init__(self, response: Response, extra_labels: Iterable[str] = ()) -> None:
        """
        Parse the page.

        Args:
            response: of the service.
            extra_labels: labels that scrapes add, besides `catalog.TARGET_LABELS`.

        Raises:
            FetchError: it is not a metrics page.
        """
        header = Message()
        header["Content-Type"] = response.content_type
        parser = _PARSERS.get(header.get_content_type()) if response.content_type else None
        if response.status != HTTPStatus.OK or parser is None:
            raise FetchError(_unusable(response))
        self.hidden_labels = catalog.TARGET_LABELS | frozenset(extra_labels)
        self._series: dict[str, list[dict[str, str]]] = defaultdict(list)
        self._values: dict[str, float] = {}
        try:
            for family in parser(response.body.decode()):
                for sample in family.samples:
                    self._series[sample.name].append(sample.labels)
                    self._values[sample.name] = sample.value
        except (ValueError, KeyError, IndexError) as error:
            msg = f"{response.url} answered with invalid metrics: {error}."
            raise FetchError(msg) from None

    def names(self) -> Iterable[str]:
        """Return the names of the series."""
        return self._series

    def rows(self, selector: Selector, labels: Iterable[str] = ()) -> list[dict[str, str]]:  # noqa: ARG002
        """Return the labels of all series of that name: a page is one target."""
        return self._series.get(selector.name, [])

    def label_names(self, name: str) -> set[str]:
        """Return every label that series of that name have."""
        return {label for row in self._series.get(name, ()) for label in row}

    def value(self, name: str) -> float | None:
        """Return the value of the last series of that name, or None."""
        return self._values.get(name)

    def empty_reason(self, name: str) -> str:  # noqa: ARG002
        """Return nothing: recorded series are not on a page."""
        return ""


class Prometheus:
    """The series of a Prometheus, or of a server with the same API."""

    external_reason = ""
    hidden_labels: frozenset[str] = frozenset()

    def __init__(self, url: str, client: Client) -> None:
        self.url = url.rstrip("/")
        self._client = client
        self._responses: dict[object, Any] = {}
        self._rules: LoadedRules | None = None

    def api(self, path: str, **arguments: str) -> Any:
        """
        Return the data of an endpoint of the API, requested once.

        Raises:
            FetchError: there is none.
        """
        key = (path, *sorted(arguments.items()))
        if key not in self._responses:
            self._responses[key] = _api_data(self._client.get(_with_query(f"{self.url}/api/v1/{path}", **arguments)))
        return self._responses[key]

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Return the labels and the value of each element of an expression's result."""
        return [(one["metric"], float(one["value"][1])) for one in self.api("query", query=expression)["result"]]

    def names(self) -> Iterable[str]:
        """Return the names of all series."""
        return list(self.api("label/__name__/values"))

    def rows(self, selector: Selector, labels: Iterable[str]) -> list[dict[str, str]]:
        """Return the combinations of these labels that the selected series have."""
        grouping = ", ".join(sorted({one for one in labels if one.isidentifier()}))
        matchers = tuple(Matcher(one.label, "=~", ".+") if one.is_variable else one for one in selector.matchers)
        return [row for row, _ in self.query(f"count by ({grouping}) ({Selector(selector.name, matchers)})")]

    def label_names(self, name: str) -> set[str]:
        """Return every label that series of that name have."""
        return set(self.api("labels", **{"match[]": name})) - {"__name__"} if name else set()

    def empty_reason(self, name: str) -> str:
        """Return why there is no series of that name now, if a loaded rule records it."""
        recorded = {rule["name"] for rules in self.rules().values() for rule in rules if rule["type"] == "recording"}
        if name not in recorded:
            return ""
        return "recorded, but without a value now: the series that it reads are not present, or there were no requests"

    def rules(self) -> LoadedRules:
        """Return the loaded rules by group; each rule has its group as `group`."""
        if self._rules is None:
            self._rules = {}
            for group in self.api("rules")["groups"]:
                self._rules.setdefault(group["name"], []).extend(
                    {**rule, "group": group} for rule in group.get("rules") or ()
                )
        return self._rules


def _api_data(response: Response) -> Any:
    """
    Return the data of a response of Prometheus's API.

    Raises:
        RefusedError: it is an error.
        FetchError: it is not from Prometheus.
    """
    try:
        content = json.loads(response.body)
        status, data = content["status"], content.get("data")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise FetchError(_unusable(response)) from None
    if status != "success":
        url = response.url.partition("?")[0]
        msg = f"{url} answered {response.status}: {content.get('error', 'no reason given')}."
        raise RefusedError(msg)
    return data


def _unusable(response: Response) -> str:
    """Return why a response is not usable, and the fix."""
    url = response.url.partition("?")[0]
    if response.location:
        return (
            f"{url} answered {response.status} and redirects to {response.location}: give that URL if it is the right "
            f"one."
        )
    if response.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return f"{url} answered {response.status}: give a valid token with --token."
    if response.status == HTTPStatus.NOT_FOUND:
        return f"{url} answered 404: nothing is at this path."
    if response.status != HTTPStatus.OK:
        return f"{url} answered {response.status}."
    return f"{url} answered with {response.content_type or 'no content type'}, which Prometheus does not accept."


def _with_query(url: str, **arguments: str) -> str:
    return f"{url}?{urlencode(arguments)}"


def _without_user(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=host)), user
