"""Two versions of scaleobs side by side, as after gunicorn's USR2: each uses only its own ledgers."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from scaleobs._workers import Root, Sibling, directory, group, join_group
from scaleobs._workers.ledger import MAGIC, OtherVersionError
from scaleobs._workers.recognition import start_ticks
from support import servers

# The bytes in use of a ledger that commit 8a5334a wrote: five requests, a user's counter and gauge.
OLD = Path(__file__).with_name("version_1.ledger").read_bytes().ljust(64 * 1024, b"\0")

# A worker of another version: joins the group of a root, counts, and stays until its input ends.
WORKER = """
import sys
from scaleobs._workers import Root, directory, group, join_group, ledger, recognition
from scaleobs._workers.kinds import Kind
ledger.MAGIC = directory.MAGIC = {magic}
group.find_root = lambda: Root("gunicorn", {pid}, recognition.start_ticks({pid}), 0)
mine = join_group()
mine.ledger.set_owner()
mine.ledger.slots(Kind.TALLY, b"some", 1)[0] += 1
print(mine.ledger.path, len(mine.siblings()), flush=True)
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
    monkeypatch.setenv("SCALEOBS_WORKERS_DIR", str(tmp_path))
    pid = os.getpid()
    root = Root("gunicorn", pid, start_ticks(pid), 0)
    monkeypatch.setattr(group, "find_root", lambda: root)
    monkeypatch.setattr(group, "_process_group", None)
    return root


def start(source, *arguments):
    """Start a process, and return it with the words of the line that it prints when it is ready."""
    command = [sys.executable, "-c", source, *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return process, process.stdout.readline().split()


def end(process):
    """End a process."""
    process.stdin.close()
    process.wait(servers.LIMIT)
    process.stdout.close()


def worker(magic, pid):
    """Start a worker of a version; return it with its ledger and the number of its siblings."""
    process, (path, siblings) = start(WORKER.format(magic=magic, pid=pid))
    return process, Path(path), int(siblings)


@pytest.mark.parametrize("lives", [True, False])
def test_ledger_of_version_1(lives, root):
    """It isn't read, taken over, copied or removed, whether its worker lives or not, and is no fault."""
    folder = directory.directory_of(root)
    old = folder / "0.ledger"
    old.write_bytes(OLD)
    holder, _ = start(HOLDER, str(old)) if lives else (None, None)
    before = old.read_bytes()
    own_group = join_group()
    own_group.ledger.set_owner()
    reported = []
    own_group.on_error = reported.append
    siblings = [own_group.siblings(), own_group.peek(), own_group.siblings()]
    with pytest.raises(OtherVersionError):
        Sibling(old).read()
    if lives:
        end(holder)

    assert "1.ledger" == own_group.ledger.path.name
    assert [[], [], []] == siblings
    assert [] == reported
    assert before == old.read_bytes()
    assert [] == list(folder.glob("0.*copy"))


def test_each_version_has_its_own_directory(root):
    """Version 1 finds directories, to join and to remove, by a pattern that no later version's name matches."""
    folder = directory.directory_of(root)
    version_1 = f"scaleobs-{os.getuid()}-*-*-*"

    assert MAGIC.decode() == folder.name
    assert not fnmatchcase(folder.parent.name, version_1)
    assert not fnmatchcase(folder.name, version_1)


def test_directory_of_version_1_stays(root, tmp_path):
    """Only version 1 removes directories of its dead groups: other versions can't see whether workers live."""
    namespace = Path("/proc/self/ns/pid").stat().st_ino
    old = [tmp_path / f"scaleobs-{os.getuid()}-{namespace}-{pid}-1" for pid in (root.pid, 2**22)]
    for each in old:
        each.mkdir(mode=0o700)
        (each / "0.ledger").write_bytes(OLD)
    own_group = join_group()
    own_group.ledger.set_owner()

    assert [] == own_group.siblings()
    assert [OLD, OLD] == [(each / "0.ledger").read_bytes() for each in old]


def test_two_versions_of_one_root(root):
    """Each has its own group; they share the root's directory, in which one process owns the management port."""
    own_group = join_group()
    own_group.ledger.set_owner()
    same, _, seen_by_same = worker(MAGIC, root.pid)
    other, path, seen_by_other = worker(b"scaleob9", root.pid)
    siblings = [sibling.owner for sibling in own_group.siblings()]
    end(other)
    left = path.read_bytes()
    heir, its, _ = worker(MAGIC, root.pid)
    after = {sibling.owner for sibling in own_group.siblings()}
    for process in (same, heir):
        end(process)

    assert [same.pid] == siblings
    assert (1, 0) == (seen_by_same, seen_by_other)
    assert path.parent.parent == own_group.root_directory == own_group.ledger.path.parent.parent
    # The ledger of the other version's dead worker isn't taken over.
    assert its != path
    assert left == path.read_bytes()
    assert {same.pid, heir.pid} == after


def test_living_ledger_of_another_version_keeps_a_directory(root, tmp_path):
    """The directory of a dead root stays as long as a worker of any version lives."""
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
    """All versions recognise a living worker by a lock on the whole file, which ends with its process."""
    path = tmp_path / "0.ledger"
    path.write_bytes(OLD)
    holder, _ = start(HOLDER, str(path))
    living = [directory.is_locked(path)]
    with path.open("r+b") as file, pytest.raises(BlockingIOError):
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    end(holder)

    assert [True, False] == [*living, directory.is_locked(path)]
