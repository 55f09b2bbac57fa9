"""`scaleobs run` passes our log configuration to a server, and leaves everything else as it is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from scaleobs._cli import commands
from support import servers

SCALEOBS = str(servers.BIN / "scaleobs")


def test_configuration_is_the_shipped_file():
    """The path is that of the shipped file."""
    shipped = Path(__file__).parents[1] / "integrations" / "uvicorn" / "log_config.json"

    assert json.loads(shipped.read_text()) == json.loads(Path(commands.log_config()).read_text())


def test_user_variables_have_precedence():
    """The user's variables stay, and gunicorn's other arguments follow ours."""
    own_environment = {"UVICORN_LOG_CONFIG": "mine.json", "GUNICORN_CMD_ARGS": "--workers 3", "PATH": "/bin"}
    found = commands.server_environment(own_environment)

    assert ("mine.json", "/bin") == (found["UVICORN_LOG_CONFIG"], found["PATH"])
    assert f"--log-config-json {commands.log_config()} --workers 3" == found["GUNICORN_CMD_ARGS"]


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
    assert [one.format(commands.log_config()) for one in expected] == commands.server_arguments(command)


def test_program_takes_its_place():
    """It has the same process number, unchanged arguments, and its exit code is returned."""
    code = "import os, sys; print(os.getpid(), sys.argv[1:]); sys.exit(3)"
    with subprocess.Popen(
        [SCALEOBS, "run", "--", sys.executable, "-c", code, "--help", "-x"], stdout=subprocess.PIPE, text=True
    ) as process:
        out = process.stdout.read()

    assert (f"{process.pid} ['--help', '-x']\n", 3) == (out, process.returncode)


def test_missing_program():
    """The error has the name and the fix."""
    done = subprocess.run([SCALEOBS, "run", "nosuch"], capture_output=True, text=True, check=False)

    assert 2 == done.returncode
    assert "The program 'nosuch' is not found: give the command of a server" in done.stderr
