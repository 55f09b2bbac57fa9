"""Records that take long to redact, to encode or to shorten, if the work for a record is not bounded."""

from __future__ import annotations

import array
import collections
import logging
import random
import time
import types
from functools import cache

from scaleobs import logs
from scaleobs.logs._logger import render_record

TEN_MB = 10_000_000

TEXTS = (
    *("x", '"password": "y', "a=b&", "token=z,", "é漢", "\x00", "\udc80", "'", "\\", "://", "{", "word ", "line: x\n"),
    *("\u2028", "ab%20", "%a=b&", "a=", "=", "authorization:", "x:", 'b"', "bearer ", "bearer xY1 ", "token", "token "),
    *("token=a ", "token='", '"token":', '"token":[', "token=[", '{"name":"token",', '"loc":("token"),', "token\n  "),
    *('name="token"\r\nx\r\n', "<token>", "token&quot;:", "token%3D", "cookie: a=b; ", "cookie=a; b=c; ", "api key "),
    *('token="\\"', "--token x ", "password 'x' ", "input_value={...} ", "it's token=a'b ", "\u0130", "漢token=é "),
    *("token:\n  x\n", "digest a=b,", "token=(", "token=f(a'", '{"token":"a","b":"c"},', "http://u:p@h/ ", "auth "),
)
"""Pieces that are repeated up to the length of a text."""


def text_of(piece, length):
    """Return a piece again and again."""
    return (piece * (length // len(piece) + 1))[:length]


@cache
def large_bytes():
    """Return 10 MB of random bytes."""
    return random.Random(7).randbytes(TEN_MB)


def parents(children):
    """Return an object whose children point back at it and at each other."""
    parent = {"children": []}
    parent["children"] += [{"parent": parent, "siblings": parent["children"], "i": i} for i in range(children)]
    return parent


def shared(width, depth):
    """Return a list that holds one list many times, and that one another, so deep."""
    value = ["leaf"] * width
    for _ in range(depth):
        value = [value] * width
    return value


def shared_dicts(width, depth):
    """Return the same of dicts."""
    value = {"token": "a", "x": "y"}
    for _ in range(depth):
        value = {f"k{number}": value for number in range(width)}
    return value


def deep(levels):
    """Return lists in lists."""
    value = []
    for _ in range(levels):
        value = [value]
    return value


def values(choose):
    """Return functions that make one value each; `choose` returns one member of a sequence."""
    length = choose([10_000, 16_000, 64_000, 70_000, TEN_MB])
    text = text_of(choose(TEXTS), length)
    return [
        lambda: parents(choose([5, 60, 120, 2000])),
        lambda: shared(choose([2, 10, 30]), choose([7, 10, 30])),
        lambda: shared_dicts(10, 7),
        lambda: deep(choose([10, 300, 50_000])),
        lambda: text,
        lambda: text,
        lambda: text,
        lambda: [text_of(choose(TEXTS), 16_000) for _ in range(2000)],
        lambda: {f"k{number}": text_of(choose(TEXTS), 16_000) for number in range(2000)},
        lambda: choose([bytes, bytearray, memoryview])(large_bytes()),
        lambda: b"a" * TEN_MB,
        lambda: [large_bytes()] * 50,
        lambda: [large_bytes()[:16_000]] * 2000,
        lambda: list(range(1_000_000)),
        lambda: {f"key{number * 0.7}": "v" for number in range(20_000)},
        lambda: {f"password{number}" * 50: "v" for number in range(2000)},
        lambda: {"x" * TEN_MB: 1, ("a" * TEN_MB,): 2},
        lambda: [10**4000] * 2000,
        lambda: [float("nan")] * 100_000,
        lambda: set(range(100_000)),
        lambda: collections.deque(range(100_000)),
        lambda: dict.fromkeys(range(100_000), "token=a").values(),
        lambda: dict(enumerate(range(100_000))).items(),
        lambda: ValueError(shared(10, 7)),
        lambda: ValueError("x" * TEN_MB),
        lambda: choose([collections.UserDict, types.MappingProxyType, collections.ChainMap])(parents(100)),
        lambda: [choose([["token", "x"], {"name": "token", "value": "x"}, ("--password", "x")])] * 5000,
        lambda: ["--token"] * 10_000,
        lambda: [f"token='{number}" for number in range(5000)],
        lambda: ['it\'s "fine": a=b'] * 5000,
        lambda: [f"x{number} y" for number in range(8000)],
        lambda: array.array("d", [1.0]) * 1_000_000,
    ]


def records(count, seed=1):
    """Yield the fields of that many records."""
    choose = random.Random(seed).choice
    for number in range(count):
        fields = {}
        for field in range(choose([1, 1, 1, 2, 4])):
            value = choose(values(choose))()
            fields[f"field{field}"] = choose([value, value, [value, {"a": value}], {"a": [value] * 10}])
        if number % 20 == 0:
            fields |= {f"more{field}": choose(["x y", "token=a", 1, "a=b"]) for field in range(5000)}
        yield fields


def seconds_of(fields, *, runs=3):
    """Return the line of a record, and the least processor time of this thread that it took."""
    chain, best = logs.processors("shop", "1.0"), float("inf")
    for _ in range(runs):
        record = logging.LogRecord("shop", logging.INFO, "", 0, "message", (), None)
        record.__dict__.update(fields)
        begun = time.thread_time()
        line = render_record(record, chain)
        best = min(best, time.thread_time() - begun)
    return line, best


def seconds_of_a_loop():
    """Return the least processor time of a loop of Python, with which that of a record is compared."""
    best = float("inf")
    for _ in range(5):
        begun, total = time.thread_time(), 0
        for number in range(100_000):
            total += number
        best = min(best, time.thread_time() - begun)
    return best


def description(fields):
    """Return the types of the fields, for the message of a test."""
    return ", ".join(
        f"{type(value).__name__} of {len(value)}" for value in fields.values() if hasattr(value, "__len__")
    )
