"""What other users put in the way of a worker, which may be root: nothing is opened, written, locked or removed."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from scaleobs._workers import Group, Ledger, Root, Sibling, directory
from scaleobs._workers.files import ForeignFileError, open_private
from scaleobs._workers.recognition import start_ticks
from support import servers

OTHER_USER = 65534
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: only root can give files to another user")

IS_LOCKED = """
import fcntl, os, sys
try:
    fcntl.lockf(os.open(sys.argv[1], os.O_RDWR), fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("locked")
"""


@pytest.fixture
def parent(monkeypatch, tmp_path):
    """Name the directory in which groups have theirs: one in which all users may write, as in `/dev/shm`."""
    path = tmp_path / "shared"
    path.mkdir()
    path.chmod(0o1777)
    monkeypatch.setenv("SCALEOBS_WORKERS_DIR", str(path))
    return path


@pytest.fixture
def root():
    """Return the root of which this process is a worker."""
    return Root("gunicorn", os.getpid(), start_ticks(os.getpid()), 0)


@pytest.fixture
def target(tmp_path):
    """Return a file of this user, which this process has locked, e.g. that of a database."""
    path = tmp_path / "database"
    path.write_bytes(b"precious")
    file = os.open(path, os.O_RDWR)
    fcntl.lockf(file, fcntl.LOCK_EX)
    yield path
    os.close(file)


def is_untouched(path):
    """Return whether the file has its content, and the lock of this process."""
    command = [sys.executable, "-c", IS_LOCKED, str(path)]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=servers.LIMIT).stdout
    return (b"precious", "locked\n") == (path.read_bytes(), shown)


LINKS = {"symlink": Path.symlink_to, "hard link": Path.hardlink_to}


@pytest.mark.parametrize("kind", LINKS)
def test_linked_ledger(kind, parent, root, target):
    """A link in place of a ledger isn't opened: the worker uses the next number, siblings skip it, both log it."""
    folder = directory.directory_of(root)
    LINKS[kind](folder / "0.ledger", target)
    reported = []
    group = Group(root, reported.append)
    group.ledger.set_owner()
    siblings = group.siblings()

    assert "1.ledger" == group.ledger.path.name
    assert [] == siblings
    assert group.is_complete
    assert [f"{folder}/0.ledger is a link, or no file of this user"] == list(map(str, reported))
    assert is_untouched(target)


@pytest.mark.parametrize("kind", LINKS)
@pytest.mark.parametrize("name", ["1.copy", "1.0.new", "0.copy", "0.0.new", "started"])
def test_linked_copy(name, kind, parent, root, target):
    """No other file is written or read through a link either."""
    folder = directory.directory_of(root)
    LINKS[kind](folder / name, target)
    group = Group(root)
    group.ledger.set_owner()
    (folder / "1.ledger").touch(mode=0o600)
    group.siblings()

    assert is_untouched(target)


@pytest.mark.parametrize("name", ["management-9090.lock"])
@pytest.mark.parametrize("kind", LINKS)
def test_linked_lock(kind, name, parent, root, target):
    """Neither is the lock of the management port."""
    group = Group(root)
    LINKS[kind](group.root_directory / name, target)

    with pytest.raises(ForeignFileError):
        group.open_shared(name)

    assert is_untouched(target)


def test_fifo_and_directory_are_no_ledgers(parent, root):
    """A FIFO would make the worker wait for ever."""
    folder = directory.directory_of(root)
    os.mkfifo(folder / "0.ledger")
    (folder / "1.ledger").mkdir()
    group = Group(root)
    group.ledger.set_owner()

    assert "2.ledger" == group.ledger.path.name
    assert [] == group.siblings()


@ROOT_ONLY
def test_ledger_of_another_user(parent, root):
    """It isn't taken over, and not read: other users must not change what a page shows."""
    folder = directory.directory_of(root)
    Ledger(folder / "0.ledger").open(b"")
    os.chown(folder / "0.ledger", OTHER_USER, OTHER_USER)
    group = Group(root)
    group.ledger.set_owner()

    assert "1.ledger" == group.ledger.path.name
    assert [] == group.siblings()
    with pytest.raises(ForeignFileError):
        Sibling(folder / "0.ledger")


@ROOT_ONLY
@pytest.mark.parametrize("age", [0, 24 * 3600])
def test_directory_of_another_user_with_our_name(age, parent, root, target):
    """A dead root's directory that another user has made isn't entered: its links lead to files of this user."""
    names = [directory._name(2**22, 1), directory._name(1, 1, 4026539999)]
    for name in names:
        planted = parent / name / "x"
        planted.mkdir(parents=True)
        (planted / "0.ledger").symlink_to(target)
        (planted / "kept").touch()
        for path in (planted / "kept", planted, parent / name):
            os.chown(path, OTHER_USER, OTHER_USER)
            os.utime(path, (path.stat().st_mtime - age,) * 2)
    directory.directory_of(root)

    assert all((parent / name / "x" / "kept").exists() for name in names)
    assert is_untouched(target)


def test_symlink_to_a_directory_with_our_name(parent, root, target):
    """A link whose root is dead is removed itself, and not what it leads to."""
    folder = target.parent / "folder"
    (folder / "x").mkdir(parents=True)
    (folder / "x" / "0.ledger").hardlink_to(target)
    (parent / directory._name(2**22, 1)).symlink_to(folder)
    directory.directory_of(root)

    assert (folder / "x" / "0.ledger").exists()
    assert is_untouched(target)


def test_directory_of_a_version_is_private(parent, root, tmp_path):
    """A link in place of the directory of the ledgers is refused."""
    folder = directory.directory_of(root)
    folder.rmdir()
    (tmp_path / "other").mkdir(mode=0o700)
    folder.symlink_to(tmp_path / "other")

    with pytest.raises(OSError, match="isn't a directory of this user alone"):
        Group(root)

    assert [] == list((tmp_path / "other").iterdir())


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o2777, 0o755, 0o700])
def test_parents_of_all_modes(mode, parent, root):
    """Whether all users may write in the parent, as in a volume of Kubernetes, or one: the directory is private."""
    parent.chmod(mode)
    group = Group(root)
    group.ledger.set_owner()
    other = Ledger(group.ledger.path.with_name("7.ledger"))
    other.open(b"")

    assert 0o700 == group.root_directory.stat().st_mode & 0o777
    assert ["7.ledger"] == [sibling.path.name for sibling in group.siblings()]


