"""Scrapes that come at the same time: they share pages, and one page is made after the other."""

from __future__ import annotations

import _thread
import os
import weakref
from collections.abc import Callable, Collection, Iterator
from time import monotonic

from prometheus_client import CollectorRegistry

from scaleobs._gevent import has_hub, sleep, unpatched
from scaleobs._metrics import collectors
from scaleobs._metrics.page import Page
from scaleobs._metrics.storage import Storage

MAX_SCRAPES = 64
"""Scrapes that are answered at the same time."""

MAX_PAGES = 8
"""Pages in line: of other formats, or with other `name[]`."""

SILENT_SECONDS = 10.0
"""A scrape that has read nothing for so long makes room for another one."""

PATIENCE_SECONDS = 0.3
"""If almost all threads of a server have been scraping for so long, further scrapes are refused."""

_SLEEP_SECONDS = 0.005

_PAUSE_SECONDS = 0.002
"""How long a greenlet keeps its event loop."""

_TURN_SECONDS = 0.02
"""On an event loop, one scrape makes pieces as long as it is never busy with something else for this time."""


class _Wait(bytes):
    """The class of `WAIT`."""


WAIT = _Wait()
"""An empty piece: another scrape is making the page, which has its next piece some milliseconds later."""


class ScrapeDropped(ConnectionAbortedError):  # noqa: N818 - As those of Python.
    """A scrape has read nothing for `SILENT_SECONDS`, and another one has its place."""


class ScrapeRefused(Exception):  # noqa: N818 - As the other one.
    """A scrape that has read nothing yet would take the last thread of the server."""


class _Node:
    """
    One piece of a page, and the next one.

    A page does not refer to its first pieces: a piece is freed when the slowest scrape has read it.
    """

    __slots__ = ("following", "piece")

    def __init__(self) -> None:
        self.piece = b""
        self.following: _Node | None = None


class _SharedPage:
    """A page in line, or one whose pieces are still to be read; it ends with the last scrape that reads it."""

    def __init__(self, key: object, begin: Callable[[], Page]) -> None:
        self.key = key
        self.begin = begin
        self.page: Page | None = None
        self.last = _Node()
        self.first: _Node | None = self.last
        self.is_done = False
        # Taken by the thread that makes a piece. `pop` is one step, and not replaced by gevent.
        self.idle = [True]
        self.step_begun = monotonic()
        self.is_aside = False

    @property
    def is_in_line(self) -> bool:
        """Whether it is to be made before the pages behind it."""
        return not self.is_done and not self.is_aside

    def append(self, piece: bytes) -> None:
        """Add a piece."""
        last, self.last = self.last, _Node()
        last.piece = piece
        last.following = self.last  # Last, since other threads read the piece from now on.


class Scrape(Iterator[bytes]):
    """
    The body of one scrape, in pieces; an empty one is a pause and need not be sent.

    Args:
        pages: of the registry.
        page: its page.
        node: the first piece.
        may_block: whether to wait while another thread makes a piece, and for the pages before; otherwise the piece is
            `WAIT`, or empty.
        threads: see `Pages.scrape`.
    """

    def __init__(self, pages: Pages, page: _SharedPage, node: _Node, *, may_block: bool, threads: int) -> None:
        self._pages = pages
        self._page: _SharedPage | None = page
        self._node = node
        self.may_block = may_block
        # Greenlets share a loop as tasks do, but wait as threads do.
        self._is_greenlet = may_block and has_hub()
        self.is_on_loop = self._is_greenlet or not may_block
        self._threads = threads
        self._has_read = False
        self.is_dropped = False
        self.begun = self.last_read = self._last_pause = monotonic()

    def __next__(self) -> bytes:
        """
        Return the next piece; if no thread has made it yet, make it, and before it what is in line before it.

        Raises:
            ScrapeRefused: see there.
            ScrapeDropped: see there.
        """
        self.last_read = monotonic()
        while (page := self._page) is not None:
            self._let_greenlets_run()
            is_done, node = page.is_done, self._node
            if node.following is not None:
                self._node, self._has_read = node.following, True
                return node.piece
            if is_done:
                self._leave()
            elif (ending := self._pages.ending(page, node)) is not None:
                self._leave()
                return ending
            elif not self._has_read and self._threads and self._pages.is_crowded(self._threads, self):
                self._leave()
                raise ScrapeRefused
            elif not self._pages.advance(self):
                if not self.may_block:
                    return WAIT
                sleep(_SLEEP_SECONDS)
            elif not self.may_block and node.following is None and not page.is_done:
                return b""
        if self.is_dropped:
            raise ScrapeDropped
        raise StopIteration

    def _let_greenlets_run(self) -> None:
        if self._is_greenlet and monotonic() - self._last_pause > _PAUSE_SECONDS:
            sleep(0)
            self._last_pause = monotonic()

    def _leave(self) -> None:
        self._page = None
        self._pages.left(self)

    @property
    def page_aside(self) -> _SharedPage | None:
        """Its page if that is not in line any more, since its collector has hung."""
        return self._page if self._page is not None and self._page.is_aside else None

    def drop(self) -> None:
        """End this scrape, whose client does not read."""
        self.is_dropped, self._page, self._node = True, None, _Node()


