"""Names and sentences are plain English: code returns, counts and logs."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("src", "tests", "benchmarks", "examples", "tools")
FILES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))

WORDS_OF_NAMES = {
    *("tell", "tells", "telling", "told", "untold"),
    *("say", "says", "saying", "said"),
    *("ask", "asks", "asking", "asked"),
    *("know", "knows", "want", "wants", "wanted"),
    *("hear", "hears", "heard", "look", "looks", "looked", "looking"),
    *("here", "there", "mine", "theirs", "somebody", "anybody", "nobody", "nobodys", "whoever", "whatever", "wherever"),
}
"""Words that no name of ours has: each has a plainer one. `known`, `lookup` and `lookback` are plain."""

WORDS_OF_SENTENCES = re.compile(
    r"\b(tells?|telling|told|says?|saying|said|asks?|asking|asked|knows?|wants?|wanted|hears?|heard|speaks?|spoken|"
    r"nobody|somebody|anybody|whoever|whatever|wherever)\b",
    re.IGNORECASE,
)
"""Words of persons, which docstrings and comments do not have."""


def words(name):
    """Return the parts of a name in lower case: `look_again` and `LookAgain` have `look` and `again`."""
    return [part.lower() for part in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def defined_names(tree):
    """Yield each name that a file defines, with its line; names that it only reads may be those of others."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and not isinstance(node.ctx, ast.Load):
            yield node.attr, node.lineno
        elif isinstance(node, ast.alias) and node.asname:
            yield node.asname, node.lineno
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            yield node.name, node.lineno


@cache
def texts():
    """Return the text of each file by its path below the root."""
    return {str(path.relative_to(ROOT)): path.read_text() for path in FILES}


def refused_names(path, text):
    """Return the names of a file that have a word of `WORDS_OF_NAMES`, each with its place."""
    modules = [(part, 1) for part in Path(path).with_suffix("").parts]
    names = dict((*defined_names(ast.parse(text)), *modules))
    return [f"{path}:{line}: {name}" for name, line in names.items() if WORDS_OF_NAMES & set(words(name))]


def sentences(text):
    """Yield each line of the docstrings and comments of a file, with its number."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            for offset, line in enumerate(node.value.value.splitlines()):
                yield line.strip(), node.lineno + offset
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.string, token.start[0]


def refused_sentences(path, text):
    """Return the lines of a file's docstrings and comments that have a word of `WORDS_OF_SENTENCES`."""
    return [
        f"{path}:{number}: {line}"
        for line, number in sentences(text)
        if WORDS_OF_SENTENCES.search(re.sub(r"`[^`]*`|\"[^\"]*\"", "", line))
    ]


def test_names_are_plain():
    """No function, argument, variable, attribute, class or module has a word of the list as a part of its name."""
    assert [] == [name for path, text in texts().items() for name in refused_names(path, text)]


def test_sentences_are_plain():
    """No docstring or comment describes code as a person."""
    assert [] == [line for path, text in texts().items() for line in refused_sentences(path, text)]


@pytest.mark.parametrize(
    "code",
    [
        "def look_again(): ...",
        "async def tell(): ...",
        "class ToldExchange: ...",
        "def read(*, asked): ...",
        "wanted = 1",
        "for mine in (): ...",
        "self._said = 1",
        "import json as theirs",
        "HERE: int = 1",
        "print(said := 1)",
    ],
)
def test_refused_name_is_found(code):
    """Each way to define a name is seen."""
    assert 1 == len(refused_names("src/module.py", code))


@pytest.mark.parametrize(
    "code", ["lookup = known_routes", "socket.tell()", "def index(foretold): ...", "limiter.wanted"]
)
def test_other_name_is_not_found(code):
    """Whole parts count, and only of names that the file defines."""
    assert [] == refused_names("src/module.py", code)


def test_refused_sentence_is_found():
    """Docstrings and comments count; texts and quotations do not."""
    code = '"""Tells one."""\nx = 1  # It knows.\ny = """Tells two."""\n# As `tell` says "tell".\nz = "Tells three."\n'

    assert ["m:1", "m:2", "m:4"] == sorted(line[:3] for line in refused_sentences("m", code))
