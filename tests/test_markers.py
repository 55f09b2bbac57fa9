"""A test that starts a server has the marker `servers`, by which a quick run leaves it out."""

from __future__ import annotations

import subprocess

import pytest

from support import servers

VERSION = [str(servers.BIN / "gunicorn"), "--version"]


def test_server_of_a_test_without_the_marker():
    """The test fails, and the message names the marker."""
    with pytest.raises(pytest.fail.Exception, match=r"needs @pytest\.mark\.servers"):
        subprocess.run(VERSION, check=False)


@pytest.mark.servers
def test_server_of_a_test_with_the_marker():
    """The server starts."""
    assert 0 == subprocess.run(VERSION, capture_output=True, check=False).returncode
