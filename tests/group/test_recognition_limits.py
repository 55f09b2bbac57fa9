"""Recognition on systems with less evidence than usual."""

from __future__ import annotations

import os

import pytest

from scaleobs._workers import recognition
from scaleobs._workers.recognition import find_root


@pytest.fixture
def evidence(monkeypatch):
    """Make the parent of this process a server, and return the list of such evidence."""
    found = [("gunicorn", os.getppid())]
    monkeypatch.setattr(recognition, "_candidates", lambda: iter(found))
    monkeypatch.setattr(recognition, "_previous_arbiter", lambda pid: 0)
    monkeypatch.setattr(recognition, "_roots", {})
    return found


def test_root_never_changes(evidence):
    """The root of a worker is its parent, also when the evidence has gone."""
    root = find_root()

    assert ("gunicorn", os.getppid(), 0) == (root.server, root.pid, root.previous)
    assert root.started > 0

    evidence.clear()

    assert root == find_root()


def test_root_is_the_parent(evidence):
    """A server that isn't the parent is that of a worker from which this process was forked."""
    evidence[:] = [("gunicorn", os.getpid()), ("uwsgi", 0)]

    assert find_root() is None


def test_child_adopted_by_the_root(evidence):
    """A child that a worker left behind, and that the root adopted as pid 1, is no worker."""
    root = find_root()
    recognition._roots = {os.getpid() + 1: root}  # As inherited from the worker.

    assert find_root() is None


def test_outside_is_no_root(evidence, monkeypatch):
    """The parent of a container's first process isn't visible."""
    monkeypatch.setattr(os, "getppid", lambda: 0)

    assert find_root() is None


def test_without_proc(evidence, monkeypatch):
    """Without /proc the start is unknown."""
    monkeypatch.setattr(recognition, "_proc", lambda pid, name: b"")

    assert ("gunicorn", os.getppid(), 0, 0) == find_root()


def test_evidence_that_raises(evidence, monkeypatch):
    """A server that has changed is no reason to raise."""
    monkeypatch.setattr(recognition, "_candidates", lambda: 1 / 0)

    assert find_root() is None


def test_plain_process():
    """The process of these tests is no worker, and recognition imports no server."""
    assert find_root() is None
