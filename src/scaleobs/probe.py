"""
`python -m scaleobs.probe`: the health check of a container whose image has no curl.

It starts almost as fast as Python itself, so that the check of a busy container passes: it imports only what it needs,
and `_socket` instead of `socket`, whose import takes five times as long.
"""

from __future__ import annotations

import _socket
import os
import sys
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_USAGE = "usage: python -m scaleobs.probe [live|ready|startup] [--port 3000] [--timeout 2] [--tls]"
_PATHS = {
    "live": ("SCALEOBS_HEALTH_PATH", "/health"),
    "ready": ("SCALEOBS_READY_PATH", "/ready"),
    "startup": ("SCALEOBS_STARTUP_PATH", "/startup"),
}
_HIGHEST_PORT = 65_535
_LONGEST_ANSWER = 1 << 16
_DIAGNOSIS_SECONDS = 0.5
_HTTP_2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"
"""What a client of HTTP/2 sends first (RFC 9113, section 3.4)."""


def main(arguments: list[str]) -> int:
    """
    Request a probe of the service on this machine, and print the result as one line.

    Args:
        arguments: the probe, by default `live`; `--port`; `--timeout` in seconds, of the whole exchange; `--tls` for a
            service that uses TLS, whose certificate is not verified: the connection does not leave the machine.

    Returns:
        0 if the probe answered 200, otherwise 1, as Docker's `HEALTHCHECK` requires.
    """
    is_up, line = _answer(arguments)
    sys.stdout.write(line + "\n")
    return 0 if is_up else 1


def _answer(arguments: list[str]) -> tuple[bool, str]:
    try:
        probe, port, timeout, is_tls = _parse(arguments)
    except ValueError as error:
        return False, f"{error}; {_USAGE}"
    variable, path = _PATHS[probe]
    try:
        status, body = _request(os.environ.get(variable) or path, port, timeout, is_tls=is_tls)
    except TimeoutError:
        return False, f"{probe}: DOWN, no answer from port {port}: it took longer than {timeout:g} s"
    except (OSError, ValueError) as error:
        return False, f"{probe}: DOWN, no answer from port {port}: {error}"
    if status == 200:  # noqa: PLR2004 - A name for it would mean to import http.
        return True, f"{probe}: UP"
    return False, f"{probe}: DOWN, {status}{_names(body)}"


def _parse(arguments: list[str]) -> tuple[str, int, float, bool]:
    probe, values, is_tls = "live", {"--port": "3000", "--timeout": "2"}, False
    rest = iter(arguments)
    for argument in rest:
        name, has_value, value = argument.partition("=")
        if name in values:
            values[name] = value if has_value else next(rest, "")
        elif argument == "--tls":
            is_tls = True
        elif argument in _PATHS:
            probe = argument
        else:
            msg = f"{argument!r} is neither a probe nor an option"
            raise ValueError(msg)
    port, timeout = values["--port"], values["--timeout"]
    if not (port.isdecimal() and 0 < int(port) <= _HIGHEST_PORT):
        msg = f"--port {port!r} is not a port"
        raise ValueError(msg)
    try:
        seconds = float(timeout)
    except ValueError:
        seconds = 0
    if not 0 < seconds < float("inf"):
        msg = f"--timeout {timeout!r} is not a number of seconds above 0"
        raise ValueError(msg)
    return probe, int(port), seconds, is_tls


def _request(path: str, port: int, timeout: float, *, is_tls: bool) -> tuple[int, bytes]:
    """
    Return the status and the body of an answer.

    Raises:
        TimeoutError: the time is over.
        OSError: nothing answers; the message is a sentence.
        ValueError: what answers uses something else; the message is a sentence.
    """
    limit = monotonic() + timeout
    request = f"GET {path} HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
    reason = _CLOSED
    try:
        answer = _fetch_by_tls(request, port, timeout, limit) if is_tls else _fetch(request, port, limit)
    except TimeoutError:
        raise
    except ConnectionRefusedError:
        msg = "nothing listens on 127.0.0.1"
        raise ConnectionRefusedError(msg) from None
    except OSError as error:
        answer, reason = b"", str(error)
    status = _status(answer)
    if status != 400 and status:  # noqa: PLR2004 - Some servers answer so if TLS is missing.
        return status, answer.partition(b"\r\n\r\n")[2]
    try:
        limit = min(limit, monotonic() + _DIAGNOSIS_SECONDS)
        other = _other_protocol(answer, reason, request, port, limit, is_tls=is_tls)
    except OSError:
        other = ""
    if status and not other:
        return status, b""
    if answer:
        reason = f"the answer is not HTTP: it begins with {answer[:40]!r}"
    raise ValueError(other or reason)


def _status(answer: bytes) -> int:
    """Return the status of an answer; 0 if it isn't HTTP."""
    words = answer.partition(b"\r\n")[0].split(None, 2)
    is_http = len(words) > 1 and words[0].startswith(b"HTTP/") and words[1].isdigit()
    return int(words[1]) if is_http else 0


