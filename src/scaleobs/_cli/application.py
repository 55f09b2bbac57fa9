"""
The service name and the objectives of an instrumented application.

The application is imported in a process of its own, which exits without cleanup. So threads and configuration of the
import end with it, its output does not reach the rules, and two modules named `app` do not conflict.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from scaleobs._render.overrides import to_flag
from scaleobs.objectives import Objective, parse

_SHARED = ("SCALEOBS_WORKERS_DIR", "PROMETHEUS_MULTIPROC_DIR")


class AppInfo(NamedTuple):
    """The settings of an application that rules depend on."""

    service: str | None
    """None if the application has no service name."""
    objectives: list[Objective]


class _LoadError(Exception):
    """The reason why an application can't be loaded, for the user."""


def load(app: str) -> AppInfo:
    """
    Import an application and return its service name and objectives.

    Args:
        app: the module, a colon, and the name of the application or of its factory in that module. Modules in the
            current directory are found, too. Output of the import goes to standard error.

    Raises:
        ValueError: there is no such application, its import fails, or it is not instrumented.
    """
    module, colon, attribute = app.partition(":")
    if not (module and colon and attribute) or "/" in module or module.endswith(".py"):
        msg = f"The application {app!r} is not a module, a colon and a name: write it like shop:app."
        raise ValueError(msg)
    with tempfile.TemporaryDirectory() as directory:
        answer = Path(directory, "answer.json")
        # The import must not count among the workers of a running service.
        environ = {**os.environ, **dict.fromkeys((name for name in _SHARED if name in os.environ), directory)}
        done = subprocess.run(  # noqa: S603 - The application is the user's own.
            [sys.executable, "-P", "-m", __name__, module, attribute, answer],
            stdin=subprocess.DEVNULL,
            stdout=2,
            env=environ,
            check=False,
        )
        if not answer.exists():
            msg = (
                f"The application {app!r} can't be loaded: its import ended the process with exit code "
                f"{done.returncode}. An import must not exit, nor run a server."
            )
            raise ValueError(msg)
        found = json.loads(answer.read_text(encoding="utf-8"))
    if "reason" in found:
        msg = f"The application {app!r} can't be loaded: {found['reason']}"
        raise ValueError(msg)
    return AppInfo(found["service"], [parse(one) for one in found["objectives"]])


def _main(module: str, attribute: str, answer: str) -> None:
    # The application's modules come first, as under its server; scaleobs has been imported before.
    sys.path.insert(0, str(Path.cwd()))
    try:
        found: dict[str, Any] = _read(module, attribute)
    except _LoadError as error:
        found = {"reason": str(error)}
    Path(answer).write_text(json.dumps(found), encoding="utf-8")
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _read(module: str, attribute: str) -> dict[str, Any]:
    from scaleobs.settings import Settings

    app = _attribute(_import(module), module, attribute)
    observer = _observer(app)
    if observer is None:
        if not _is_factory(app):
            msg = (
                f"{attribute!r} is not instrumented: add {attribute} = scaleobs.instrument({attribute}, "
                f"service='orders') to its module, or give the name of the instrumented application."
            )
            raise _LoadError(msg)
        observer = _observer(_call(app, f"calling {attribute}()"))
        if observer is None:
            msg = f"the result of {attribute}() is not instrumented: return scaleobs.instrument(app)."
            raise _LoadError(msg)
    settings = observer.settings
    return {
        "service": None if settings.service == Settings().service else settings.service,
        "objectives": [to_flag(one) for one in settings.objectives],
    }


def _observer(app: Any) -> Any:
    from scaleobs._instrument import observer_of

    try:
        return observer_of(app)
    except LookupError:
        return None


def _import(module: str) -> Any:
    def find() -> Any:
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module}.".startswith(f"{error.name}."):
                raise
            msg = (
                f"there is no module {error.name!r} in {Path.cwd()} or in the installed packages. Run scaleobs in the "
                f"directory in which the server starts, or set PYTHONPATH."
            )
            raise _LoadError(msg) from None

    return _call(find, f"importing {module}")


def _attribute(module: Any, name: str, attribute: str) -> Any:
    try:
        return operator.attrgetter(attribute)(module)
    except AttributeError:
        close = difflib.get_close_matches(attribute.removesuffix("()"), dir(module), n=1, cutoff=0.5)
        suggestion = f" Did you mean {f'{name}:{close[0]}'!r}?" if close else ""
        msg = f"the module {name!r} has no {attribute!r}.{suggestion}"
        raise _LoadError(msg) from None


def _is_factory(app: Any) -> bool:
    if not callable(app):
        return False
    try:
        parameters = inspect.signature(app).parameters.values()
    except (TypeError, ValueError):  # Written in C.
        return False
    return all(one.default is not one.empty or one.kind in (one.VAR_POSITIONAL, one.VAR_KEYWORD) for one in parameters)


def _call(function: Callable[[], Any], action: str) -> Any:
    """Call a function of the application; if it raises, print the traceback without the frames of this module."""
    try:
        return function()
    except _LoadError:
        raise
    except (Exception, SystemExit) as error:
        shown = error.__traceback__
        while shown is not None and _is_import_machinery(shown.tb_frame.f_code.co_filename):
            shown = shown.tb_next
        traceback.print_exception(type(error), error, shown)
        msg = (
            f"{action} raised {type(error).__name__}: {error}, see the traceback above. It needs the same packages, "
            f"environment variables and directory as under its server."
        )
        raise _LoadError(msg) from None


def _is_import_machinery(file: str) -> bool:
    return file in (__file__, importlib.__file__) or file.startswith("<frozen importlib")


if __name__ == "__main__":
    _main(*sys.argv[1:])
