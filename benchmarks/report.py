"""The results as text for a reader, and as data."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

_PEERS = (
    *("prometheus-client", "starlette-exporter", "prometheus-fastapi-instrumentator", "prometheus-flask-exporter"),
    *(
        "django-prometheus",
        "opentelemetry-sdk",
        "opentelemetry-instrumentation-asgi",
        "structlog",
        "orjson",
        "python-json-logger",
        "asgi-correlation-id",
    ),
    *("starlette", "fastapi", "flask", "django", "uvicorn"),
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A number and its budget."""

    budget: str
    is_within: bool

    def __str__(self) -> str:
        return f"{self.budget} {'ok' if self.is_within else 'OVER'}"


@dataclass(frozen=True, slots=True)
class Row:
    """
    One subject.

    Attributes:
        values: column to number.
        verdicts: one per budget that it has.
        failure: shown in place of the numbers.
        rounds: all measurements.
    """

    name: str
    values: dict[str, float] = field(default_factory=dict)
    verdicts: tuple[Verdict, ...] = ()
    failure: str = ""
    rounds: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Section:
    """
    One table.

    Attributes:
        columns: title to the format of its numbers.
        note: the noise, and what the numbers mean.
    """

    title: str
    columns: dict[str, str]
    rows: tuple[Row, ...]
    note: str = ""


def at_most(budget: float, value: float, unit: str) -> Verdict:
    """Return whether a number is within a budget; judged unrounded."""
    return Verdict(f"<= {budget:g} {unit}", value <= budget)


def at_least(budget: float, value: float, unit: str) -> Verdict:
    """Return whether a number reaches a budget; judged unrounded."""
    return Verdict(f">= {budget:g} {unit}", value >= budget)


def shown(section: Section) -> str:
    """Return a section as text."""
    lines = [["", *section.columns, "budget"]]
    failures: list[str] = []
    for row in section.rows:
        if row.failure:
            lines.append([row.name, *("-" for _ in section.columns), ""])
            failures.append(f"  ! {row.name}: {row.failure}")
            continue
        cells = [
            format(row.values[title], form) if title in row.values else "" for title, form in section.columns.items()
        ]
        lines.append([row.name, *cells, ", ".join(map(str, row.verdicts))])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [section.title, *([f"  {section.note}"] if section.note else [])]
    for name, *cells, budget in lines:
        numbers = "".join(f"  {cell:>{width}}" for cell, width in zip(cells, widths[1:], strict=False))
        text.append(f"  {name:<{widths[0]}}{numbers}  {budget}".rstrip())
    return "\n".join([*text, *failures, ""])


def machine() -> dict[str, Any]:
    """Return the machine and the versions of the measurement."""
    return {
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "processors": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 2),
        "versions": {name: version for name in _PEERS if (version := _version(name))},
    }


def as_data(sections: Iterable[Section]) -> dict[str, Any]:
    """Return all results of a run as data for JSON."""
    return {"machine": machine(), "sections": [asdict(section) for section in sections]}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
