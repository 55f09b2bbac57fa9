"""
What an instrumented application says of itself: its service's name and its objectives.

It is imported in a process of its own, which ends by force: whatever an import starts or configures is gone then, what
it prints is never among the rules, and two applications that are both called `app` don't meet.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import json
import operator
import os
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any, NamedTuple

from scaleobs._render.overrides import to_flag
from scaleobs.objectives import Objective, parse

_SHARED = "PROMETHEUS_MULTIPROC_DIR"


class Said(NamedTuple):
    """What an application says of itself."""

    service: str | None
    """None where it has no name."""
    objectives: list[Objective]


class _Unusable(Exception):  # noqa: N818 - It is a sentence for the user.
    """Why an application can't be read."""


def said_by(app: str) -> Said:
    """
    Import an application and return what it says of itself.

    Args:
        app: the module, a colon, and what the application or a function that makes it is called there. The module is
            looked for in the current directory, too. What the import prints goes to standard error.

    Raises:
        ValueError: there is none, it can't be imported, or it isn't instrumented.
    """
    module, colon, attribute = app.partition(":")
    if not (module and colon and attribute) or "/" in module or module.endswith(".py"):
        msg = f"The application {app!r} is not known: write it like shop:app, its module and what it is called there."
        raise ValueError(msg)
    with tempfile.TemporaryDirectory() as directory:
        answer = Path(directory, "answer.json")
        # What it counts while it is imported must not be found among what its workers count.
        environ = {**os.environ, _SHARED: directory} if _SHARED in os.environ else None
        done = subprocess.run(  # noqa: S603 - The application is the user's own.
            [sys.executable, "-P", "-m", __name__, module, attribute, answer],
            stdin=subprocess.DEVNULL,
            stdout=2,
            env=environ,
            check=False,
        )
        if not answer.exists():
            msg = (
                f"The application {app!r} can't be read: importing it ended the process with exit code "
                f"{done.returncode}. It must not do that, nor run a server, when it is imported."
            )
            raise ValueError(msg)
        found = json.loads(answer.read_text(encoding="utf-8"))
    if "reason" in found:
        msg = f"The application {app!r} can't be read: {found['reason']}"
        raise ValueError(msg)
    return Said(found["service"], [parse(one) for one in found["objectives"]])


def _main(module: str, attribute: str, answer: str) -> None:
    # Those of the application come first, as under a server, but not before ours were found.
    sys.path.insert(0, str(Path.cwd()))
    try:
        found: dict[str, Any] = _read(module, attribute)
    except _Unusable as error:
        found = {"reason": str(error)}
    Path(answer).write_text(json.dumps(found), encoding="utf-8")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _read(module: str, attribute: str) -> dict[str, Any]:
    from scaleobs.settings import Settings

    app = _found(_imported(module), module, attribute)
    observer = _observer(app)
    if observer is None:
        if not _is_factory(app):
            msg = (
                f"{attribute!r} is not instrumented. Write {attribute} = scaleobs.instrument({attribute}, "
                f"service='orders') there, or name what that returned."
            )
            raise _Unusable(msg)
        observer = _observer(_tried(app, f"calling {attribute}()"))
        if observer is None:
            msg = f"what {attribute}() returned is not instrumented: have it return scaleobs.instrument(app)."
            raise _Unusable(msg)
    mine = observer.settings
    return {
        "service": None if mine.service == Settings().service else mine.service,
        "objectives": [to_flag(one) for one in mine.objectives],
    }


def _observer(app: Any) -> Any:
    from scaleobs._instrument import observer_of

    try:
        return observer_of(app)
    except LookupError:
        return None


def _imported(module: str) -> Any:
    def find() -> Any:
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise
            msg = (
                f"there is no module {error.name!r} in {Path.cwd()} or among what is installed. Run scaleobs where "
                f"the server is started, or set PYTHONPATH."
            )
            raise _Unusable(msg) from None

    return _tried(find, f"importing {module}")


def _found(module: Any, name: str, attribute: str) -> Any:
    try:
        return operator.attrgetter(attribute)(module)
    except AttributeError:
        close = difflib.get_close_matches(attribute.removesuffix("()"), dir(module), n=1, cutoff=0.5)
        meant = f" Did you mean {f'{name}:{close[0]}'!r}?" if close else ""
        msg = f"the module {name!r} has no {attribute!r}.{meant}"
        raise _Unusable(msg) from None


def _is_factory(app: Any) -> bool:
    if not callable(app):
        return False
    try:
        parameters = inspect.signature(app).parameters.values()
    except (TypeError, ValueError):  # Written in C.
        return False
    return all(one.default is not one.empty or one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD) for one in parameters)


def _tried(call: Any, what: str) -> Any:
    try:
        return call()
    except _Unusable:
        raise
    except (Exception, SystemExit) as error:
        shown = error.__traceback__
        while shown is not None and _is_not_theirs(shown.tb_frame.f_code.co_filename):
            shown = shown.tb_next
        traceback.print_exception(type(error), error, shown)
        msg = (
            f"{what} raised {type(error).__name__}: {error}, see above. It has to work here as it does under "
            f"its server: give it the same packages, environment variables and directory."
        )
        raise _Unusable(msg) from None


def _is_not_theirs(file: str) -> bool:
    return file in (__file__, importlib.__file__) or file.startswith("<frozen importlib")


if __name__ == "__main__":
    _main(*sys.argv[1:])
