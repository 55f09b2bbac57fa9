"""Workers that change their user, as root may: they count together under the new user, and nothing is lost."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from scaleobs._workers import directory
from support.group import fleet

OTHER_USER = 65534


def _python():
    """Return a Python that this user's workers can use as another user, and its PYTHONPATH; `None` if there is none."""
    if os.geteuid() != 0:
        return None
    paths = ":".join(path for path in sys.path if path.endswith(("/src", "/site-packages")))
    code = f"import os; os.setgid({OTHER_USER}); os.setuid({OTHER_USER}); import gunicorn, flask, uvicorn, this"
    for program in (sys.executable, f"/usr/bin/python3.{sys.version_info[1]}"):
        with contextlib.suppress(OSError):
            command, environ = [program, "-c", code], {**os.environ, "PYTHONPATH": paths}
            if not subprocess.run(command, env=environ, cwd="/", capture_output=True, check=False).returncode:
                return program, paths
    return None


_found = _python()
PYTHON, PATHS = _found or ("", "")
REASON = "NOT TESTED: only root can start workers that change their user, which needs a Python that all users may read"
pytestmark = [pytest.mark.servers, pytest.mark.skipif(_found is None, reason=REASON)]

PRELOAD = [PYTHON, "-m", "gunicorn", "-w", "3", "-b", "127.0.0.1:PORT", "--threads", "2", "--preload"]
AS_OTHER_USER = ["--user", "nobody", "--group", str(OTHER_USER)]
UVICORN = [PYTHON, "-m", "uvicorn", "--workers", "3", "--log-level", "warning", "--port", "PORT", "asgi_shop:app"]

LIFESPAN = f"""
import contextlib

@contextlib.asynccontextmanager
async def give_up_root(app):
    os.setgid({OTHER_USER})
    os.setuid({OTHER_USER})
    yield

shop.router.lifespan_context = give_up_root
"""

# gunicorn's worker touches a file that belongs to root.
CONF = f"""
import os

def post_worker_init(worker):
    os.chown(worker.tmp.fileno(), {OTHER_USER}, {OTHER_USER})
    os.setgid({OTHER_USER})
    os.setuid({OTHER_USER})
"""

IN_A_REQUEST = f"""
from prometheus_client import Counter
JOBS = Counter("jobs", "Jobs.", ["kind"])

async def give_up_root(request):
    JOBS.labels("any").inc()
    if os.geteuid() == 0:
        os.setgid({OTHER_USER})
        os.setuid({OTHER_USER})
    time.sleep(0.02)
    return PlainTextResponse("done")

async def work(request):
    JOBS.labels("any").inc()
    return PlainTextResponse("done")

import time
shop.router.routes += [Route("/give-up-root", give_up_root), Route("/work", work)]
"""

SERVERS = {
    "gunicorn --preload --user": [*PRELOAD, *AS_OTHER_USER, "wsgi_shop:app"],
    "gunicorn --user": [*(part for part in PRELOAD if part != "--preload"), *AS_OTHER_USER, "wsgi_shop:app"],
    "post_worker_init": [*PRELOAD, "-c", "conf.py", "wsgi_shop:app"],
    "lifespan": UVICORN,
}


