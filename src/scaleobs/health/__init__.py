"""Checks, how they are run, and the report that a probe makes of them."""

from scaleobs.health.check import Check, CheckFunction, Options, Probe
from scaleobs.health.checks import Checks
from scaleobs.health.results import CheckFailed, Report, Result

__all__ = ["Check", "CheckFailed", "CheckFunction", "Checks", "Options", "Probe", "Report", "Result"]
