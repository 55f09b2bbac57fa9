"""Workers of uWSGI, by a module with the same functions as uWSGI's; and systems with less evidence."""

from __future__ import annotations

import os
import sys
import types

import pytest

from scaleobs._workers import recognition
from scaleobs._workers.recognition import find_root


@pytest.fixture
def uwsgi(monkeypatch):
    """Provide a module with the same functions as uWSGI's."""
    module = types.ModuleType("uwsgi")
    module.masterpid, module.worker_id = os.getppid, lambda: 1
    monkeypatch.setitem(sys.modules, "uwsgi", module)
    monkeypatch.setattr(recognition, "_roots", {})
    return module


def test_worker_of_uwsgi(uwsgi):
    """The root of a worker of uWSGI is its master, and never changes."""
    root = find_root()

    assert ("uwsgi", os.getppid(), 0) == (root.server, root.pid, root.previous)
    assert root.started > 0

    uwsgi.worker_id = lambda: 0

    assert root == find_root()


@pytest.mark.parametrize(
    ("master", "worker"), [(0, 1), (os.getppid(), 0), (os.getpid(), 1)], ids=["no master", "mule", "a worker's child"]
)
def test_what_else_runs_in_uwsgi(master, worker, uwsgi):
    """A uWSGI without a master, its mules and spoolers, and a child of a worker are alone."""
    uwsgi.masterpid, uwsgi.worker_id = lambda: master, lambda: worker

    assert find_root() is None


def test_child_adopted_by_the_root(uwsgi):
    """A child that a worker left behind, and that the root adopted as pid 1, is no worker."""
    root = find_root()
    recognition._roots = {os.getpid() + 1: root}  # As inherited from the worker.

    assert find_root() is None


def test_outside_is_no_root(uwsgi, monkeypatch):
    """The parent of a container's first process isn't visible."""
    monkeypatch.setattr(os, "getppid", lambda: 0)

    assert find_root() is None


def test_without_proc(uwsgi, monkeypatch):
    """Without /proc the start is unknown."""
    monkeypatch.setattr(recognition, "_proc", lambda pid, name: b"")

    assert ("uwsgi", os.getppid(), 0, 0) == find_root()


def test_evidence_that_raises(uwsgi):
    """A server that has changed is no reason to raise."""
    del uwsgi.worker_id

    assert find_root() is None


def test_plain_process():
    """The process of these tests is no worker, and recognition imports no server."""
    assert find_root() is None
