"""No detours at run time: a protocol has several implementers, a getter only returns."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "scaleobs"
FILES = sorted(SOURCE.rglob("*.py"))

FOREIGN = {"_DjangoHandler", "_FlaskApp", "_StarletteApp"}
"""Protocols of classes that are not ours."""

Function = ast.FunctionDef | ast.AsyncFunctionDef

GETTERS = ("is_", "has_", "are_", "all_", "last_", "_is_", "_has_", "_are_", "_all_")
MUTATORS = {"add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem", "popleft"}
MUTATORS |= {"put", "remove", "set", "setdefault", "update", "write"}

CACHES = {
    "_workers/ledger.py EntryLayout.has_grown",  # Compiled structs of the entries.
    "logs/_redaction.py Redact._is_secret",  # Verdicts by name.
    "_routes/table.py Entry.is_below",  # A compiled pattern.
}
"""Getters that keep what they have computed; a second call returns the same without it."""


@cache
def trees():
    """Return each file's syntax tree by its path below the package."""
    return {str(path.relative_to(SOURCE)): ast.parse(path.read_text()) for path in FILES}


def classes(tree):
    """Return the classes of a file."""
    return [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]


def functions(scope):
    """Return the functions of a module or class by name."""
    return {node.name: node for node in scope.body if isinstance(node, Function)}


def names(nodes):
    """Return the last names of expressions: of decorators, or of base classes."""
    parts = [node.func if isinstance(node, ast.Call) else node for node in nodes]
    parts = [node.value if isinstance(node, ast.Subscript) else node for node in parts]
    return {node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "") for node in parts}


def shape(function):
    """Return what callers see of a method: its name and its parameters."""
    arguments = function.args
    return function.name, tuple(one.arg for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs))


def implementers(protocol, everything):
    """Return the classes that have all methods of a protocol, their own or inherited ones."""
    expected = {shape(method) for method in functions(protocol).values()}
    by_name = {one.name: one for one in everything}

    def methods(one):
        inherited = [methods(by_name[base]) for base in names(one.bases) if base in by_name]
        return {shape(method) for method in functions(one).values()}.union(*inherited)

    return {one.name for one in everything if "Protocol" not in names(one.bases) and expected <= methods(one)}


def test_protocols_have_several_implementers():
    """A protocol stands for several classes; one class is named itself."""
    everything = [one for tree in trees().values() for one in classes(tree)]
    protocols = [one for one in everything if "Protocol" in names(one.bases) and one.name not in FOREIGN]
    lonely = {one.name: implementers(one, everything) for one in protocols}

    assert protocols
    assert {} == {name: found for name, found in lonely.items() if len(found) < 2}


def own_nodes(function):
    """Yield the syntax of a function without that of the functions in it, which it only makes."""
    pending = list(function.body)
    while pending:
        node = pending.pop()
        yield node
        if not isinstance(node, Function | ast.Lambda):
            pending.extend(ast.iter_child_nodes(node))


def is_kept(node):
    """Return whether an expression is an attribute, or an element of one, and not a function's own variable."""
    while isinstance(node, ast.Subscript):
        node = node.value
    return isinstance(node, ast.Attribute)


def effects(function, siblings, seen):
    """Return the code of a function, and of those of its class or module that it calls, that changes what is kept."""
    if function.name in seen:
        return []
    seen.add(function.name)
    found = []
    for node in own_nodes(function):
        if isinstance(node, ast.Global):
            found.append(ast.unparse(node))
        elif isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
            found += [ast.unparse(node)] if is_kept(node) else []
        elif isinstance(node, ast.Call):
            called = node.func
            if isinstance(called, ast.Attribute) and called.attr in MUTATORS and is_kept(called.value):
                found.append(ast.unparse(node))
            is_own = isinstance(called, ast.Attribute) and names([called.value]) <= {"self", "cls"}
            name = called.attr if is_own else getattr(called, "id", "")
            found += effects(siblings[name], siblings, seen) if name in siblings else []
    return found


def getters():
    """Yield the name of each property and of each function that is named like one, and what it changes."""
    for path, tree in trees().items():
        for scope in (tree, *classes(tree)):
            siblings = functions(scope)
            for name, function in siblings.items():
                if "property" in names(function.decorator_list) or name.startswith(GETTERS):
                    yield f"{path} {getattr(scope, 'name', '')}.{name}", effects(function, siblings, set())


def test_getters_change_nothing():
    """What is named as a property or a question changes nothing, except for caches."""
    changed = {name: found for name, found in getters() if found}

    assert changed.keys() == CACHES, changed


@pytest.mark.parametrize(
    "body",
    [
        "self.count += 1",
        "self.seen[name] = 1",
        "self.queue.pop()",
        "self._note()",
        "del self.count",
        "global _count",
    ],
)
def test_a_getter_that_changes_something_is_found(body):
    """Each kind of change is one that the test above finds, also behind a call."""
    source = f"class A:\n def is_a(self):\n  {body}\n def _note(self):\n  self.noted = True"
    siblings = functions(ast.parse(source).body[0])

    assert effects(siblings["is_a"], siblings, set())


def test_a_lonely_protocol_is_found():
    """A protocol's implementer has all of its methods with their parameters, its own or inherited ones."""
    source = """
class Shape(Protocol):
    def area(self, unit): ...
class Square:
    def area(self, unit): ...
class Cube(Square): ...
class Circle:
    def area(self): ...
"""
    everything = classes(ast.parse(source))

    assert {"Square", "Cube"} == implementers(everything[0], everything)
