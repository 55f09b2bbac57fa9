"""
The process of one subject: prepares it, then runs the actions of its parent, a line of JSON for a line of JSON.

Each subject has a process of its own, so that neither global registries nor patched frameworks meet, and all of
them are alive together, so that the parent can go round.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any, TextIO


def main() -> None:
    """Run `python -m benchmarks.worker FAMILY ARGUMENT...` until standard input ends."""
    answers = answers_to_parent()
    family, *arguments = sys.argv[1:]
    actions = importlib.import_module(f"benchmarks.{family}").prepare(*arguments)
    _send(answers, None)
    for line in sys.stdin:
        action, *values = json.loads(line)
        _send(answers, actions[action](*values))


def answers_to_parent() -> TextIO:
    """Return the parent's pipe, and make /dev/null the stdout of the subject."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    return answers


def _send(answers: TextIO, value: Any) -> None:
    answers.write(json.dumps(value) + "\n")
    answers.flush()


if __name__ == "__main__":
    main()