@ROOT_ONLY
def test_replaced_directory(parent, root, target):
    """If another user puts a directory in place of ours, nothing in it is opened or written, and that is logged."""
    parent.chmod(0o777)
    reported = []
    group = Group(root, reported.append)
    group.ledger.set_owner()
    group.siblings()
    folder = group.ledger.path.parent
    group.root_directory.rename(parent / "away")
    folder.mkdir(parents=True)
    for name in ("1.ledger", "1.copy", "0.copy", "0.0.new", "1.0.new"):
        (folder / name).symlink_to(target)
    for path in (folder, folder.parent):
        path.chmod(0o777)
        os.chown(path, OTHER_USER, OTHER_USER)
    siblings = [*group.siblings(), *group.peek()]

    assert [] == siblings
    assert not group.is_complete
    assert 1 == len(reported)
    assert "can't count together" in str(reported[0])
    assert is_untouched(target)


def test_own_files_only(tmp_path):
    """A private file can be opened and created; in a directory in which others may write it can't."""
    folder = tmp_path / "folder"
    folder.mkdir(mode=0o700)
    os.close(open_private(folder / "file", os.O_RDWR | os.O_CREAT))
    folder.chmod(0o770)

    with pytest.raises(PermissionError, match="of this user alone"):
        open_private(folder / "file", os.O_RDWR)
