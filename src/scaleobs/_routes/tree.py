"""Routes by the segments of their paths: an unknown path costs the same with ten routes and with a thousand."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Collection, Iterable, Iterator
from operator import itemgetter

from scaleobs._routes.interface import explicit_methods

_PARAMETER = re.compile(r"\{([a-zA-Z_]\w*)(:[a-zA-Z_]\w*)?\}", re.ASCII)
_WITHIN_A_SEGMENT = (None, ":str", ":int", ":float", ":uuid")


class Entry:
    """
    One route of Starlette's kind.

    Args:
        path: its pattern, from the root on.
        methods: the methods that it names; `None` for a WebSocket.
        host: the pattern of the host, if it has one.
        is_mount: whether it matches all paths below its own.
        is_front_end: whether it is one of FastAPI's front ends, which are matched last.
        accepts: the methods for which it is preferred; `None` for all.
        below: the template of the mounts around it, which `path` begins with.
        route: the framework's object.
        context: FastAPI's object of the router's inclusion, if there is one.
    """

    __slots__ = (
        *("_below", "_below_pattern", "_pattern", "context", "host", "is_mount", "is_websocket"),
        *("accepts", "methods", "path", "rank", "route", "template"),
    )

    def __init__(
        self,
        path: str,
        methods: Iterable[str] | None,
        host: re.Pattern[str] | None,
        *,
        is_mount: bool = False,
        is_front_end: bool = False,
        accepts: Collection[str] | None = None,
        below: str = "",
        route: object = None,
        context: object = None,
    ) -> None:
        unique = _with_unique_names(path)
        self._pattern: re.Pattern[str] | None = None
        self._below = below
        self._below_pattern: re.Pattern[str] | None = None
        self.route, self.context = route, context
        self.path = unique + "/{rest:path}" if is_mount else unique
        self.template = _PARAMETER.sub(r"{\1}", path) or "/"
        self.methods = explicit_methods(methods or ())
        self.is_mount = is_mount
        self.is_websocket = methods is None
        self.accepts = accepts
        self.host = host
        # Of the front ends, the longest path is first.
        self.rank = -len(path) if is_front_end else -math.inf

    def matches(self, path: str) -> bool:
        """Return whether Starlette would match a path."""
        if self._pattern is None:  # Compiled when needed: five hundred take 0.1 s.
            self._pattern = _compiled(self.path)
        return self._pattern.match(path) is not None

    def is_below(self, root: str) -> bool:
        """Return whether Starlette's mounts around it match a root path, which may contain their parameters."""
        if "{" not in self._below:
            return self._below == root
        if self._below_pattern is None:
            self._below_pattern = _compiled(_with_unique_names(self._below))
        return self._below_pattern.match(root) is not None


def _with_unique_names(path: str) -> str:
    # Starlette compiles the paths of a mount and of its routes separately, so a parameter's name may occur twice.
    numbers = itertools.count()
    return _PARAMETER.sub(lambda found: f"{{p{next(numbers)}{found[2] or ''}}}", path)


def _compiled(path: str) -> re.Pattern[str]:
    from starlette.routing import compile_path

    return compile_path(path)[0]


class Tree:
    """
    A node of the tree, and all nodes below it.

    Attributes:
        below: the nodes behind a slash, by their segment, which has no parameter.
        any_below: the node behind a slash and a segment with parameters.
        ending: the entries that end at this node, with their positions.
        beginning: the entries whose next parameter may contain slashes.
    """

    __slots__ = ("any_below", "beginning", "below", "ending")

    def __init__(self) -> None:
        self.below: dict[str, Tree] = {}
        self.any_below: Tree | None = None
        self.ending: list[tuple[int, Entry]] = []
        self.beginning: list[tuple[int, Entry]] = []

    def add(self, position: int, entry: Entry) -> None:
        """Add an entry."""
        node = self
        for segment in entry.path.split("/"):
            kinds = [found[2] for found in _PARAMETER.finditer(segment)]
            if any(kind not in _WITHIN_A_SEGMENT for kind in kinds):
                node.beginning.append((position, entry))
                return
            if kinds:
                node.any_below = node.any_below or Tree()
                node = node.any_below
            else:
                node = node.below.setdefault(segment, Tree())
        node.ending.append((position, entry))

    def matching(self, path: str) -> Iterator[Entry]:
        """Yield the entries that match a path, in order."""
        found = sorted(self.candidates(path.split("/"), 0), key=itemgetter(0))
        return (entry for _, entry in found if entry.matches(path))

    def candidates(self, segments: list[str], at: int) -> Iterator[tuple[int, Entry]]:
        """Yield the entries with the segments of a path, and their positions."""
        yield from self.beginning
        if at == len(segments):
            yield from self.ending
            return
        named = self.below.get(segments[at])
        if named is not None:
            yield from named.candidates(segments, at + 1)
        if self.any_below is not None:
            yield from self.any_below.candidates(segments, at + 1)
