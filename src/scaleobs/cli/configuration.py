"""A file that says what `scaleobs rules` is asked for: each key is a flag, and each table of `services` a service."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from scaleobs.cli.options import given

_SERVICES = "services"
_NOT_IN_A_FILE = ("config", "out", "help")
_NOT_OF_ONE_SERVICE = ("format_", "namespace", "labels", "is_helm", "time_scale")


def read(path: Path, command: click.Command) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """
    Return what a file asks of a command, and what it asks otherwise for each service, as the command's parameters.

    Args:
        path: a TOML file.
        command: whose flags are the keys.

    Raises:
        ValueError: it can't be read, has a key that isn't known, or a value that the command would refuse.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        msg = f"Can't read {str(path)!r}: {error.strerror}."
        raise ValueError(msg) from None
    except ValueError as error:
        msg = f"{path} is no TOML file: {error}."
        raise ValueError(msg) from None
    options = {
        option.opts[0].removeprefix("--"): option
        for option in command.params
        if isinstance(option, click.Option) and option.name not in _NOT_IN_A_FILE
    }
    services = content.pop(_SERVICES, [])
    if not isinstance(services, list) or not all(isinstance(one, dict) for one in services):
        msg = f"{path}: {_SERVICES} is {services!r}: write each service as a table, [[{_SERVICES}]]."
        raise ValueError(msg)
    of_one = {key: option for key, option in options.items() if option.name not in _NOT_OF_ONE_SERVICE}
    return (
        _parameters(content, command, options, [*options, f"[[{_SERVICES}]]"], str(path)),
        [
            _parameters(one, command, of_one, of_one, f"{path}, [[{_SERVICES}]] {number}")
            for number, one in enumerate(services, start=1)
        ],
    )


def _parameters(
    table: dict[str, Any], command: click.Command, options: dict[str, click.Option], known: Iterable[str], where: str
) -> dict[str, Any]:
    """Return what the command makes of the table, as if each key were a flag."""
    arguments: list[str] = []
    for key, value in table.items():
        if key not in options:
            msg = f"{where}: the key {key!r} is not known: give one of {', '.join(sorted(known))}."
            raise ValueError(msg)
        arguments += _arguments(key, value, options[key], where)
    try:
        return given(command.make_context(command.name, arguments).params)
    except click.UsageError as error:
        msg = f"{where}: {error.format_message()}"
        raise ValueError(msg) from None


def _arguments(key: str, value: Any, option: click.Option, where: str) -> Iterator[str]:
    if option.is_flag and isinstance(value, bool):
        if value:
            yield f"--{key}"
        return
    values = value if option.multiple and isinstance(value, list) else [value]
    for one in values:
        if option.is_flag or isinstance(one, bool) or not isinstance(one, str | int | float):
            what = "true or false" if option.is_flag else "a list of texts" if option.multiple else "a text or a number"
            msg = f"{where}: {key} is {one!r}: give {what}."
            raise ValueError(msg)
        yield f"--{key}={one}"
