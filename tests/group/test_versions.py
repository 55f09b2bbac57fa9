"""Two versions of scaleobs side by side, as after gunicorn's USR2: a version's ledgers are of its workers alone."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from scaleobs import _workers as group
from scaleobs._workers import Sibling, directory, recognition
from scaleobs._workers import group as membership
from scaleobs._workers.entries import MAGIC, OtherVersionError
from support import servers

# The used part of a ledger that commit 8a5334a has written: five requests, a user's counter and gauge.
OLD = Path(__file__).with_name("version_1.ledger").read_bytes().ljust(64 * 1024, b"\0")

# A worker of another version: joins the group of a root, counts, and stays until it is told to end.
WORKER = """
import sys
from scaleobs._workers import Root, join
from scaleobs._workers import directory
from scaleobs._workers import entries
from scaleobs._workers import ledger
from scaleobs._workers import group as membership
from scaleobs._workers import recognition
from scaleobs._workers.kinds import Kind
entries.MAGIC = ledger.MAGIC = directory.MAGIC = {magic}
membership.root = lambda: Root("gunicorn", {pid}, recognition.started({pid}), 0)
mine = join()
mine.ledger.own()
mine.ledger.cells(Kind.TALLY, b"some", 1)[0] += 1
print(mine.ledger.path, len(mine.others()), flush=True)
sys.stdin.read()
"""

HOLDER = """
import fcntl, os, sys
file = os.open(sys.argv[1], os.O_RDWR)
fcntl.lockf(file, fcntl.LOCK_EX)
os.pwrite(file, os.getpid().to_bytes(8, sys.byteorder), 16)
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def root(monkeypatch, tmp_path):
    """Return the root of which this process is a worker."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    pid = os.getpid()
    root = group.Root("gunicorn", pid, recognition.started(pid), 0)
    monkeypatch.setattr(membership, "root", lambda: root)
    monkeypatch.setattr(membership, "_mine", None)
    return root


def start(source, *arguments):
    """Start a process, and return it with the line that it says when it is ready."""
    command = [sys.executable, "-c", source, *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return process, process.stdout.readline().split()


def end(process):
    """Have a process end."""
    process.stdin.close()
    process.wait(servers.LIMIT)
    process.stdout.close()


def worker(magic, pid):
    """Start a worker of a version; return it with its ledger and how many siblings it sees."""
    process, (path, siblings) = start(WORKER.format(magic=magic, pid=pid))
    return process, Path(path), int(siblings)


@pytest.mark.parametrize("lives", [True, False])
def test_ledger_of_version_1(lives, root):
    """It is neither read nor taken over, copied or removed, whether its worker lives or not, and is no fault."""
    place = directory.directory_of(root)
    old = place / "0.ledger"
    old.write_bytes(OLD)
    holder, _ = start(HOLDER, str(old)) if lives else (None, None)
    before = old.read_bytes()
    mine = group.join()
    mine.ledger.own()
    heard = []
    mine.on_trouble = heard.append
    siblings = [mine.others(), mine.peek(), mine.others()]
    with pytest.raises(OtherVersionError):
        Sibling(old).read()
    if lives:
        end(holder)

    assert "1.ledger" == mine.ledger.path.name
    assert [[], [], []] == siblings
    assert [] == heard
    assert before == old.read_bytes()
    assert [] == list(place.glob("0.*copy"))


def test_versions_have_directories_of_their_own(root):
    """Version 1 finds directories, to join and to remove, by a pattern that no other version's name has."""
    place = directory.directory_of(root)
    version_1 = f"scaleobs-{os.getuid()}-*-*-*"

    assert MAGIC.decode() == place.name
    assert not fnmatchcase(place.parent.name, version_1)
    assert not fnmatchcase(place.name, version_1)


def test_directory_of_version_1_stays(root, tmp_path):
    """Those of its groups that are dead are its own to remove, too: their workers may live where this can't be seen."""
    namespace = Path("/proc/self/ns/pid").stat().st_ino
    old = [tmp_path / f"scaleobs-{os.getuid()}-{namespace}-{pid}-1" for pid in (root.pid, 2**22)]
    for each in old:
        each.mkdir(mode=0o700)
        (each / "0.ledger").write_bytes(OLD)
    mine = group.join()
    mine.ledger.own()

    assert [] == mine.others()
    assert [OLD, OLD] == [(each / "0.ledger").read_bytes() for each in old]


def test_two_versions_of_one_root(root):
    """Each has its own group; they share the root's directory, in which one owns the management port."""
    mine = group.join()
    mine.ledger.own()
    same, _, seen_by_same = worker(MAGIC, root.pid)
    other, path, seen_by_other = worker(b"scaleob9", root.pid)
    siblings = [sibling.owner for sibling in mine.others()]
    end(other)
    left = path.read_bytes()
    heir, its, _ = worker(MAGIC, root.pid)
    after = {sibling.owner for sibling in mine.others()}
    for process in (same, heir):
        end(process)

    assert [same.pid] == siblings
    assert (1, 0) == (seen_by_same, seen_by_other)
    assert path.parent.parent == mine.root_directory == mine.ledger.path.parent.parent
    # What the dead worker of the other version has left isn't taken over.
    assert its != path
    assert left == path.read_bytes()
    assert {same.pid, heir.pid} == after


def test_living_ledger_of_another_version_keeps_a_directory(root, tmp_path):
    """Where a root is dead, its directory stays as long as a worker of any version lives."""
    dead, _ = start("print(); input()")
    orphan, path, _ = worker(b"scaleob9", dead.pid)
    end(dead)
    directory.directory_of(root)
    stayed = path.exists()
    end(orphan)
    directory.directory_of(root)

    assert stayed
    assert not path.parent.parent.exists()
    assert [directory._name(root.pid, root.started)] == [found.name for found in tmp_path.iterdir()]


def test_lock_of_a_living_ledger(tmp_path):
    """The sign of life that every version goes by: a lock on the whole file, which ends with its process."""
    path = tmp_path / "0.ledger"
    path.write_bytes(OLD)
    holder, _ = start(HOLDER, str(path))
    living = [directory.is_locked(path)]
    with path.open("r+b") as file, pytest.raises(BlockingIOError):
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    end(holder)

    assert [True, False] == [*living, directory.is_locked(path)]
