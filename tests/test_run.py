"""`scaleobs run` tells a server of our log configuration by what that server listens to, and leaves the rest alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from scaleobs.cli import run
from support import servers

SCALEOBS = str(servers.BIN / "scaleobs")


def test_configuration_is_there():
    """It is the file that ships."""
    shipped = Path(__file__).parents[1] / "integrations" / "uvicorn" / "log_config.json"

    assert json.loads(shipped.read_text()) == json.loads(Path(run.log_config()).read_text())


def test_what_the_user_has_set_counts_more():
    """Variables of the user's stay, and gunicorn's further arguments stand behind ours."""
    mine = {"UVICORN_LOG_CONFIG": "mine.json", "GUNICORN_CMD_ARGS": "--workers 3", "PATH": "/bin"}
    found = run.environment(mine)

    assert ("mine.json", "/bin") == (found["UVICORN_LOG_CONFIG"], found["PATH"])
    assert f"--log-config-json {run.log_config()} --workers 3" == found["GUNICORN_CMD_ARGS"]


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["uvicorn", "a:b"], ["uvicorn", "a:b"]),
        (["hypercorn", "a:b"], ["hypercorn", "--log-config", "json:{}", "a:b"]),
        (["/x/hypercorn", "--log-config", "mine", "a:b"], ["/x/hypercorn", "--log-config", "mine", "a:b"]),
    ],
)
def test_arguments(command, expected):
    """hypercorn, which reads no variable, gets an argument, unless it has one."""
    assert [one.format(run.log_config()) for one in expected] == run.arguments(command)


def test_program_takes_its_place():
    """It has the same process number, its arguments as they are, and its exit code comes back."""
    code = "import os, sys; print(os.getpid(), sys.argv[1:]); sys.exit(3)"
    with subprocess.Popen(
        [SCALEOBS, "run", "--", sys.executable, "-c", code, "--help", "-x"], stdout=subprocess.PIPE, text=True
    ) as process:
        out = process.stdout.read()

    assert (f"{process.pid} ['--help', '-x']\n", 3) == (out, process.returncode)


def test_program_that_is_not_there():
    """The error names it and says what to give."""
    done = subprocess.run([SCALEOBS, "run", "nosuch"], capture_output=True, text=True, check=False)

    assert 2 == done.returncode
    assert "'nosuch' is no program" in done.stderr
