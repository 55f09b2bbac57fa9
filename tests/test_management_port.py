"""The management port in one process, without a server."""

from __future__ import annotations

import subprocess
import sys

from support import servers


def test_port_that_was_tried_out_is_free_under_gevent():
    """An arbiter of gunicorn tries the port out for its workers, and may not run gevent's event loop after that."""
    number = servers.free_port()
    script = f"""
import gevent.monkey
gevent.monkey.patch_all()
gevent.sleep(0)
from scaleobs._management import listening
from scaleobs._management import port
port.check_free({number})
listening.listen({number})
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)

    assert (0, "") == (done.returncode, done.stderr)
