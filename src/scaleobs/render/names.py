"""The names of a service: its own, the job it is scraped under, and what Kubernetes may call it."""

from __future__ import annotations

import hashlib
import re

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