def _fetch(request: bytes, port: int, limit: float, *, tls: Any = None, is_whole: bool = True) -> bytes:
    """
    Return the answer to a request, or its beginning.

    Args:
        request: what is sent.
        port: on this machine.
        limit: when the time is over, by `time.monotonic`.
        tls: the context of the connection, if it has TLS.
        is_whole: whether the answer is read until the connection ends.
    """
    connection, answer = _connect(port, limit, tls), b""
    try:
        connection.settimeout(_remaining(limit))
        connection.sendall(request)
        while len(answer) < _LONGEST_ANSWER:
            connection.settimeout(_remaining(limit))
            piece = connection.recv(_LONGEST_ANSWER)
            answer += piece
            if not (piece and is_whole):
                break
    except ConnectionResetError:
        if not _status(answer):  # After a complete answer, a server may end the connection as it likes.
            raise
    finally:
        connection.close()
    return answer


def _connect(port: int, limit: float, tls: Any) -> Any:
    connection = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    try:
        connection.settimeout(_remaining(limit))
        connection.connect(("127.0.0.1", port))
        return connection if tls is None else tls.wrap_socket(connection)
    except BaseException:
        connection.close()
        raise


def _remaining(limit: float) -> float:
    seconds = limit - monotonic()
    if seconds <= 0:
        raise TimeoutError
    return seconds


def _fetch_by_tls(request: bytes, port: int, timeout: float, limit: float) -> bytes:
    """Do the same as `_fetch` with TLS."""
    tls = _tls()
    first = _Handshake(tls, limit - timeout / 2)
    try:
        return _fetch(request, port, limit, tls=first)
    except TimeoutError:
        # A service without TLS may wait for the rest of what it takes for a request; one with TLS may be slow.
        if first.is_done:
            raise
    if _uses_http(request, port, limit):
        raise ValueError(_WITHOUT_TLS)
    return _fetch(request, port, limit, tls=tls)


class _Handshake:
    """A context whose handshakes have less time than the exchange."""

    def __init__(self, tls: Any, limit: float) -> None:
        self._tls = tls
        self._limit = limit
        self.is_done = False

    def wrap_socket(self, connection: Any) -> Any:
        connection.settimeout(_remaining(self._limit))
        wrapped = self._tls.wrap_socket(connection)
        self.is_done = True
        return wrapped


def _tls() -> Any:
    import ssl  # It takes longer than the rest of the probe.

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context


_CLOSED = "it closed the connection without an answer"
_WITH_TLS = "it uses TLS; add --tls"
_WITHOUT_TLS = "it uses HTTP without TLS; leave out --tls"
_OTHER_HTTP = "it uses HTTP/2 alone, and the probe HTTP/1.1; set management_port, and request that port"
_CERTIFICATE = (
    "it closed the connection, maybe since it requires a certificate of its clients; "
    "set management_port, and request that port"
)


def _other_protocol(answer: bytes, reason: str, request: bytes, port: int, limit: float, *, is_tls: bool) -> str:
    """Return what the service uses, and the fix; empty if that is unknown."""
    if _is_http_2(answer) or _has_alert(reason, "no application protocol"):
        return _OTHER_HTTP
    if is_tls:
        if not answer and _uses_http(request, port, limit):
            return _WITHOUT_TLS
        is_closed = not answer and reason == _CLOSED
        return _CERTIFICATE if is_closed or _has_alert(reason, "certificate required") else ""
    if _uses_tls(port, limit):
        return _WITH_TLS
    return _OTHER_HTTP if not answer and _is_http_2(_fetch(_HTTP_2, port, limit, is_whole=False)) else ""


def _uses_http(request: bytes, port: int, limit: float) -> bool:
    try:
        return bool(_status(_fetch(request, port, limit, is_whole=False)))
    except TimeoutError:
        raise
    except OSError:
        return False


def _uses_tls(port: int, limit: float) -> bool:
    try:
        _connect(port, limit, _Handshake(_tls(), limit)).close()
    except OSError as error:
        return _has_alert(str(error), "no application protocol")
    return True


def _has_alert(reason: str, alert: str) -> bool:
    """Return whether the reason of an error is an alert of TLS, which versions of Python write differently."""
    return alert in reason.lower().replace("_", " ")


def _is_http_2(answer: bytes) -> bool:
    """Return whether an answer begins with the settings of HTTP/2 (RFC 9113, section 6.5)."""
    return answer[3:4] == b"\4" and answer[4:9] in (b"\0\0\0\0\0", b"\1\0\0\0\0")


def _names(body: bytes) -> str:
    """Return the names of the checks that are down, from the body of a probe."""
    import json

    try:
        down = [check["name"] for check in json.loads(body)["checks"] if check["status"] != "UP"]
    except (ValueError, KeyError, TypeError):
        return ""
    return ": " + ", ".join(map(str, down)) if down else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
