"""The directory of a group; and without one each worker serves, counts alone, and logs that once."""

from __future__ import annotations

import os
import shutil
import stat

import pytest

from scaleobs._workers import Group, Root
from scaleobs._workers.recognition import start_ticks
from support.group import fleet

pytestmark = pytest.mark.servers

CONF = """
import os
from pathlib import Path
from scaleobs._workers import directory, recognition

directory._parent = lambda: Path({parent!r})

def on_starting(server):
    own = directory._parent() / directory._name(os.getpid(), recognition.start_ticks(os.getpid()))
    {plant}
"""
# Created in the place of a group's directory, as its arbiter starts.
IN_THE_WAY = {
    "symlink": "(own.parent / 'other').mkdir(mode=0o700); own.symlink_to(own.parent / 'other')",
    "symlink with a good name": "own.symlink_to(own.parent.parent / directory._name(1, 1))",
    "open to all": "own.mkdir(); own.chmod(0o777)",
    "file": "own.touch(mode=0o600)",
    "somebody else's": "own.mkdir(mode=0o700); os.chown(own, 65534, 65534)",
}
ALONE = "can't count together in"


def command(folder, plant="pass", parent=None):
    """Return a command of gunicorn whose group has its directory in this folder; `plant` runs before the workers."""
    folder.mkdir(exist_ok=True)
    meeting = folder / "meeting" if parent is None else parent
    if parent is None:
        meeting.mkdir(exist_ok=True)
    (folder / "conf.py").write_text(CONF.format(parent=str(meeting), plant=plant))
    return [*fleet.GUNICORN, "--threads", "2", "-c", "conf.py", "wsgi_shop:app"]


def assert_all_are_alone(shop, place):
    """All workers serve, each counts alone, and each logs that once, with the path and the fix."""
    shop.send([f"/hello/{number}" for number in range(200)])
    pages = shop.scrapes(8, workers=3)

    def logged():
        return [line for line in (shop.folder / "stdout").read_text().splitlines() if ALONE in line]

    fleet.servers.until(lambda: len(logged()) >= 4)
    lines = logged()

    assert {200} == {page.status for page in pages}
    assert {1} == {page.workers for page in pages}
    assert {1} == {page.total("scaleobs_internal_faults_total") for page in pages}
    assert 4 == len(lines)
    assert all(str(place) in line and "SCALEOBS_WORKERS_DIR" in line for line in lines)


def test_directory_is_private(tmp_path):
    """It belongs to this user alone, and so do all files in it."""
    with fleet.running(command(tmp_path), tmp_path) as shop:
        shop.scrape()
        (found,) = (tmp_path / "meeting").iterdir()
        files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in found.rglob("*.ledger")}
        mode, owner = stat.S_IMODE(found.stat().st_mode), found.stat().st_uid

    assert (0o700, os.getuid()) == (mode, owner)
    assert dict.fromkeys(files, 0o600) == files
    assert 4 == len(files)


@pytest.mark.parametrize("kind", IN_THE_WAY)
def test_unsafe_directory_is_refused(kind, tmp_path):
    """A directory that isn't this user's alone isn't used, and neither is the target of a symlink."""
    if kind == "somebody else's" and os.getuid() != 0:
        pytest.skip("Only root can give a directory away.")
    with fleet.running(command(tmp_path, IN_THE_WAY[kind]), tmp_path, workers=1) as shop:
        assert_all_are_alone(shop, tmp_path / "meeting")
    left = [path for path in (tmp_path / "meeting").rglob("*") if path.name.endswith((".ledger", "started"))]

    assert [] == left


def test_no_directory_can_be_created(tmp_path):
    """The parent of the directories is a file."""
    (tmp_path / "file").touch()
    with fleet.running(command(tmp_path, parent=tmp_path / "file"), tmp_path, workers=1) as shop:
        assert_all_are_alone(shop, tmp_path / "file")


