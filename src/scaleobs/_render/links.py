"""The links of an alert, and the names of the service in them."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from scaleobs._render.promql import ROUTE

_LONGEST_UID = 40
_SENSIBLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,199}", re.ASCII)


def service_and_job(service: str | None, job: str | None) -> tuple[str | None, str | None]:
    """
    Return both names of a service, each of which stands in for the other; both None for every service.

    They go between the quotes of a matcher, into templates and into names of files, so anything that would
    have to be escaped there is refused rather than escaped.

    Raises:
        ValueError: a name is empty, too long, or has characters that no sensible job name has.
    """
    for kind, name in (("service", service), ("job", job)):
        if name is not None and not _SENSIBLE.fullmatch(name):
            msg = (
                f"The {kind} name {name[:200]!r} can't be used: give 1 to 200 letters, digits, '_', '-', "
                f"'.', ':' or '/', beginning with a letter or a digit, e.g. orders."
            )
            raise ValueError(msg)
    return service or job, job or service


def resource_name(name: str) -> str:
    """Return a name that Kubernetes accepts for a resource (DNS-1123), near to the given one."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def dashboard_uid(service: str | None) -> str:
    """Return what Grafana knows the dashboard of a service by, or the one that any service can be chosen on."""
    name = f"scaleobs-{resource_name(service)}" if service else "scaleobs-service"
    if len(name) <= _LONGEST_UID:
        return name
    return f"{name[: _LONGEST_UID - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


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