@pytest.fixture
def folder():
    """Return a folder that each user may read, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def running(command, folder, **more):
    """Run a server with three workers."""
    (folder / "conf.py").write_text(CONF)
    return fleet.running(command, folder, **{"workers": 3, "PYTHONPATH": PATHS, **more})


def user_of(pid):
    """Return the user of a process."""
    return int(Path(f"/proc/{pid}/status").read_text().partition("\nUid:")[2].split()[1])


def assert_nothing_failed(shop, pages):
    """No page has the label of a worker that counts alone, and no worker has logged a fault."""
    logged = "".join((shop.folder / name).read_text() for name in ("stdout", "stderr"))

    assert [] == [line for line in logged.splitlines() if "scaleobs.fault" in line]
    assert {0} == {page.total("scaleobs_internal_faults_total") for page in pages}


@pytest.mark.parametrize("kind", SERVERS)
def test_each_scrape_shows_the_sum(kind, folder):
    """Workers that give up root are one group: each page shows all requests and three workers."""
    with running(SERVERS[kind], folder, source=LIFESPAN if kind == "lifespan" else "") as shop:
        pids = shop.pids(3)
        users = {user_of(pid) for pid in pids}
        shop.send(f"/hello/{number}" for number in range(60))
        shop.until(lambda page: page.total("http_requests_total") == 60)
        pages = shop.scrapes(8, workers=3)
        os.kill(min(pids), signal.SIGKILL)
        shop.until(lambda page: page.workers == 3)
        shop.send(["/hello/again"] * 30)
        shop.until(lambda page: page.total("http_requests_total") == 90)
        later = shop.scrapes(8, workers=3)
        assert_nothing_failed(shop, [*pages, *later])

    assert {OTHER_USER} == users
    assert {(60, 3)} == {(page.total("http_requests_total", status_code="200"), page.workers) for page in pages}
    assert {90} == {page.total("http_requests_total", status_code="200") for page in later}


def test_idle_workers_count(folder):
    """The first page shows all workers, although most have not answered anything."""
    with running(SERVERS["gunicorn --preload --user"], folder, workers=1) as shop:
        fleet.servers.until(lambda: len(fleet.servers.children_of(shop.root)) == 3)
        page = shop.until(lambda page: page.workers == 3)

    assert 3 == page.workers


def test_counts_of_root_move_along(folder):
    """What workers have counted as root is there when they have another user; a dead worker's counts come once."""
    with running(SERVERS["lifespan"], folder, source=IN_A_REQUEST) as shop:
        shop.send(["/work"] * 60)
        shop.until(lambda page: page.total("http_requests_total") == 60)
        before = shop.scrapes(6, workers=3)
        killed = min(shop.pids(3))
        changed = set()

        def all_have_changed():
            changed.add(shop.fetch("/give-up-root")[1])
            return len(changed) == 3

        fleet.servers.until(all_have_changed)
        shop.until(lambda page: page.workers == 3)  # The last one joins with its next request.
        pages = shop.scrapes(8, workers=3)
        os.kill(killed, signal.SIGKILL)
        fleet.servers.until(lambda: shop.pids(3) - {killed} > changed - {killed})
        changed.discard(killed)
        fleet.servers.until(all_have_changed)
        shop.until(lambda page: page.workers == 3)
        later = shop.scrapes(8, workers=3)
        assert_nothing_failed(shop, [*before, *pages, *later])
    done = [page.total("http_requests_total", route="/give-up-root") for page in (*pages, *later)]
    jobs = [page.total("jobs_total") for page in (*pages, *later)]

    assert {60} == {page.total("http_requests_total") for page in before}
    assert {60} == {page.total("http_requests_total", route="/work") for page in (*pages, *later)}
    assert done == [number - 60 for number in jobs]
    assert 1 == len(set(done[: len(pages)])) == len(set(done[len(pages) :]))
    assert {0} == {page.in_flight for page in (*pages, *later)}
    assert {3} == {page.workers for page in (*pages, *later)}


def test_forbidden_directory_is_no_missing_one(folder):
    """If the ledgers can't be read, each worker logs that once with the fix, and its series have the label worker."""
    with running(SERVERS["gunicorn --preload --user"], folder) as shop:
        shop.send(["/hello/some"] * 30)
        shop.until(lambda page: page.total("http_requests_total") == 30)
        shop.scrapes(3, workers=3)
        (found,) = directory._parent().glob(f"scaleobs-workers-{OTHER_USER}-*-{shop.root}-*")
        found.chmod(0o700)
        os.chown(found, 0, 0)
        pages = shop.scrapes(12, workers=3)
        last = shop.scrapes(12, workers=3)

        def logged():
            return [line for line in (folder / "stdout").read_text().splitlines() if "can't count together" in line]

        fleet.servers.until(lambda: len(logged()) >= 3)
        lines = logged()
        os.chown(found, OTHER_USER, OTHER_USER)
        again = shop.until(lambda page: page.workers == 3)

    labels = [{dict(found).get("worker") for name, found in page if name == "http_requests_total"} for page in pages]
    assert [{str(page.worker)} for page in pages] == labels
    assert {1} == {page.workers for page in (*pages, *last)}
    assert 3 == len(lines)
    assert all("Permission denied" in line and str(found.parent) in line for line in lines)
    assert 30 == again.total("http_requests_total")


def test_worker_that_changes_its_user_for_a_moment(folder):
    """Counts move there and back, and neither files nor descriptors are left behind each time."""
    route = """
@shop.get("/user/<int:user>")
def change(user):
    os.seteuid(0)
    os.seteuid(user)
    return str(len(os.listdir("/proc/self/fd")))
"""
    command = [
        PYTHON,
        "-m",
        "gunicorn",
        "-w",
        "1",
        "-b",
        "127.0.0.1:PORT",
        "--preload",
        "-c",
        "own.py",
        "wsgi_shop:app",
    ]
    (folder / "own.py").write_text(CONF.partition("    os.setgid")[0])
    with running(command, folder, workers=1, wsgi=route) as shop:
        shop.send(["/hello/some"] * 10)
        open_files = []
        for user in (OTHER_USER, 0) * 8:
            open_files.append(int(shop.fetch(f"/user/{user}")[2]))
            page = shop.scrape()
        files = list(directory._parent().glob(f"scaleobs-workers-*-{shop.root}-*/*/*.ledger"))
        assert_nothing_failed(shop, [page])

    assert 10 == page.total("http_requests_total", route="/hello/<name>")
    assert open_files[-1] == open_files[3]
    assert 2 == len(files)