def test_user_may_not_write(tmp_path):
    """The directory isn't writable; for root, as in many containers, neither if the process lacks the capability."""
    without = [] if os.getuid() else ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
    meeting = tmp_path / "forbidden"
    meeting.mkdir(mode=0o555)
    server, *rest = command(tmp_path, parent=meeting)
    with fleet.running([*without, str(fleet.servers.BIN / server), *rest], tmp_path, workers=1) as shop:
        assert_all_are_alone(shop, meeting)


def test_file_system_is_full(tmp_path):
    """Without room for any ledger the workers serve, and leave no file there."""
    script = 'mount -t tmpfs -o size=32k tmpfs meeting && exec "$@"'
    unshare = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh"]
    if not shutil.which("unshare") or os.system("unshare --map-root-user --mount true 2>/dev/null"):
        pytest.skip("No file system can be mounted here.")
    server, *rest = command(tmp_path)
    with fleet.running([*unshare, str(fleet.servers.BIN / server), *rest], tmp_path, workers=1) as shop:
        assert_all_are_alone(shop, tmp_path / "meeting")
        inside = fleet.Path(f"/proc/{shop.root}/root{tmp_path}/meeting")
        left = [path.name for path in inside.rglob("*.ledger")]

    assert [] == left


def test_file_system_becomes_full(tmp_path):
    """If a ledger can't grow, its worker counts new series alone, and no earlier count is lost."""
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))\n"
    many = limit + "for number in range(300):\n    shop.add_url_rule(f'/many/{number}', f'{number}', lambda: 'many')\n"
    with fleet.running(command(tmp_path), tmp_path, wsgi=many, settings='"log_format": "off"') as shop:
        shop.send(["/hello/first"] * 100)
        shop.until(lambda page: 100 == page.total("http_requests_total"))
        workers = shop.send([f"/many/{number}" for number in range(300)] * 8)
        pages = shop.scrapes(24, workers=4)
        logged = "".join((tmp_path / name).read_text() for name in ("stdout", "stderr"))

    assert len(workers) > 1
    assert {200} == {page.status for page in pages}
    assert {100} == {page.total("http_requests_total", route="/hello/<name>") for page in pages}
    assert "scaleobs.fault" in logged
    assert 1 <= max(page.total("scaleobs_internal_faults_total") for page in pages) <= 4


@pytest.mark.parametrize("names", [("ours", "other"), ("ours", ""), ("", "other"), ("", "")])
def test_own_variable_comes_first(names, tmp_path, monkeypatch):
    """The variable of scaleobs names the directory; prometheus_client's does if it is alone."""
    for variable, name in zip(("SCALEOBS_WORKERS_DIR", "PROMETHEUS_MULTIPROC_DIR"), names, strict=True):
        monkeypatch.setenv(variable, str(tmp_path / name) if name else "")
    pid = os.getpid()
    for name in ("ours", "other"):
        (tmp_path / name).mkdir()
    group = Group(Root("gunicorn", pid, start_ticks(pid), 0))
    parent = group.root_directory.parent
    shutil.rmtree(group.root_directory)

    assert next((tmp_path / name for name in names if name), fleet.Path("/dev/shm")) == parent


def test_own_variable_makes_no_files_of_prometheus_client(tmp_path):
    """Recycled workers leave no file of prometheus_client in the directory that our variable names."""
    wsgi = ["gunicorn", "-w", "2", "-b", "127.0.0.1:PORT", "--preload", "--max-requests", "10", "wsgi_shop:app"]
    place = tmp_path / "place"
    place.mkdir()
    source = "from prometheus_client import Counter\nCounter('jobs', 'Jobs.').inc()\n"
    with fleet.running(wsgi, tmp_path, workers=2, wsgi=source, SCALEOBS_WORKERS_DIR=str(place)) as shop:
        shop.send([f"/hello/{number}" for number in range(40)], each=1)
        left = [path.name for path in place.rglob("*")]

    assert [] == [name for name in left if name.endswith(".db")]
    assert {"0.ledger", "1.ledger"} <= set(left)
