"""Lines of real processes in real pipes: all of them, whole, and no process waits forever."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from support import servers

HOSTILE = Path(__file__).parent / "support" / "hostile_records.py"
MAX_LINE_BYTES = 16_384
ATOMIC = 4096

CONFIGURED = """
import logging, os, signal, sys, time
import scaleobs
from scaleobs.logs import _sink
scaleobs.configure_logging(service="shop", log_format="json")
log = scaleobs.get_logger("shop")
"""


def run(code, **popen):
    """Run a program that has configured logging."""
    return subprocess.Popen([sys.executable, "-c", CONFIGURED + code], **popen)


def parsed(line):
    """Return the object of a line, which has no line break and no constant that JSON does not have."""
    assert not any(end in line for end in ("\x7f", "\x85", "\u2028", "\u2029"))
    return json.loads(line, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))


def check_hostile_records(lines):
    """Let four processes write that many hostile records into one pipe, and check the output."""
    command = [sys.executable, str(HOSTILE), "4", str(lines)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        found = [line.decode() for line in process.stdout]
    objects = [parsed(line) for line in found]
    expected = Counter(f"{worker}:{number}" for worker in range(4) for number in range(lines // 4))

    assert 0 == process.returncode
    assert expected == Counter(one["which"] for one in objects)
    assert MAX_LINE_BYTES >= max(len(line.encode()) for line in found)
    assert ATOMIC < max(len(line.encode()) for line in found)


@pytest.mark.servers
def test_hostile_records_of_four_processes():
    """Every line is valid, none is missing, none is torn, and none is so long that a container runtime splits it."""
    check_hostile_records(10_000)


# An older kernel has no flag to write without waiting.
KERNELS = pytest.mark.parametrize("kernel", ["", "_sink._NOWAIT = 0"], ids=["current", "before 6.4"])


@KERNELS
def test_lines_longer_than_an_atomic_write(kernel):
    """Long and short lines of four processes do not mix while the reader is slow."""
    code = f"""
{kernel}
children = []
for worker in range(4):
    if not (child := os.fork()):
        for number in range(500):
            log.info("x" * (15_000 if number % 3 else 20), worker=worker)
        os._exit(0)
    children.append(child)
for child in children:
    os.waitpid(child, 0)
"""
    pieces = []
    with run(code, stdout=subprocess.PIPE) as process:
        while piece := os.read(process.stdout.fileno(), 5_000):
            pieces.append(piece)
    lines = b"".join(pieces).decode().splitlines()

    assert dict.fromkeys(range(4), 500) == Counter(parsed(line)["worker"] for line in lines)


@KERNELS
def test_pipe_without_a_reader(kernel):
    """The application waits for a bounded time, lost lines are counted, and a late reader gets whole lines."""
    code = f"""
{kernel}
_sink._TIMEOUT_SECONDS = 0.3
begun = time.monotonic()
for number in range(300):
    log.info("x" * 3000, number=number)
seconds = time.monotonic() - begun
sys.stderr.write(f"{{seconds}} {{_sink.lines_written()}}\\n")
sys.stderr.flush()
sys.stdin.readline()
log.info("read again")
"""
    with run(code, stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.PIPE) as process:
        seconds, _, written = process.stderr.readline().decode().partition(" ")
        found = os.read(process.stdout.fileno(), 1 << 16)
        process.stdin.write(b"\n")
        process.stdin.flush()
        found = (found + process.stdout.read()).decode()
    lines = [parsed(line) for line in found.splitlines()]
    numbers = [line["number"] for line in lines if "number" in line]
    levels = json.loads(written.replace("'", '"'))

    assert float(seconds) < 5
    assert list(range(len(numbers))) == numbers
    assert 300 == levels["info"] + levels["lost"]
    assert len(numbers) == levels["info"]
    assert "read again" in [line["event"] for line in lines]
    assert [300 - len(numbers)] == [line["lines"] for line in lines if line["event"] == "log.lines_lost"]


@pytest.mark.skipif(not hasattr(os, "O_DIRECT"), reason="only Linux has pipes of packets")
def test_each_line_is_one_write():
    """A pipe of packets, one for each write, has one line in each."""
    read, write = os.pipe2(os.O_DIRECT)
    code = """
for number in range(10):
    log.info("x", number=number)
    logging.getLogger("y").info("y", extra={"number": number})
