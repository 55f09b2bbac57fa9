"""Where an alert leads: to its section of the runbook, and to the dashboard of what it is about."""

from __future__ import annotations

import re
from dataclasses import dataclass

from scaleobs.render.names import dashboard_uid
from scaleobs.render.promql import ROUTE

_URL = re.compile(r"https?://[A-Za-z0-9\-._~:/@!$&()*+,;=%\[\]]+")
_CHOOSING = ("instance", ROUTE)
"""The labels of alerts, beside `job`, that a variable of the dashboard is named after."""


@dataclass(frozen=True, slots=True)
class Links:
    """
    The addresses that the annotations of alerts begin with.

    Nobody can know where a team keeps its runbook or its Grafana. Without an address the annotations say what would
    follow it: the file and its section, the path of the dashboard.

    Args:
        service: the service that has a dashboard of its own; None for the one of every service.
        runbook_url: the address of RUNBOOK.md, or of a team's own with the same headings.
        dashboard_url: the address of Grafana.

    Raises:
        ValueError: an address is none, or has something that an address to go on from can't have.
    """

    service: str | None = None
    runbook_url: str | None = None
    dashboard_url: str | None = None

    def __post_init__(self) -> None:
        """Check the addresses."""
        for kind, url in (("runbook", self.runbook_url), ("dashboard", self.dashboard_url)):
            if url is not None and not _URL.fullmatch(url):
                msg = (
                    f"The {kind} URL {url!r} can't be used: give an address that begins with http:// or https:// and "
                    f"has no '#', '?', '{{' or blank, e.g. https://{_EXAMPLES[kind]}."
                )
                raise ValueError(msg)

    def of(self, alert: str, words: str) -> dict[str, str]:
        """
        Return the annotations of an alert.

        Args:
            alert: its name, which is a heading of the runbook.
            words: what it says, from which it shows which labels it has.
        """
        chosen = "".join(_variable(label, words) for label in _CHOOSING)
        page = f"{(self.dashboard_url or '').rstrip('/')}/d/{dashboard_uid(self.service)}"
        return {
            "runbook_url": f"{self.runbook_url or 'RUNBOOK.md'}#{alert.lower()}",
            "dashboard_url": f"{page}?var-job={{{{ $labels.job | urlquery }}}}{chosen}",
        }


def _variable(label: str, words: str) -> str:
    if f"{{{{ if $labels.{label} }}}}" in words:
        return f"{{{{ with $labels.{label} }}}}&var-{label}={{{{ . | urlquery }}}}{{{{ end }}}}"
    return f"&var-{label}={{{{ $labels.{label} | urlquery }}}}" if f"$labels.{label}" in words else ""


_EXAMPLES = {"runbook": "wiki.example.com/runbook", "dashboard": "grafana.example.com"}
