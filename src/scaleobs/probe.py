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

_USAGE = "usage: python -m scaleobs.probe [live|ready|startup] [--port 3000] [--timeout 2]"
_PATHS = {
    "live": ("SCALEOBS_HEALTH_PATH", "/health"),
    "ready": ("SCALEOBS_READY_PATH", "/ready"),
    "startup": ("SCALEOBS_STARTUP_PATH", "/startup"),
}
_HIGHEST_PORT = 65_535
_LONGEST_ANSWER = 1 << 16


def main(arguments: list[str]) -> int:
    """
    Request a probe of the service on this machine, and print the result as one line.

    Args:
        arguments: the probe, by default `live`; `--port`; `--timeout` in seconds, of the whole exchange.

    Returns:
        0 if the probe answered 200, otherwise 1, as Docker's `HEALTHCHECK` requires.
    """
    is_up, line = _answer(arguments)
    sys.stdout.write(line + "\n")
    return 0 if is_up else 1


def _answer(arguments: list[str]) -> tuple[bool, str]:
    try:
        probe, port, timeout = _parse(arguments)
    except ValueError as error:
        return False, f"{error}; {_USAGE}"
    variable, path = _PATHS[probe]
    try:
        status, body = _request(os.environ.get(variable) or path, port, timeout)
    except (OSError, ValueError) as error:
        return False, f"{probe}: DOWN, no answer from port {port}: {error}"
    if status == 200:  # noqa: PLR2004 - A name for it would mean to import http.
        return True, f"{probe}: UP"
    return False, f"{probe}: DOWN, {status}{_names(body)}"


def _parse(arguments: list[str]) -> tuple[str, int, float]:
    probe, values = "live", {"--port": "3000", "--timeout": "2"}
    rest = iter(arguments)
    for argument in rest:
        name, has_value, value = argument.partition("=")
        if name in values:
            values[name] = value if has_value else next(rest, "")
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
    return probe, int(port), seconds


def _request(path: str, port: int, timeout: float) -> tuple[int, bytes]:
    """Return the status and the body of an answer."""
    connection = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    limit = monotonic() + timeout

    def remaining() -> float:
        seconds = limit - monotonic()
        if seconds <= 0:
            raise TimeoutError
        return seconds

    answer = b""
    try:
        connection.settimeout(remaining())
        connection.connect(("127.0.0.1", port))
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        while len(answer) < _LONGEST_ANSWER:
            connection.settimeout(remaining())
            piece = connection.recv(_LONGEST_ANSWER)
            answer += piece
            if not piece:
                break
    except TimeoutError:
        msg = f"it took longer than {timeout:g} s"
        raise TimeoutError(msg) from None
    finally:
        connection.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():  # noqa: PLR2004
        msg = "the answer is not HTTP"
        raise ValueError(msg)
    return int(words[1]), body


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
