"""Records that break log lines, and a program that logs them."""

from __future__ import annotations

import logging
import os
import sys

import structlog

import scaleobs


class Silent:
    """An object whose `repr` raises."""

    def __str__(self):
        raise RuntimeError

    __repr__ = __str__


class Endless:
    """An object whose `repr` calls itself."""

    def __str__(self):
        return str(self)


def circle():
    """Return a dict that holds itself."""
    around = {"a": 1}
    around["self"] = [around]
    return around


def deep(levels):
    """Return lists in lists."""
    value = []
    for _ in range(levels):
        value = [value]
    return value


def failing(depth=0, message="it failed"):
    """Return an exception that was raised so deep."""
    try:
        if depth:
            raise failing(depth - 1, message)
        raise ValueError(message)  # noqa: TRY301 - It is to have been raised.
    except ValueError as error:
        return error


def chained(length, message="link"):
    """Return the last exception of a chain, each raised while the one before was handled."""
    error = KeyError("the root cause")
    for number in range(length):
        following = RuntimeError(f"{message} {number}")
        following.__cause__ = error
        error = following
    return error


VALUES = [
    "a\nb\r\n\x00\x1b[31m\x7f\x85\u2028\u2029",
    "\udc80",
    b"\xff\xfe",
    float("nan"),
    float("-inf"),
    "x" * 1_000_000,
    "\x00" * 20_000,
    "\U0001f389" * 20_000,
    "\u2028" * 5_000,
    {f"key{number}": "v" * 50 for number in range(3000)},
    {"k" * 20_000: 1},
    list(range(20_000)),
    deep(500),
    deep(20),
    circle(),
    Silent(),
    Endless(),
    {Silent(): Silent(), None: 1, (1, 2): 2},
    {1, 2},
    10**4000,
    10**5000,
    failing(message="m" * 100_000),
    ExceptionGroup("several", [failing(), ExceptionGroup("more", [failing(message="\u2028" * 9000)])]),
]


def log_all(count, worker):
    """Write so many lines, of structlog and of the standard library by turns."""
    stdlib_logger, ours = logging.getLogger("shop"), structlog.get_logger("shop")
    for number in range(count):
        value = VALUES[number % len(VALUES)] if number % 4 == 0 else number
        which = f"{worker}:{number}"
        if number % 8 == 1:
            stdlib_logger.error(
                "with an exception", extra={"which": which}, exc_info=chained(number % 40, "m" * number)
            )
        elif number % 2:
            stdlib_logger.info("%s", value, extra={"which": which, "level": "mine", "value": value})
        else:
            ours.warning("said", which=which, value=value, timestamp="mine", logger={"not": "ours"})


if __name__ == "__main__":
    processes, lines = map(int, sys.argv[1:])
    scaleobs.configure_logging(service="shop", log_format="json")
    children = []
    for worker in range(processes):
        child = os.fork()
        if not child:
            log_all(lines // processes, worker)
            os._exit(0)
        children.append(child)
    sys.exit(max(os.waitpid(child, 0)[1] for child in children))
