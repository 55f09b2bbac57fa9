"""Workers of uWSGI, by a module that says what uWSGI's says; and where little can be known."""

from __future__ import annotations

import os
import sys
import types

import pytest

from scaleobs._workers import recognition
from scaleobs._workers.recognition import root


@pytest.fixture
def uwsgi(monkeypatch):
    """Put a module there that says what uWSGI's says."""
    module = types.ModuleType("uwsgi")
    module.masterpid, module.worker_id = os.getppid, lambda: 1
    monkeypatch.setitem(sys.modules, "uwsgi", module)
    monkeypatch.setattr(recognition, "_known", {})
    return module


def test_worker_of_uwsgi(uwsgi):
    """A worker of uWSGI says its master, for life."""
    said = root()

    assert ("uwsgi", os.getppid(), 0) == (said.server, said.pid, said.before)
    assert said.started > 0

    uwsgi.worker_id = lambda: 0

    assert said == root()


@pytest.mark.parametrize(
    ("master", "worker"), [(0, 1), (os.getppid(), 0), (os.getpid(), 1)], ids=["no master", "mule", "a worker's child"]
)
def test_what_else_runs_in_uwsgi(master, worker, uwsgi):
    """A uWSGI without a master, its mules and spoolers, and a child of a worker are alone."""
    uwsgi.masterpid, uwsgi.worker_id = lambda: master, lambda: worker

    assert root() is None


def test_child_adopted_by_the_root(uwsgi):
    """A child that a worker left behind, and that the root adopted as pid 1, is no worker."""
    said = root()
    recognition._known = {os.getpid() + 1: said}  # As inherited from the worker.

    assert root() is None


def test_outside_is_no_root(uwsgi, monkeypatch):
    """The first process of a container has a parent that can't be seen."""
    monkeypatch.setattr(os, "getppid", lambda: 0)

    assert root() is None


def test_without_proc(uwsgi, monkeypatch):
    """Where there is no /proc the start isn't known."""
    monkeypatch.setattr(recognition, "_proc", lambda pid, name: b"")

    assert ("uwsgi", os.getppid(), 0, 0) == root()


def test_evidence_that_raises(uwsgi):
    """A server that isn't what it was is no reason to raise."""
    del uwsgi.worker_id

    assert root() is None


def test_plain_process():
    """Whoever runs these tests is nobody's worker, and asking loads no server."""
    assert root() is None
