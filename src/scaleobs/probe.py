"""
`python -m scaleobs.probe`: ask a service on this machine how it is, where an image has no curl.

It starts in next to no more time than Python itself, so that a busy container passes its health check: it loads nothing
that it doesn't need, and `_socket`, which `socket` would take five times as long to dress up.
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
    Ask a probe of the service on this machine, and say in one line what it answered.

    Args:
        arguments: the probe, `live` where none is given; `--port`; `--timeout` in seconds, for all of it.

    Returns:
        0 where it answered 200, otherwise 1, as Docker's `HEALTHCHECK` wants it.
    """
    is_up, line = _answer(arguments)
    sys.stdout.write(line + "\n")
    return 0 if is_up else 1


def _answer(arguments: list[str]) -> tuple[bool, str]:
    try:
        probe, port, timeout = _understood(arguments)
    except ValueError as error:
        return False, f"{error}; {_USAGE}"
    variable, path = _PATHS[probe]
    try:
        status, body = _asked(os.environ.get(variable) or path, port, timeout)
    except (OSError, ValueError) as error:
        return False, f"{probe}: DOWN, no answer from port {port}: {error}"
    if status == 200:  # noqa: PLR2004 - Naming it would mean to load http.
        return True, f"{probe}: UP"
    return False, f"{probe}: DOWN, {status}{_names(body)}"


def _understood(arguments: list[str]) -> tuple[str, int, float]:
    probe, values = "live", {"--port": "3000", "--timeout": "2"}
    given = iter(arguments)
    for argument in given:
        name, has_value, value = argument.partition("=")
        if name in values:
            values[name] = value if has_value else next(given, "")
        elif argument in _PATHS:
            probe = argument
        else:
            msg = f"{argument!r} is neither a probe nor an option"
            raise ValueError(msg)
    port, timeout = values["--port"], values["--timeout"]
    if not (port.isdecimal() and 0 < int(port) <= _HIGHEST_PORT):
        msg = f"--port {port!r} is no port"
        raise ValueError(msg)
    try:
        seconds = float(timeout)
    except ValueError:
        seconds = 0
    if not 0 < seconds < float("inf"):
        msg = f"--timeout {timeout!r} is no number of seconds above 0"
        raise ValueError(msg)
    return probe, int(port), seconds


def _asked(path: str, port: int, timeout: float) -> tuple[int, bytes]:
    """Return the status and the body of an answer."""
    connection = _socket.socket(_socket.AF_INET, _socket.SOCK_STREAM)
    limit = monotonic() + timeout

    def left() -> float:
        seconds = limit - monotonic()
        if seconds <= 0:
            raise TimeoutError
        return seconds

    answer = b""
    try:
        connection.settimeout(left())
        connection.connect(("127.0.0.1", port))
        connection.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        while len(answer) < _LONGEST_ANSWER:
            connection.settimeout(left())
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
        msg = "what answered speaks no HTTP"
        raise ValueError(msg)
    return int(words[1]), body


def _names(body: bytes) -> str:
    """Return the checks that are down, where the body names any."""
    import json

    try:
        down = [check["name"] for check in json.loads(body)["checks"] if check["status"] != "UP"]
    except (ValueError, KeyError, TypeError):
        return ""
    return ": " + ", ".join(map(str, down)) if down else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
