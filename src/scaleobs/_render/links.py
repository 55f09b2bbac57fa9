"""The links of an alert, and the names of the service in them."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from scaleobs._render.promql import ROUTE

_LONGEST_UID = 40
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,199}", re.ASCII)


def service_and_job(service: str | None, job: str | None) -> tuple[str | None, str | None]:
    """
    Return both names of a service; one that is missing is replaced by the other. Both are None for every service.

    They are written into matchers, templates and file names, so that characters that need escaping there are refused.

    Raises:
        ValueError: a name is empty, too long, or has other characters.
    """
    for kind, name in (("service", service), ("job", job)):
        if name is not None and not _NAME.fullmatch(name):
            msg = (
                f"The {kind} name {name[:200]!r} can't be used: give 1 to 200 letters, digits, '_', '-', "
                f"'.', ':' or '/', beginning with a letter or a digit, e.g. orders."
            )
            raise ValueError(msg)
    return service or job, job or service


def resource_name(name: str) -> str:
    """Return a name that is valid for a resource of Kubernetes (DNS-1123), similar to the given one."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def dashboard_uid(service: str | None) -> str:
    """Return Grafana's identifier of the dashboard of one service, or of every service."""
    name = f"scaleobs-{resource_name(service)}" if service else "scaleobs-service"
    if len(name) <= _LONGEST_UID:
        return name
    return f"{name[: _LONGEST_UID - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


_URL = re.compile(r"https?://[A-Za-z0-9\-._~:/@!$&()*+,;=%\[\]]+")
_VARIABLE_LABELS = ("instance", ROUTE)
"""The labels of alerts, beside `job`, for which the dashboard has a variable."""


@dataclass(frozen=True, slots=True)
class Links:
    """
    The beginnings of the addresses in the annotations of alerts.

    Without an address the annotations have only the rest: the file and its section, the path of the dashboard.

    Args:
        service: the service with its own dashboard; None for the dashboard of every service.
        runbook_url: the address of RUNBOOK.md, or of a team's own with the same headings.
        dashboard_url: the address of Grafana.

    Raises:
        ValueError: an address is not valid, or nothing can be appended to it.
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

    def of(self, alert: str, text: str) -> dict[str, str]:
        """
        Return the annotations of an alert.

        Args:
            alert: its name, which is a heading of the runbook.
            text: its summary and description, which show which labels it has.
        """
        variables = "".join(_variable(label, text) for label in _VARIABLE_LABELS)
        page = f"{(self.dashboard_url or '').rstrip('/')}/d/{dashboard_uid(self.service)}"
        return {
            "runbook_url": f"{self.runbook_url or 'RUNBOOK.md'}#{alert.lower()}",
            "dashboard_url": f"{page}?var-job={{{{ $labels.job | urlquery }}}}{variables}",
        }


def _variable(label: str, text: str) -> str:
    if f"{{{{ if $labels.{label} }}}}" in text:
        return f"{{{{ with $labels.{label} }}}}&var-{label}={{{{ . | urlquery }}}}{{{{ end }}}}"
    return f"&var-{label}={{{{ $labels.{label} | urlquery }}}}" if f"$labels.{label}" in text else ""


_EXAMPLES = {"runbook": "wiki.example.com/runbook", "dashboard": "grafana.example.com"}
