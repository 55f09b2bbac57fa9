"""Where workers meet, and what they do where they can't: each serves, counts alone, and says so once."""

from __future__ import annotations

import os
import shutil
import stat

import pytest

from support.group import fleet

pytestmark = pytest.mark.servers

CONF = """
import os
from pathlib import Path
from scaleobs._workers import directory
from scaleobs._workers import recognition

directory._parent = lambda: Path({parent!r})

def on_starting(server):
    mine = directory._parent() / directory._name(os.getpid(), recognition.started(os.getpid()))
    {plant}
"""
# In the way of a group's directory, as its arbiter starts.
IN_THE_WAY = {
    "symlink": "(mine.parent / 'other').mkdir(mode=0o700); mine.symlink_to(mine.parent / 'other')",
    "symlink with a good name": "mine.symlink_to(mine.parent.parent / directory._name(1, 1))",
    "open to all": "mine.mkdir(); mine.chmod(0o777)",
    "file": "mine.touch(mode=0o600)",
    "somebody else's": "mine.mkdir(mode=0o700); os.chown(mine, 65534, 65534)",
}
ALONE = "can't count together in"


def command(folder, plant="pass", parent=None):
    """Return a command of gunicorn whose workers meet in this folder, with something done before they start."""
    folder.mkdir(exist_ok=True)
    meeting = folder / "meeting" if parent is None else parent
    if parent is None:
        meeting.mkdir(exist_ok=True)
    (folder / "conf.py").write_text(CONF.format(parent=str(meeting), plant=plant))
    return [*fleet.GUNICORN, "--threads", "2", "-c", "conf.py", "wsgi_shop:app"]


def see_that_all_are_alone(shop, place):
    """See that all workers serve, each alone, and that each says so once, with the place and what to do."""
    shop.send([f"/hello/{number}" for number in range(200)])
    pages = shop.scrapes(8, workers=3)

    def said():
        return [line for line in (shop.folder / "stdout").read_text().splitlines() if ALONE in line]

    fleet.servers.until(lambda: len(said()) >= 4)
    lines = said()

    assert {200} == {page.status for page in pages}
    assert {1} == {page.workers for page in pages}
    assert {1} == {page.total("scaleobs_internal_faults_total") for page in pages}
    assert 4 == len(lines)
    assert all(str(place) in line and "PROMETHEUS_MULTIPROC_DIR" in line for line in lines)


def test_it_is_private(tmp_path):
    """It belongs to this user alone, and so does all that is in it."""
    with fleet.running(command(tmp_path), tmp_path) as shop:
        shop.scrape()
        (found,) = (tmp_path / "meeting").iterdir()
        files = {path.name: stat.S_IMODE(path.stat().st_mode) for path in found.rglob("*.ledger")}
        mode, owner = stat.S_IMODE(found.stat().st_mode), found.stat().st_uid

    assert (0o700, os.getuid()) == (mode, owner)
    assert dict.fromkeys(files, 0o600) == files
    assert 4 == len(files)


@pytest.mark.parametrize("kind", IN_THE_WAY)
def test_what_is_in_the_way_is_refused(kind, tmp_path):
    """A directory that isn't this user's alone is left as it is, and so is what a symlink leads to."""
    if kind == "somebody else's" and os.getuid() != 0:
        pytest.skip("Only root can give a directory away.")
    with fleet.running(command(tmp_path, IN_THE_WAY[kind]), tmp_path, workers=1) as shop:
        see_that_all_are_alone(shop, tmp_path / "meeting")
    left = [path for path in (tmp_path / "meeting").rglob("*") if path.name.endswith((".ledger", "started"))]

    assert [] == left


def test_no_directory_can_be_made(tmp_path):
    """A file is where directories should be made."""
    (tmp_path / "file").touch()
    with fleet.running(command(tmp_path, parent=tmp_path / "file"), tmp_path, workers=1) as shop:
        see_that_all_are_alone(shop, tmp_path / "file")


def test_user_may_not_write(tmp_path):
    """Nobody may write there; root, as whom containers often run, not either where it lacks the capability."""
    without = [] if os.getuid() else ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
    meeting = tmp_path / "forbidden"
    meeting.mkdir(mode=0o555)
    server, *rest = command(tmp_path, parent=meeting)
    with fleet.running([*without, str(fleet.servers.BIN / server), *rest], tmp_path, workers=1) as shop:
        see_that_all_are_alone(shop, meeting)


def test_place_is_full(tmp_path):
    """A file system with room for none of them: the workers serve, and nothing of theirs is left there."""
    script = 'mount -t tmpfs -o size=32k tmpfs meeting && exec "$@"'
    unshare = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, "sh"]
    if not shutil.which("unshare") or os.system("unshare --map-root-user --mount true 2>/dev/null"):
        pytest.skip("No file system can be mounted here.")
    server, *rest = command(tmp_path)
    with fleet.running([*unshare, str(fleet.servers.BIN / server), *rest], tmp_path, workers=1) as shop:
        see_that_all_are_alone(shop, tmp_path / "meeting")
        inside = fleet.Path(f"/proc/{shop.root}/root{tmp_path}/meeting")
        left = [path.name for path in inside.rglob("*.ledger")]

    assert [] == left


def test_place_becomes_full(tmp_path):
    """Where a ledger can't grow, its worker counts what is new alone, and nothing that was counted before goes."""
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))\n"
    many = limit + "for number in range(300):\n    shop.add_url_rule(f'/many/{number}', f'{number}', lambda: 'many')\n"
    with fleet.running(command(tmp_path), tmp_path, wsgi=many, settings='"log_format": "off"') as shop:
        shop.send(["/hello/first"] * 100)
        shop.until(lambda page: 100 == page.total("http_requests_total"))
        workers = shop.send([f"/many/{number}" for number in range(300)] * 8)
        pages = shop.scrapes(24, workers=4)
        said = "".join((tmp_path / name).read_text() for name in ("stdout", "stderr"))

    assert len(workers) > 1
    assert {200} == {page.status for page in pages}
    assert {100} == {page.total("http_requests_total", route="/hello/<name>") for page in pages}
    assert "scaleobs.fault" in said
    assert 1 <= max(page.total("scaleobs_internal_faults_total") for page in pages) <= 4
