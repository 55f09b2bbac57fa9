"""Checks, their runs, and the report of a probe."""

from scaleobs._health.check import Check, CheckFailed, CheckFunction, Options, Probe, Report, Result
from scaleobs._health.checks import Checks

__all__ = ["Check", "CheckFailed", "CheckFunction", "Checks", "Options", "Probe", "Report", "Result"]