class Pages:
    """
    The pages of one registry.

    Scrapes of the same format, encoding and names share the next page that is begun. None joins a page that is begun
    already, so each page has all counts from before its scrapes. One page is made after the other: its samples take
    much more memory than its pieces. A scrape makes the pieces that it waits for, also those of pages before its own,
    so none waits for a client that reads slowly or has disconnected.

    Any thread may call any method.

    Args:
        registry: the metrics.
        storage: our own counts.
        on_fault: called with each error of a collector or of scaleobs.
    """

    def __init__(self, registry: CollectorRegistry, storage: Storage, on_fault: Callable[[Exception], None]) -> None:
        self._registry = registry
        self._storage = storage
        self._on_fault = on_fault
        self._reset()

    def _reset(self) -> None:
        self._process = os.getpid()
        self._lock = unpatched(_thread, "allocate_lock")()
        self._line: list[weakref.ref[_SharedPage]] = []
        self._maker = (0, 0.0)
        self._scrapes: weakref.WeakSet[Scrape] = weakref.WeakSet()

    def scrape(
        self,
        media_type: str,
        *,
        is_gzipped: bool,
        names: Collection[str] = (),
        may_block: bool = True,
        threads: int = 0,
    ) -> Scrape | None:
        """
        Return the body of a scrape, or `None` if there are too many.

        Args:
            media_type: of the page.
            is_gzipped: whether it is compressed.
            names: its `name[]` parameters.
            may_block: see `Scrape`.
            threads: the threads of the server, one of which is left for the probes if pages take long; 0 if that is
                unknown.
        """
        if self._process != os.getpid():  # The threads that made pages are those of the parent.
            self._reset()
        chosen = tuple(sorted(set(names)))
        key = media_type, is_gzipped, chosen

        def begin() -> Page:
            return Page(
                self._registry,
                self._storage,
                media_type,
                is_gzipped=is_gzipped,
                names=chosen,
                on_fault=self._on_fault,
            )

        if threads and self.is_crowded(threads):
            return None
        with self._lock:
            if len(self._scrapes) >= MAX_SCRAPES and not self._drop_silent():
                return None
            waiting = [
                one
                for reference in self._line
                if (one := reference()) is not None and not one.is_done and not one.is_aside
            ]
            joined = next(((one, one.first) for one in waiting if one.key == key and one.first is not None), None)
            if joined is None:
                if len(waiting) >= MAX_PAGES:
                    return None
                page = _SharedPage(key, begin)
                joined = page, page.last
                waiting.append(page)
            self._line = list(map(weakref.ref, waiting))
            found = Scrape(self, *joined, may_block=may_block, threads=threads)
            self._scrapes.add(found)
        return found

    def is_crowded(self, threads: int, scrape: Scrape | None = None) -> bool:
        """Return whether other scrapes take almost all threads of the server for long."""
        since = monotonic() - PATIENCE_SECONDS
        with self._lock:
            return sum(one.begun < since for one in self._scrapes if one is not scrape) >= max(3, threads - 1)

    def has_others(self, scrape: Scrape) -> bool:
        """Return whether other scrapes than this one are answered now."""
        with self._lock:
            return len(self._scrapes) > (scrape in self._scrapes)

    def left(self, scrape: Scrape) -> None:
        """Handle that a scrape has read its last piece."""
        with self._lock:
            self._scrapes.discard(scrape)
        self._maker = (0, 0.0)

    def advance(self, scrape: Scrape) -> bool:
        """Make one piece of the first page in line; return `False` if another scrape is making it."""
        page = scrape.page_aside
        if page is None:
            with self._lock:
                page = self._first_in_line()
            if page is None:
                return True
        # If each scrape made a piece in each turn of the loop, nothing else would run in between.
        maker, made_at = self._maker
        if scrape.is_on_loop and maker != id(scrape) and monotonic() - made_at < _TURN_SECONDS:
            return False
        try:
            page.idle.pop()
        except IndexError:
            if monotonic() - page.step_begun < collectors.HANGS_SECONDS:
                return False
            # The page continues when its collector returns. Until then, other pages are made without the collector.
            page.is_aside = True
            return True
        try:
            self._step(page)
        finally:
            self._maker = id(scrape), monotonic()
            page.idle.append(True)
        return True

    def _first_in_line(self) -> _SharedPage | None:
        while self._line:
            page = self._line[0]()
            if page is not None and page.is_in_line:
                return page
            del self._line[0]
        return None

    def _step(self, shared: _SharedPage) -> None:
        try:
            shared.step_begun = monotonic()
            if shared.page is None:
                with self._lock:
                    shared.first = None
                shared.page = shared.begin()
            page = shared.page
            while True:
                shared.step_begun = monotonic()
                made = next(page.pieces, None)
                if made is None:
                    self._finish(shared)
                    return
                with self._lock:
                    piece = page.add(made)
                    if piece:
                        shared.append(piece)
                if piece or not made:
                    return
        except Exception as error:
            self._on_fault(error)
            self._finish(shared)
        except BaseException:  # It belongs to the thread of one scrape, not to the others that share the page.
            self._finish(shared)
            raise

    def _finish(self, shared: _SharedPage) -> None:
        """End a page with the families that it has; it is well-formed."""
        with self._lock:
            if not shared.is_done:
                if shared.page is not None:
                    shared.append(shared.page.finish())
                shared.is_done = True

    def ending(self, shared: _SharedPage, node: _Node) -> bytes | None:
        """Return the end of a page after a piece, for a scrape that shares it, if it hangs now."""
        if not shared.is_aside or shared.idle:
            return None
        with self._lock:
            if node.following is not None or shared.is_done:
                return None
            return b"" if shared.page is None else shared.page.finish()

    def _drop_silent(self) -> bool:
        """Drop the scrape that has read nothing for the longest time; return whether it was silent for so long."""
        oldest = min(self._scrapes, key=lambda one: one.last_read, default=None)
        if oldest is None or monotonic() - oldest.last_read < SILENT_SECONDS:
            return False
        oldest.drop()
        self._scrapes.discard(oldest)
        return True
