"""Any value becomes one line of JSON, the same with and without orjson."""

from __future__ import annotations

import dataclasses
import enum
import json
import subprocess
import sys
import uuid
from collections import OrderedDict, UserDict, defaultdict, namedtuple
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from scaleobs.logs import _encoding


class Colour(enum.Enum):
    """A plain enum."""

    RED = "red"
    BLUE = (1, 2)


class Level(enum.IntEnum):
    """A number that is an enum."""

    HIGH = 3


class Word(enum.StrEnum):
    """A string that is an enum."""

    A = "a"


class OldWord(str, enum.Enum):  # noqa: UP042 - This form is tested.
    """The older form, whose `str` is not its value."""

    A = "a"


class Silent:
    """Has no text."""

    def __str__(self):
        raise RuntimeError

    __repr__ = __str__


class BrokenMapping(UserDict):
    """Can't be read."""

    def __iter__(self):
        raise RuntimeError

    def items(self):
        """Fail."""
        raise RuntimeError


class BrokenList(list):
    """Can't be read."""

    def __iter__(self):
        raise RuntimeError


class BrokenTime(datetime):
    """Can't be written."""

    def isoformat(self, *_):
        """Fail."""
        raise RuntimeError


class Text(str):  # noqa: SLOT000 - As applications write it.
    """A string with another text."""

    def __str__(self):
        return "else"


@dataclasses.dataclass
class Order:
    """A dataclass."""

    number: int = 7


Point = namedtuple("Point", "x y")  # noqa: PYI024 - This form is tested.


def circle():
    """Return a dict that contains itself."""
    around = {"a": 1}
    around["self"] = [around]
    return around


def deep(levels):
    """Return lists in lists."""
    value = []
    for _ in range(levels):
        value = [value]
    return value


NAIVE = datetime(2026, 1, 2)  # noqa: DTZ001 - Applications have them.

VALUES = {
    "newlines": "a\nb\r\n\x00\x1b[31m\x7f\x85\x9b\u2028\u2029",
    "unicode": "ü 漢 🎉",
    "lone surrogate": "a\udc80b\ud800",
    "surrogate key": {"\udcff": 1},
    "not a number": [float("nan"), float("inf"), float("-inf"), 1e308, -0.0, 1e16],
    "bytes": [b"abc", b"\xff\xfe", bytearray(b"x")],
    "memoryview": memoryview(b"x"),
    "sets": [set(), {1}, frozenset({"a"})],
    "enums": [Colour.RED, Colour.BLUE, Level.HIGH, Word.A, OldWord.A],
    "times": [datetime(2026, 1, 2, 3, 4, 5, 6, UTC), NAIVE, date(2026, 1, 2), time(1, 2), timedelta(1)],
    "uuid": uuid.UUID(int=7),
    "path and decimal": [Path("/x"), Decimal("1.10")],
    "tuples": [(1, 2), Point(1, 2)],
    "mappings": [OrderedDict(a=1), defaultdict(list, a=[1]), UserDict(a=1)],
    "dataclass": Order(),
    "exception": ValueError("x"),
    "class": Path,
    "function": len,
    "big integers": [2**63, 2**64, -(2**70), True],
    "huge integer": 10**5000,
    "huge integer within": {"a": [10**5000, 1]},
    "odd keys": {7: 1, 1.5: 2, None: 3, True: 4, (1, 2): 5, b"k": 6, OldWord.A: 7, Level.HIGH: 8, Colour.RED: 9},
    "silent": Silent(),
    "silent within": {"a": [Silent(), 1], Silent(): 2},
    "circle": circle(),
    "deep": deep(50_000),
    "broken mapping": [BrokenMapping(a=1), 1],
    "broken list": [BrokenList([1]), 1],
    "broken time": [BrokenTime(2026, 1, 2), 1],
    "text": Text("text"),
    "generator": (number for number in range(3)),
}


@pytest.mark.parametrize("name", VALUES)
def test_value_becomes_one_line_of_json(name):
    """No value raises, breaks the line, or results in invalid JSON."""
    line = _encoding.encode({"event": "x", "value": VALUES[name], "after": 1})
    found = json.loads(line, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))

    assert ("x", 1) == (found["event"], found["after"])
    assert 1 == len(line.splitlines())
    assert not any(ord(char) < 32 or 127 <= ord(char) < 160 or char in "\u2028\u2029" for char in line)
    assert line.encode()


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("a\nb\u2028", "a\nb\u2028"),
        (float("nan"), None),
        (b"\xff", "\\xff"),
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        (OldWord.A, "a"),
        ({3}, [3]),
        (datetime(2026, 1, 2, 3, tzinfo=UTC), "2026-01-02T03:00:00+00:00"),
        (uuid.UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        (2**70, 2**70),
        ({1: "a", None: "b", False: "c"}, {"1": "a", "null": "b", "false": "c"}),
        (10**5000, "<int that raises ValueError>"),
        (Silent(), "<Silent whose text raises RuntimeError>"),
        ("\udc80", "\udc80"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_value_is_kept(value, found):
    """The value in the JSON is equal, or the nearest one that JSON has."""
    assert found == json.loads(_encoding.encode({"value": value}))["value"]


WITHOUT = """
import json, sys
sys.modules["orjson"] = None
sys.path.insert(0, {tests!r})
import test_encoding as tests
from scaleobs.logs import _encoding
assert "orjson" not in _encoding.dumps.__module__, _encoding.dumps
for name, value in tests.VALUES.items():
    print(json.dumps([name, _encoding.encode({{"event": "x", "value": value, "after": 1}})]))
"""


def test_orjson_changes_nothing_but_the_speed():
    """Each value results in the same object with orjson and without."""
    pytest.importorskip("orjson")
    assert _encoding.dumps.__module__ == "orjson"
    code = WITHOUT.format(tests=str(Path(__file__).parent))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert "" == done.stderr
    without = dict(map(json.loads, done.stdout.splitlines()))

    with_orjson = {name: _encoding.encode({"event": "x", "value": value, "after": 1}) for name, value in VALUES.items()}
    # The text of the first contains an address; orjson does not call the `__iter__` of the second.
    skip = ("generator", "broken list")
    assert {name: json.loads(line) for name, line in with_orjson.items() if name not in skip} == {
        name: json.loads(line) for name, line in without.items() if name not in skip
    }
