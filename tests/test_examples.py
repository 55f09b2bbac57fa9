"""Each example runs as its first lines describe, under the server that they name."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from scaleobs._cli.demo.processes import LOOPBACK, get, get_json, running

pytestmark = pytest.mark.servers

EXAMPLES = Path(__file__).parents[1] / "examples"
PATHS = os.pathsep.join([str(EXAMPLES), *filter(None, [os.environ.get("PYTHONPATH")])])
ENVIRONMENT = {"PYTHONPATH": PATHS, "SCALEOBS_DRAIN_SECONDS": "0"}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_example_runs_as_documented(path, tmp_path):
    """
    The server starts, the path to try answers, and its request is counted under a template.
    """
    text = path.read_text()
    server, application = re.search(r"^Run: (\w+) (\S+)$", text, re.MULTILINE).groups()
    to_try = re.search(r"^Try: (\S+)$", text, re.MULTILINE)[1]
    command = [sys.executable, "-m", server, application]

    def at(port):
        return [*command, "--port", str(port)] if server == "uvicorn" else [*command, "--bind", f"{LOOPBACK}:{port}"]

    # A check may need longer than its time at the first request, on a busy machine.
    with running(path.stem, at, ready="/ready", directory=tmp_path, env=ENVIRONMENT) as program:
        status, _ = get(f"{program.url}{to_try}")
        ready = get_json(f"{program.url}/ready")
        _, metrics = get(f"{program.url}/metrics")

    assert status == 200
    assert ready["status"] == "UP"
    counted = re.findall(
        r'^http_requests_total\{method="GET",route="([^"]+)",status_code="200"\} 1', metrics.decode(), re.MULTILINE
    )
    is_endpoint_of_ours = to_try == "/ready"
    assert len(counted) == (0 if is_endpoint_of_ours else 1)
    assert not any(re.search(r"\d", route) for route in counted)


def test_own_metric_stands_beside_ours(tmp_path):
    """
    A counter of the application's own is in the answer of /metrics.
    """
    command = [sys.executable, "-m", "uvicorn", "own_metric:app", "--port"]
    with running(
        "own", lambda port: [*command, str(port)], ready="/health", directory=tmp_path, env=ENVIRONMENT
    ) as program:
        get(f"{program.url}/pay")
        _, metrics = get(f"{program.url}/metrics")

    assert b'payments_total{currency="EUR"} 1.0' in metrics
