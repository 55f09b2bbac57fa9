"""`log_file` has the same lines as stdout, also after logrotate renamed or truncated it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys

import pytest

import scaleobs
from scaleobs import logs
from support.exchanges import log_lines


def events(path):
    """Return the events in a file."""
    return [json.loads(line)["event"] for line in path.read_text().splitlines()]


def test_file_has_the_same_lines(tmp_path, capsys):
    """Every line is also in the file, and is counted once."""
    path = tmp_path / "orders.json"
    path.write_text('{"event":"before"}\n')
    scaleobs.configure_logging(log_format="json", log_file=path)
    before = sum(logs._sink.lines_written().values())
    scaleobs.get_logger().info("one")
    logging.getLogger("x").info("two")

    assert ["before", "one", "two"] == events(path)
    assert ["one", "two"] == [line["event"] for line in log_lines(capsys)]
    assert 2 == sum(logs._sink.lines_written().values()) - before


def test_file_survives_logrotate(tmp_path):
    """If logrotate renames, removes or truncates the file, no line is lost, and none is torn."""
    path, moved = tmp_path / "orders.json", tmp_path / "orders.json.1"
    scaleobs.configure_logging(log_format="json", log_file=str(path))
    log = scaleobs.get_logger()
    log.info("one")
    path.rename(moved)
    log.info("two")

    assert (["one"], ["two"]) == (events(moved), events(path))

    moved.write_bytes(path.read_bytes())  # copytruncate
    os.truncate(path, 0)
    log.info("three")

    assert (["two"], ["three"]) == (events(moved), events(path))

    path.unlink()
    log.info("four")

    assert ["four"] == events(path)


def test_file_of_several_processes(tmp_path):
    """Four processes append while the file is renamed: all lines are there, whole."""
    path, moved = tmp_path / "orders.json", tmp_path / "orders.json.1"
    code = f"""
import os, scaleobs
scaleobs.configure_logging(log_format="json", log_file={str(path)!r})
children = []
for worker in range(4):
    if not (child := os.fork()):
        for number in range(300):
            scaleobs.get_logger().info("x", worker=worker, number=number, text="t" * 5000)
            if (worker, number) == (0, 150):
                os.rename({str(path)!r}, {str(moved)!r})
        os._exit(0)
    children.append(child)
for child in children:
    os.waitpid(child, 0)
"""
    subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, timeout=30, check=True)
    lines = [json.loads(line) for one in (moved, path) for line in one.read_text().splitlines()]

    assert 1200 == len({(line["worker"], line["number"]) for line in lines}) == len(lines)


def test_file_that_cannot_be_opened_is_refused(tmp_path):
    """The error has the reason."""
    with pytest.raises(scaleobs.SettingsError, match=r"log_file is .*No such file"):
        scaleobs.configure_logging(log_file=str(tmp_path / "no" / "x"))


def test_named_pipe_is_refused(tmp_path):
    """The start does not hang until a process reads it."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(scaleobs.SettingsError, match=r"log_file is .*pipe.*: .*it is a named pipe"):
        scaleobs.configure_logging(log_file=str(path))


def test_named_pipe_in_place_of_the_file(tmp_path, capsys):
    """Lines are still written to stdout, and no request waits."""
    path = tmp_path / "log"
    scaleobs.configure_logging(log_format="json", log_file=str(path))
    path.unlink()
    os.mkfifo(path)
    scaleobs.get_logger().info("one")

    assert "one" in [line["event"] for line in log_lines(capsys)]


def test_removed_folder(tmp_path, capsys):
    """If the folder was removed, lines are still written to stdout."""
    folder = tmp_path / "logs"
    folder.mkdir()
    scaleobs.configure_logging(log_format="json", log_file=str(folder / "x"))
    (folder / "x").unlink()
    folder.rmdir()
    scaleobs.get_logger().info("one")

    assert "one" in [line["event"] for line in log_lines(capsys)]


FULL = """
import resource, sys
import scaleobs
file = None if sys.argv[1] == "-" else sys.argv[1]
scaleobs.configure_logging(log_format="json", log_file=file)
log = scaleobs.get_logger()
log.info("one")
resource.setrlimit(resource.RLIMIT_FSIZE, (300, resource.RLIM_INFINITY))
log.info("two", text="x" * 400)
log.info("three")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log.info("four")
log.info("five")
"""


@pytest.mark.parametrize("way", ["stdout", "log_file"])
def test_full_disk_tears_one_line(way, tmp_path):
    """If the kernel writes only a part of a line, the next line that fits starts after a line break."""
    path = tmp_path / "lines"
    command = [sys.executable, "-c", FULL, "-" if way == "stdout" else str(path)]
    with path.open("wb") as out:
        subprocess.run(command, stdout=out if way == "stdout" else subprocess.DEVNULL, timeout=60, check=True)
    one, torn, *others = path.read_text().splitlines()

    assert "one" == json.loads(one)["event"]
    assert '"two"' in torn
    assert not torn.endswith("}")
    written = [json.loads(line)["event"] for line in others]
    assert ["four", "log.lines_lost", "five"] == written
