"""Starts real servers with several workers, sends requests and scrapes."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from scaleobs._workers import directory
from scaleobs._workers.ledger import MAGIC
from support import servers
from support.group.pages import OPENMETRICS, Page

GUNICORN = ["gunicorn", "-w", "4", "-b", "127.0.0.1:PORT", "--graceful-timeout", "3"]
UVICORN = [
    "uvicorn",
    "--workers",
    "4",
    "--log-level",
    "warning",
    "--timeout-graceful-shutdown",
    "1",
    "--port",
    "PORT",
    "asgi_shop:app",
]


class Fleet:
    """A running server, with its port and the folder of its files."""

    def __init__(self, port, folder, end):
        self.port, self.folder, self.end = port, folder, end

    def connection(self):
        """Return a new connection."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=servers.LIMIT)

    def fetch(self, path, headers=None):
        """Return status, worker and body of one request, which is repeated if a worker ended without an answer."""
        limit = time.monotonic() + servers.LIMIT
        while True:
            try:
                return self._fetch(path, headers)
            except (OSError, http.client.HTTPException):
                if time.monotonic() > limit:
                    raise
                time.sleep(0.02)

    def _fetch(self, path, headers):
        with contextlib.closing(self.connection()) as connection:
            connection.request("GET", path, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, int(answer.getheader("x-worker", "0")), answer.read()

    def send(self, paths, threads=8, each=25):
        """Send requests from several threads, each over a new connection now and then; return the workers' pids."""
        waiting, workers = list(paths), set()

        def some():
            while waiting:
                with contextlib.closing(self.connection()) as connection:
                    for _ in range(each):
                        try:
                            path = waiting.pop()
                        except IndexError:
                            return
                        connection.request("GET", path)
                        answer = connection.getresponse()
                        answer.read()
                        workers.add(int(answer.getheader("x-worker", "0")))
                        if answer.status == 500:  # After which some servers hang up.
                            break

        side_by_side(some, threads)
        return workers

    def scrape(self, headers=None):
        """Return what a scrape shows."""
        status, worker, body = self.fetch("/metrics", headers)
        return Page(status, worker, body.decode(), is_openmetrics=headers == OPENMETRICS)

    def scrapes(self, number=12, workers=2, headers=None):
        """Return at least `number` pages of at least `workers` workers, requested side by side."""
        pages = []
        limit = time.monotonic() + servers.LIMIT
        while len(pages) < number or len({page.worker for page in pages}) < workers:
            assert time.monotonic() < limit, f"only {len({page.worker for page in pages})} workers answer"
            side_by_side(lambda: pages.append(self.scrape(headers)), 4)
        return pages

    def until(self, condition):
        """Wait until a scrape shows something, and return that page."""
        found = []

        def is_shown():
            page = self.scrape()
            if condition(page):
                found.append(page)
            return found

        servers.until(is_shown)
        return found[0]

    def pids(self, number=4):
        """Return the pids of the workers, as soon as `number` of them have answered."""
        seen = set()

        def all_have_answered():
            side_by_side(lambda: seen.add(self.fetch("/metrics")[1]), 4)
            return len(seen) >= number

        servers.until(all_have_answered)
        return seen

    def open(self, path, headers=None):
        """Return a connection that waits for an answer, and the pid of the worker that it waits for."""
        connection = self.connection()
        connection.request("GET", "/hello/first")
        answer = connection.getresponse()
        answer.read()
        connection.request("GET", path, headers=headers or {})
        return connection, int(answer.getheader("x-worker"))

    @property
    def root(self):
        """The pid of the process that started the workers."""
        return servers.until(self._parent_of_a_worker)

    def _parent_of_a_worker(self):
        try:
            return parent_of(min(self.pids(1)))
        except (FileNotFoundError, ProcessLookupError):  # The worker was recycled after it had answered.
            return None

    @property
    def directory(self):
        """The directory of the group."""
        (found,) = (path for path in directory._parent().glob(f"scaleobs-*-{self.root}-*") if not path.is_symlink())
        return found / MAGIC.decode()

    @contextlib.contextmanager
    def watched(self):
        """Scrape all the time; no scrape fails, no counter falls, no gauge is negative."""
        pages, is_over, seen = [], threading.Event(), {}

        def watch():
            while not is_over.wait(0.02):
                page = self.scrape()
                pages.append(page)
                assert 200 == page.status
                assert min(page.values()) >= 0
                counters = page.counters()
                fallen = {key: (was, counters.get(key)) for key, was in seen.items() if counters.get(key, -1) < was}
                assert {} == {key: both for key, both in fallen.items() if key[0].startswith(("http", "scaleobs"))}
                seen.update(counters)

        with ThreadPoolExecutor(1) as pool:
            watching = pool.submit(watch)
            try:
                yield pages
            finally:
                is_over.set()
            watching.result()


def parent_of(pid):
    """Return the parent of a process."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def side_by_side(call, number):
    """Call a function in several threads, and raise the first error."""
    raised = []

    def called():
        try:
            call()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=called) for _ in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if raised:
        raise raised[0]


@contextlib.contextmanager
def running(command, folder, *, workers=4, settings="", source="", wsgi="", port=0, **environ):
    """
    Run a server with the shop, and yield as soon as all workers serve.

    Args:
        command: with PORT for the port; a source text is run by this Python, with the port as its argument.
        folder: where it runs.
        workers: their number.
        settings: source text added to the shop's settings.
        source: source text added to the shop.
        wsgi: source text added to the WSGI shop only.
        port: its port, 0 for a free one.
        environ: variables added to the environment.
    """
    folder.mkdir(exist_ok=True)
    for name in ("wsgi_shop.py", "asgi_shop.py"):
        shop = Path(__file__).with_name(name).read_text()
        added = source + (wsgi if name.startswith("wsgi") else "")
        (folder / name).write_text(shop.replace("SETTINGS = {}", f"SETTINGS = {{{settings}}}") + added)
    port = port or servers.free_port()
    if isinstance(command, str):
        (folder / "main.py").write_text(command)
        command = [sys.executable, "main.py", str(port)]
    else:
        command = [shutil.which(command[0], path=str(servers.BIN)) or command[0], *command[1:]]
        command = [part.replace("PORT", str(port)) for part in command]
    with servers.running(command, port, folder, **environ) as end:
        fleet = Fleet(port, folder, end)
        if workers > 1:
            fleet.until(lambda page: page.workers == workers)
        yield fleet
