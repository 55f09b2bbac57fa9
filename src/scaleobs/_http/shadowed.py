"""The routes of an application that receive no requests, since an endpoint has their path."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from scaleobs.settings import Settings

_SETTINGS = ("health_path", "ready_path", "startup_path", "metrics_path")
_OPTIONAL_SLASHES = ("(/)?", "/?")
"""The ends of templates, as regular expressions in Django, whose slash may be missing."""


def shadowed(endpoints: Iterable[str], templates: Iterable[str]) -> list[str]:
    """
    Return the paths of endpoints that are routes of the application.

    A route whose path has parameters, such as one for all paths, is none of them: it receives all other paths. Nor is
    `/health/`, which no endpoint has.

    Args:
        endpoints: their paths.
        templates: of the routes, and the paths of mounts.
    """
    own = set(templates)
    own.update(template.removesuffix(end) for template in templates for end in _OPTIONAL_SLASHES)
    return [path for path in endpoints if path in own]


def fix_of(paths: Iterable[str], settings: Settings) -> str:
    """Return how the application gets paths of endpoints back."""
    names: Mapping[object, str] = {getattr(settings, name): f"{name}=None" for name in _SETTINGS}
    arguments = ", ".join(dict.fromkeys(names.get(path, "probe_aliases=False") for path in paths))
    return f"remove these routes, or give instrument({arguments}) so that the application answers them"
