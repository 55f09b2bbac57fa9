"""What a person sees of a demo: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from scaleobs.cli.sampling import ProbeState, RouteRates

_PLAIN_EVERY_SECONDS = 5.0
_EVENTS_SHOWN = 10

_STYLES = {"firing": "bold red", "pending": "yellow", "DOWN": "bold red", "UP": "green", "no answer": "bold red"}


@dataclass(slots=True)
class View:
    """What is shown at one moment."""

    title: str = "starting"
    rates: list[RouteRates] = field(default_factory=list)
    probes: list[ProbeState] = field(default_factory=list)
    alerts: dict[str, str] | None = None
    """Alert to `pending` or `firing`; None without a Prometheus."""


class Board:
    """
    Shows a view as it changes, and says what happened.

    Args:
        console: where; a terminal gets a live table, anything else a plain line every five seconds.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._begun = time.monotonic()
        self._events: list[str] = []
        self._last_plain = 0.0
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()
            for event in self._events:
                self._console.print(event, highlight=False)

    def event(self, what: str) -> None:
        """Say that something happened."""
        line = f"{self._clock()}  {what}"
        self._events.append(line)
        if self._live is None:
            self._console.print(line, highlight=False, soft_wrap=True)

    def show(self, view: View) -> None:
        """Show how things are now."""
        if self._live is not None:
            self._live.update(self._table(view), refresh=True)
        elif time.monotonic() - self._last_plain >= _PLAIN_EVERY_SECONDS:
            self._last_plain = time.monotonic()
            self._console.print(f"{self._clock()}  {_plain(view)}", highlight=False, soft_wrap=True)

    def _clock(self) -> str:
        seconds = int(time.monotonic() - self._begun)
        return f"{seconds // 60:02d}:{seconds % 60:02d}"

    def _table(self, view: View) -> Group:
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.add_column("route", min_width=24)
        for name in ("requests/s", "errors", "p50", "p99"):
            table.add_column(name, justify="right", min_width=8)
        for one in view.rates:
            share = Text(f"{one.failed_share:.1%}", style="bold red" if one.failed_share else "")
            table.add_row(
                f"{one.method} {one.route}",
                f"{one.per_second:.1f}",
                share,
                _milliseconds(one.p50),
                _milliseconds(one.p99),
            )
        probes = Text("probes   ")
        for probe in view.probes:
            probes.append(f"{probe.path} ")
            probes.append(probe.status, _STYLES.get(probe.status, ""))
            probes.append(f" ({', '.join(probe.down)})   " if probe.down else "   ")
        alerts = Text("alerts   ")
        if view.alerts is None:
            alerts.append("need a Prometheus")
        elif not view.alerts:
            alerts.append("none pending, none firing")
        for name, state in (view.alerts or {}).items():
            alerts.append(f"{name} ")
            alerts.append(f"{state}   ", _STYLES.get(state, ""))
        title = Text(f"scaleobs demo  {self._clock()}  {view.title}", style="bold")
        events = [Text(event) for event in self._events[-_EVENTS_SHOWN:]]
        return Group(title, Text(), table, Text(), probes, alerts, Text(), *events)


def _plain(view: View) -> str:
    requests = sum(one.per_second for one in view.rates)
    failed = sum(one.per_second * one.failed_share for one in view.rates)
    slowest = max((one for one in view.rates if one.p99 is not None), key=lambda one: one.p99 or 0, default=None)
    parts = [
        f"{requests:.1f} requests/s",
        f"errors {failed / requests if requests else 0:.1%}",
        f"slowest {slowest.method} {slowest.route} p99 {_milliseconds(slowest.p99)}" if slowest else "no requests yet",
        *(f"{probe.path} {probe.status}" for probe in view.probes),
    ]
    if view.alerts is not None:
        parts.append("alerts " + (", ".join(f"{name} {state}" for name, state in view.alerts.items()) or "none"))
    return " | ".join(parts)


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.0f} ms"
