"""Forwards the console script of an editable installation that is older than `scaleobs._cli`."""

# Delete this package once every environment is installed again: pyproject.toml names `scaleobs._cli:main`.
from scaleobs._cli import main as run

__all__ = ["run"]
