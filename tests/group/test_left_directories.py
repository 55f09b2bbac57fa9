"""Directories that restarts of a container leave behind are removed; those in use are not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time

import pytest

from scaleobs._workers import Root, directory
from scaleobs._workers.recognition import start_ticks
from support import servers
from support.group import fleet

AGE = 24 * 3600

HOLDER = """
import fcntl, os, sys
file = os.open(sys.argv[1], os.O_RDWR)
fcntl.lockf(file, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""


# SIGTERM kills all of it, as a restart that comes too late: `unshare` itself ignores the signal.
CONTAINER = """
unshare --pid --fork --kill-child --mount-proc "$@" &
trap "kill -9 $!" TERM
wait
"""
TWO = ["-w", "2", "-b", "127.0.0.1:PORT", "--preload", "--threads", "2"]
RUN = "from gunicorn.app.wsgiapp import run; run()"


@pytest.fixture
def parent(monkeypatch, tmp_path):
    """Name the directory in which groups have theirs."""
    monkeypatch.setenv("SCALEOBS_WORKERS_DIR", str(tmp_path))
    return tmp_path


def start():
    """Do what a worker does when it starts."""
    pid = os.getpid()
    return directory.directory_of(Root("gunicorn", pid, start_ticks(pid), 0)).parent


def left(parent, *, namespace=4026539999, pid=1, age=AGE):
    """Make a directory as a container leaves it."""
    path = parent / f"scaleobs-workers-{os.geteuid()}-{namespace}-{pid}-123"
    (path / "scaleob3").mkdir(parents=True, mode=0o700)
    path.chmod(0o700)
    (path / "scaleob3" / "0.ledger").touch(mode=0o600)
    make_older(path, age)
    return path


def make_older(path, age=AGE):
    """Set the times of a directory, and of all in it."""
    for each in (*path.rglob("*"), path):
        os.utime(each, (time.time() - age,) * 2, follow_symlinks=False)


def test_directory_of_a_former_container(parent):
    """It has another namespace of pids, its pid may exist here, and no worker has locked its ledger."""
    old = [left(parent), left(parent, pid=os.getpid()), left(parent, namespace=1)]
    own = start()

    assert [own] == list(parent.iterdir())
    assert not any(path.exists() for path in old)


def test_young_directory_stays(parent):
    """Its workers may be about to lock their ledgers; a change of any file makes it young."""
    young = left(parent, age=10)
    changed = left(parent, pid=2)
    os.utime(changed / "scaleob3" / "0.ledger")
    start()

    assert young.exists()
    assert changed.exists()


def test_locked_ledger_keeps_a_directory(parent):
    """A worker of another container lives, however long nothing has changed in its directory."""
    old = left(parent)
    command = [sys.executable, "-c", HOLDER, str(old / "scaleob3" / "0.ledger")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert "locked\n" == holder.stdout.readline()
        make_older(old)
        start()
        stays = old.exists()
        holder.communicate(timeout=servers.LIMIT)
    start()

    assert stays
    assert not old.exists()


def test_link_of_a_former_container(parent):
    """The link that gunicorn's USR2 has made is removed, and then the directory to which it leads."""
    old = left(parent)
    link = parent / f"scaleobs-workers-{os.geteuid()}-4026539999-2-456"
    link.symlink_to(old.name)
    make_older(link)
    start()

    assert not link.is_symlink()
    assert not old.exists()


def test_nothing_else_is_removed(parent):
    """Other names, other users' directories and directories that others may use stay; no link is followed."""
    other_name = parent / f"scaleobs-workers-{os.geteuid()}-x-1-1"
    other_name.mkdir()
    other_user = parent / f"scaleobs-workers-{os.geteuid() + 1}-1-1-1"
    other_user.mkdir()
    shared = left(parent, pid=3)
    shared.chmod(0o755)
    outside = parent / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    link = parent / f"scaleobs-workers-{os.geteuid()}-1-1-1"
    link.symlink_to(outside)
    for path in (other_name, other_user, shared, outside, link):
        make_older(path)
    start()

    assert {other_name, other_user, shared, outside} < set(parent.iterdir())
    assert (outside / "kept").exists()


def _can_unshare():
    command = ["unshare", "--pid", "--fork", "--mount-proc", "true"]
    return bool(shutil.which("unshare")) and not subprocess.run(command, capture_output=True, check=False).returncode


@pytest.mark.servers
@pytest.mark.skipif(not _can_unshare(), reason="NOT TESTED: only root can start a server with its own pids")
def test_restarts_of_a_container_leave_one_directory(tmp_path):
    """A container that is restarted again and again keeps one directory, and a living container keeps its own."""
    place = tmp_path / "shared"
    place.mkdir()
    command = ["sh", "-c", CONTAINER, "sh", sys.executable, "-c", RUN, *TWO, "wsgi_shop:app"]
    named = {"SCALEOBS_WORKERS_DIR": str(place)}
    with fleet.running(command, tmp_path / "living", workers=2, **named) as living:
        (stays,) = place.iterdir()
        for number in range(2):
            with fleet.running(command, tmp_path / str(number), workers=2, **named):
                pass
            for path in place.iterdir():
                make_older(path)
        with fleet.running(command, tmp_path / "last", workers=2, **named) as last:
            found = set(place.iterdir())
            pages = [*last.scrapes(4, workers=2), *living.scrapes(4, workers=2)]

    assert 2 == len(found)
    assert stays in found
    assert {2} == {page.workers for page in pages}
