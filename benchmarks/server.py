"""`python -m benchmarks.server SUBJECT`: a Starlette application under uvicorn, on a free port of loopback."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys

import uvicorn

from benchmarks.subjects import asgi
from benchmarks.worker import answers_to_parent


def main() -> None:
    """Print the port, serve until SIGTERM, and print how many requests were counted."""
    subject_name, processor = sys.argv[1:]
    answers = answers_to_parent()
    os.environ["SCALEOBS_DRAIN_SECONDS"] = "0"  # The parent waits for this process.
    if processor != "any":
        os.sched_setaffinity(0, {int(processor)})
    subject = asgi.prepare("starlette", subject_name)
    # uvicorn raises the signal that ended it again, for the previous handler: that is ours, which ignores it.
    signal.signal(signal.SIGTERM, lambda *_: None)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        answers.write(json.dumps(listening.getsockname()[1]) + "\n")
        answers.flush()
        config = uvicorn.Config(subject.app, access_log=False, log_level="warning")
        uvicorn.Server(config).run(sockets=[listening])
    answers.write(json.dumps(None if subject.counted is None else subject.counted()) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
