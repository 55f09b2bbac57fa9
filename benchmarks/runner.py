"""Subjects in their own processes, measured in turns, so that the noise of the machine affects all alike."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Run:
    """
    The results of one subject.

    Attributes:
        rounds: what each round measured.
        last: what the action after the rounds returned.
        failure: the reason if it is invalid or could not be measured; otherwise empty.
    """

    name: str
    rounds: list[Any] = field(default_factory=list)
    last: Any = None
    failure: str = ""


class SubjectFailedError(Exception):
    """A subject's process ended; the message is the last line that it wrote."""


class Worker:
    """The parent's end of a subject's process."""

    def __init__(self, family: str, *arguments: str) -> None:
        self._errors = tempfile.TemporaryFile(mode="w+")  # noqa: SIM115 - Closed by `end`.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", family, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": "0"},  # Dicts of the same shape in every run.
        )

    def receive(self) -> Any:
        """
        Return the next message of the process; the first one, before any request, means that it is prepared.

        Raises:
            SubjectFailedError: it ended instead.
        """
        line = self._process.stdout.readline()
        if line:
            return json.loads(line)
        self._process.wait()
        self._errors.seek(0)
        raise SubjectFailedError((self._errors.read().strip().splitlines() or ["no word"])[-1])

    def request(self, action: str, *values: Any) -> Any:
        """Make the process run an action, and return its result."""
        with contextlib.suppress(BrokenPipeError):  # `receive` reports the reason.
            self._process.stdin.write(json.dumps([action, *values]) + "\n")
            self._process.stdin.flush()
        return self.receive()

    def end(self) -> None:
        """End the process."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._errors.close()


def in_turns(
    family: str,
    subjects: dict[str, Sequence[str]],
    *,
    rounds: int,
    last: str = "",
    seldom: Mapping[str, int] | None = None,
) -> list[Run]:
    """
    Measure each subject once per round, each round starting with another one, and check all of them at the end.

    Args:
        family: the module whose `prepare` a worker calls; it returns the actions `measure` and `check`, the latter
            returning what is wrong, or an empty string.
        subjects: name to the arguments of `prepare`.
        rounds: how many.
        last: an action to do once after the rounds, if any.
        seldom: subjects that take too long for every round, and in how many of the rounds they are measured.
    """
    with contextlib.ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for name, arguments in subjects.items():
            workers[name] = Worker(family, *arguments)
            stack.callback(workers[name].end)
        runs = {name: Run(name) for name in subjects}
        for name, worker in workers.items():
            _attempt(runs[name], worker.receive)
        for number in range(rounds):
            for name in rotated([name for name in subjects if number < (seldom or {}).get(name, rounds)], number):
                _attempt(runs[name], lambda name=name: runs[name].rounds.append(workers[name].request("measure")))
        for name, worker in workers.items():
            _attempt(runs[name], lambda name=name, worker=worker: _finish(runs[name], worker, last))
    return list(runs.values())


def _attempt(run: Run, step: Callable[[], Any]) -> None:
    """Run the next step of a subject, unless an earlier one has failed."""
    if not run.failure:
        try:
            step()
        except SubjectFailedError as error:
            run.failure = str(error)


def _finish(run: Run, worker: Worker, last: str) -> None:
    run.last = worker.request(last) if last else None
    run.failure = worker.request("check")


def rotated(names: Sequence[str], number: int) -> Iterator[str]:
    """Yield the names, each round starting with another one, so that no subject always follows the same one."""
    start = number % len(names)
    yield from names[start:]
    yield from names[:start]
