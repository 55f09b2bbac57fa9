"""HTTP/1: the head of a request, of which nothing is trusted, and the bytes of an answer."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from email.utils import formatdate
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import unquote

from scaleobs._http.answer import Answer

MAX_HEAD = 16 * 1024
"""The bytes of the longest head that is read."""

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_NAME = re.compile(_TOKEN)
_METHOD_SO_FAR = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}(?: |\Z)")
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") ([!-~]+) HTTP/1\.([0-9])")
_HOST = rb"(?:\[[0-9A-Fa-f:.]+\]|[^]\[:/?#@\\]+)(?::[0-9]*)?"
_TARGET = re.compile(rb"(?:(?i:https?)://" + _HOST + rb"(?=[/?#]|\Z)|(?=/))(/[^?#]*)?(?:\?([^#]*))?(?:#.*)?")
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_END = re.compile(rb"\n\r?\n")


class BadRequestError(ValueError):
    """The bytes are no request of HTTP/1."""


class Request(NamedTuple):
    """
    A request without its body, which no endpoint reads.

    Attributes:
        path: percent-decoded.
        headers: by name in lower case; several with the same name are joined, as RFC 9110, section 5.3 has it.
        may_be_chunked: whether the client reads an answer in chunks.
    """

    method: str
    path: str
    query: str
    headers: dict[str, str]
    may_be_chunked: bool

    def header(self, name: str) -> str:
        """Return the value of a header; empty without one."""
        return self.headers.get(name.lower(), "")


def read(received: bytes) -> Request | None:
    """
    Return the request that a client has sent; `None` if its head is not complete.

    Raises:
        BadRequestError: this is no request, and nothing that follows makes it one.
    """
    data = received.lstrip(b"\r\n")  # RFC 9112, section 2.2.
    line, has_line, _ = data.partition(b"\n")
    if not has_line:
        if len(received) >= MAX_HEAD or (data and not _METHOD_SO_FAR.match(data)):
            raise BadRequestError
        return None
    found = _REQUEST_LINE.fullmatch(line.removesuffix(b"\r"))
    target = _TARGET.fullmatch(found[2]) if found else None
    if found is None or target is None:
        raise BadRequestError
    end = _END.search(data)
    if len(data) >= MAX_HEAD and (end is None or end.start() > MAX_HEAD):
        raise BadRequestError
    if end is None:
        return None
    headers = _headers(data[len(line) + 1 : end.start()])
    _refuse_wrong_length(headers)
    path, query = (target[1] or b"/").decode("ascii"), (target[2] or b"").decode("ascii")
    return Request(found[1].decode("ascii"), unquote(path), query, headers, may_be_chunked=found[3] != b"0")


def _headers(head: bytes) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in head.split(b"\n") if head else ():
        name, has_value, value = line.removesuffix(b"\r").partition(b":")
        if not has_value or not _NAME.fullmatch(name) or _CONTROL.search(value):
            raise BadRequestError
        key, text = name.decode("ascii").lower(), value.strip(b" \t").decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


def _refuse_wrong_length(headers: dict[str, str]) -> None:
    length, coding = headers.get("content-length"), headers.get("transfer-encoding")
    is_number = length is None or (length.isascii() and length.isdecimal())
    if not is_number or (coding is not None and (length is not None or coding.lower() != "chunked")):
        raise BadRequestError


def parts(answer: Answer, request: Request | None) -> Iterator[bytes]:
    """
    Yield the bytes of an answer; the connection is closed after it, so that no idle client occupies it.

    A page whose length is not known has chunks: otherwise one that breaks off would seem to be whole.

    Args:
        answer: to the request.
        request: `None` if it can't be read.
    """
    is_chunked = answer.rest is not None and request is not None and request.may_be_chunked
    lines = [
        f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}",
        "Server: scaleobs",
        f"Date: {formatdate(usegmt=True)}",
        "Connection: close",
        *(f"{name}: {value}" for name, value in answer.headers),
    ]
    if answer.rest is None:
        lines.append(f"Content-Length: {len(answer.body)}")
    elif is_chunked:
        lines.append("Transfer-Encoding: chunked")
    head = "\r\n".join([*lines, "", ""]).encode("latin-1")
    if request is not None and request.method == "HEAD":
        yield head
        return
    pieces: Iterator[bytes] = filter(None, itertools.chain([answer.body], answer.rest or ()))
    if is_chunked:
        pieces = itertools.chain((b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces), [b"0\r\n\r\n"])
    first = next(pieces, b"")
    yield head + first
    yield from pieces
