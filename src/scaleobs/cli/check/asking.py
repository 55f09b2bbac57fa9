"""Asking over HTTP, and saying in one sentence why there was no answer."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import ssl
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode, urlsplit, urlunsplit

_MOST_BYTES = 200_000_000
_PIECE = 1 << 16


class CantAskError(Exception):
    """There was no answer that could be read; the message says why and what to do."""


class RefusedError(CantAskError):
    """A Prometheus answered that it won't answer this."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    url: str
    status: int
    content_type: str
    body: bytes
    leads_to: str = ""


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follow nothing: where a redirect leads, a token has no business."""

    def redirect_request(self, *_: Any) -> None:
        """Leave the answer as it is."""


@dataclass(frozen=True, slots=True)
class Asking:
    """
    How to ask.

    Args:
        timeout: the seconds that one answer may take, all of it.
        token: sent as a bearer token, where there is one.
    """

    timeout: float = 10
    token: str | None = None

    def get(self, url: str) -> Answer:
        """
        Return the answer to GET, whatever its status.

        Raises:
            CantAskError: there is none.
        """
        address, user = _without_user(url)
        headers = {"Accept": "text/plain;version=0.0.4, application/json;q=0.5, */*;q=0.1", "User-Agent": "scaleobs"}
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        elif user:
            headers["Authorization"] = f"Basic {base64.b64encode(user.encode()).decode()}"
        until = time.monotonic() + self.timeout
        try:
            request = urllib.request.Request(address, headers=headers)  # noqa: S310 - Its scheme is looked at.
            with urllib.request.build_opener(_Stay).open(request, timeout=self.timeout) as answer:
                return self._read(answer, address, until)
        except urllib.error.HTTPError as error:
            with error:
                return self._read(error, address, until)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise CantAskError(self._why(address, error)) from None

    def _read(self, answer: Any, url: str, until: float) -> Answer:
        body = bytearray()
        try:
            while piece := answer.read1(_PIECE) if hasattr(answer, "read1") else answer.read(_PIECE):
                body += piece
                if time.monotonic() > until:
                    raise TimeoutError
                if len(body) > _MOST_BYTES:
                    msg = f"{url} answers with more than {_MOST_BYTES // 1_000_000} MB."
                    raise CantAskError(msg)
        except (OSError, http.client.HTTPException) as error:
            raise CantAskError(self._why(url, error)) from None
        headers = answer.headers
        return Answer(url, answer.status, headers.get("Content-Type") or "", bytes(body), headers.get("Location") or "")

    def _why(self, url: str, error: Exception) -> str:
        cause = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(cause, TimeoutError):
            return f"{url} did not answer within {self.timeout:g} s: give more with --timeout."
        if isinstance(cause, ssl.SSLCertVerificationError):
            return (
                f"{url} has a certificate that can't be trusted ({cause.verify_message}): "
                "set SSL_CERT_FILE to the certificate of its authority."
            )
        if isinstance(cause, ssl.SSLError):
            return f"{url} can't be asked over TLS ({cause.reason or cause}): if it speaks plain HTTP, give http://."
        if isinstance(cause, http.client.RemoteDisconnected | http.client.BadStatusLine | ConnectionResetError):
            return f"{url} ended the connection without an answer in HTTP: if it speaks TLS, give https://."
        if isinstance(cause, socket.gaierror):
            return f"{url} can't be found: there is no host {urlsplit(url).hostname!r}."
        if isinstance(cause, OSError):
            return f"{url} can't be reached: {cause.strerror or cause}."
        return f"{url} can't be asked: {cause}."


def checked_url(url: str) -> str:
    """
    Return the address.

    Raises:
        CantAskError: it is none of HTTP.
    """
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_usable = False
    if not is_usable or not url.isascii() or any(one.isspace() for one in url):
        msg = f"{url!r} is no address: give one such as http://localhost:8000/metrics or http://prometheus:9090."
        raise CantAskError(msg)
    return url


def json_of(answer: Answer) -> Any:
    """
    Return the data of an answer of Prometheus's API.

    Raises:
        RefusedError: it is an error.
        CantAskError: it is nothing of Prometheus.
    """
    try:
        content = json.loads(answer.body)
        status, data = content["status"], content.get("data")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CantAskError(refusal(answer)) from None
    if status != "success":
        msg = f"{answer.url.partition('?')[0]} answered {answer.status}: {content.get('error', 'no reason given')}."
        raise RefusedError(msg)
    return data


def refusal(answer: Answer) -> str:
    """Return what an answer says that isn't what was asked for."""
    url = answer.url.partition("?")[0]
    if answer.leads_to:
        return f"{url} answered {answer.status} and leads to {answer.leads_to}: give that address, if it is the one."
    if answer.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return f"{url} answered {answer.status}: give the token that it wants with --token."
    if answer.status == HTTPStatus.NOT_FOUND:
        return f"{url} answered 404: nothing is there."
    if answer.status != HTTPStatus.OK:
        return f"{url} answered {answer.status}."
    return f"{url} answered with {answer.content_type or 'no content type'}, which is not what Prometheus would read."


def with_query(url: str, **arguments: str) -> str:
    """Return an address with arguments."""
    return f"{url}?{urlencode(arguments)}"


def _without_user(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=host)), user
