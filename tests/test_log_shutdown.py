"""Lines that are written while the interpreter ends."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest

BEGINNING = """
import atexit, builtins, datetime, logging, sys, threading, time
import scaleobs, structlog

scaleobs.configure_logging(service="shop", log_format="json")
log, ours = logging.getLogger("shop"), structlog.get_logger("shop")


class Late:
    def __del__(self):
        log.warning("late %s", "line", extra={"order": 7, "password": "hunter2", "text": 'x: "y", token=abc'})
        ours.warning("late of structlog", at=datetime.datetime(2026, 1, 1), values={1}, stack_info=True)
        log.warning("bad %d", "x")
        try:
            1 / 0
        except ZeroDivisionError:
            log.exception("late failure")
            ours.exception("late failure of structlog")
        raise RuntimeError("ignored")
"""
EVENTS = [
    *("late line", "late of structlog", "bad %d", "late failure", "late failure of structlog"),
    "exception.ignored",
]
ENDINGS = {
    "a global": "late = Late()",
    "a cycle": "late = Late(); late.itself = late",
    "a builtin": "builtins.late = Late()",
    "atexit": "atexit.register(lambda late: None, Late())",
    "a thread that outlives main": """
        def run():
            threading.main_thread().join()
            late = Late()
        threading.Thread(target=run).start()
        """,
    "sys.exit": "late = Late(); sys.exit(3)",
}


@pytest.mark.parametrize("where", ENDINGS)
def test_line_at_the_end_of_the_interpreter(where):
    """It is written whole, and nothing is on stderr."""
    source = BEGINNING + textwrap.dedent(ENDINGS[where])
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines()]

    assert "" == done.stderr
    assert EVENTS == [line["event"] for line in lines]
    assert all(line["timestamp"].startswith("20") for line in lines)
    assert "hunter2" not in done.stdout
    assert (7, "[redacted]") == (lines[0]["order"], lines[0]["password"])
    assert all("ZeroDivisionError: division by zero" in line["exception"] for line in lines[3:5])
    assert "RuntimeError: ignored" in lines[5]["exception"]
