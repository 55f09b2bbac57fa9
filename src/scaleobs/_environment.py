"""The settings that the environment gives: by our variables and by those of OpenTelemetry."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from urllib.parse import unquote


def from_environment(environ: Mapping[str, str], names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """
    Return the variable and its value for each setting that the environment gives.

    Args:
        environ: the variables.
        names: the settings that have a variable of ours.
    """
    resource = _resource_attributes(environ.get("OTEL_RESOURCE_ATTRIBUTES", ""))
    attributes = {
        "service": resource.get("service.name"),
        "version": resource.get("service.version"),
        "environment": resource.get("deployment.environment.name") or resource.get("deployment.environment"),
    }
    given = {name: ("OTEL_RESOURCE_ATTRIBUTES", value) for name, value in attributes.items() if value}
    if environ.get("OTEL_SERVICE_NAME"):
        given["service"] = ("OTEL_SERVICE_NAME", environ["OTEL_SERVICE_NAME"])
    for name in names:
        variable = f"SCALEOBS_{name.upper()}"
        if variable in environ:
            given[name] = (variable, environ[variable])
    return given


def _resource_attributes(text: str) -> dict[str, str]:
    """Return the readable pairs of `OTEL_RESOURCE_ATTRIBUTES`; errors in it are OpenTelemetry's to report."""
    pairs = (pair.partition("=") for pair in text.split(","))
    return {key.strip(): unquote(value.strip()) for key, _, value in pairs if value.strip()}