"""
    with run(code, stdout=write):
        os.close(write)
        packets = list(iter(lambda: os.read(read, 1 << 16), b""))
    os.close(read)

    assert [number for number in range(10) for _ in "xy"] == [parsed(one.decode())["number"] for one in packets]


def test_reader_that_has_ended():
    """If the reader of a pipe has ended, lines are lost, and the process continues."""
    read, write = os.pipe()
    code = """
sys.stdin.readline()
log.info("lost"); logging.getLogger("x").error("lost")
sys.stderr.write(str(_sink.lines_written()["lost"]))
"""
    process = run(code, stdout=write, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    os.close(write)
    os.close(read)
    _, err = process.communicate("\n", timeout=servers.LIMIT)

    assert (0, "2") == (process.returncode, err)


@pytest.mark.parametrize("close", ["sys.stdout.close()", "os.close(1)", "sys.stdout = None"])
def test_stdout_that_is_closed(close):
    """The same if the process has closed stdout itself."""
    code = f"""{close}
log.info("lost"); logging.getLogger("x").error("lost")
sys.stderr.write(str(_sink.lines_written()["lost"]))
sys.stderr.flush()
os._exit(0)
"""
    process = run(code, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    out, err = process.communicate(timeout=servers.LIMIT)

    assert (0, "", "2") == (process.returncode, out, err)


def test_closed_stdout_is_not_written_to():
    """A file that gets the descriptor of the closed stdout gets none of its lines."""
    code = """
sys.stdout.close()
os.close(1)
read, write = os.pipe()
log.info("lost"); logging.getLogger("x").error("lost")
os.set_blocking(read, False)
try:
    os.read(read, 100)
except BlockingIOError:
    sys.stderr.write(f"nothing in {read} and {write}")
"""
    process = run(code, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    _, err = process.communicate(timeout=servers.LIMIT)

    assert err.startswith("nothing in 1 and ")


@pytest.mark.parametrize("end", ["", "os.kill(os.getpid(), signal.SIGKILL)", "os._exit(3)", "raise SystemExit(3)"])
def test_nothing_is_lost_at_the_end(end):
    """All lines are written, however the process ends, since there is no buffer."""
    process = run(f"for number in range(50): log.info('x', number=number)\n{end}", stdout=subprocess.PIPE, text=True)
    out, _ = process.communicate(timeout=servers.LIMIT)

    assert list(range(50)) == [parsed(line)["number"] for line in out.splitlines()]


def test_signal_handler_that_logs():
    """A signal handler that logs during a write does not wait, and both lines are whole."""
    code = """
def handle(*_):
    log.info("in the handler", text="y" * 6000)
    # Not at an interval: if a line took longer, the handler would interrupt itself without end.
    signal.setitimer(signal.ITIMER_REAL, 0.0005)

signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.0005)
for number in range(3000):
    log.info("in the program", number=number, text="x" * 6000)
signal.setitimer(signal.ITIMER_REAL, 0)
"""
    process = run(code, stdout=subprocess.PIPE, text=True)
    out, _ = process.communicate(timeout=servers.LIMIT)
    lines = [parsed(line) for line in out.splitlines()]

    assert list(range(3000)) == [line["number"] for line in lines if line["event"] == "in the program"]
    assert "in the handler" in {line["event"] for line in lines}
    assert 0 == process.returncode


def test_print_and_lines_keep_their_order():
    """The output of `print` before a line precedes the line."""
    process = run("print('one'); log.info('two'); print('three')", stdout=subprocess.PIPE, text=True)
    out, _ = process.communicate(timeout=servers.LIMIT)
    one, two, three = out.splitlines()

    assert ("one", "two", "three") == (one, parsed(two)["event"], three)


def test_stopped_process_that_holds_the_lock():
    """If a worker is stopped during a write, others lose lines, and continue."""
    code = """
import fcntl
_sink._TIMEOUT_SECONDS = 0.3
if not (child := os.fork()):
    fcntl.lockf(1, fcntl.LOCK_EX)
    os.write(2, b"!")
    os.kill(os.getpid(), signal.SIGSTOP)
    os._exit(0)
os.waitpid(child, os.WUNTRACED)
log.info("lost"); log.info("lost")
os.kill(child, signal.SIGCONT); os.waitpid(child, 0)
log.info("written")
"""
    begun = time.monotonic()
    process = run(code, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    out, _ = process.communicate(timeout=servers.LIMIT)

    assert time.monotonic() - begun < 10
    assert ["log.lines_lost", "written"] == sorted(parsed(line)["event"] for line in out.splitlines())
