"""An invalid check is refused when it is registered, with the reason."""

from __future__ import annotations

import pytest

import scaleobs


def service(registry):
    """Return an application that is observed and serves nothing but its endpoints."""
    return scaleobs.instrument(lambda environ, start: [], registry=registry)


def returning(value):
    """Return a check that returns."""
    return lambda: value


@pytest.mark.parametrize("probe", ["live", "health"])
def test_liveness_check_is_refused_with_the_reason(probe, registry):
    """Liveness can't depend on a database."""
    obs = scaleobs.observer_of(service(registry))

    message = f"'db' is for the probe '{probe}': a failing liveness check makes the .* restart.*restart_container=True"
    with pytest.raises(ValueError, match=message):
        obs.check("db", probe=probe)(returning(True))


@pytest.mark.parametrize(
    ("name", "settings", "function", "message"),
    [
        ("db", {"probe": "redy"}, returning(1), "there is no such probe. Give 'ready' or 'startup'"),
        ("", {}, returning(1), "A check is named ''"),
        ("a\nb", {}, returning(1), r"A check is named 'a\\nb'"),
        (None, {}, returning(1), "A check is named None"),
        ("db", {"timeout": 0}, returning(1), "timeout=0: give seconds above 0"),
        ("db", {"timeout": float("nan")}, returning(1), "timeout=nan: give seconds"),
        ("db", {"timeout": "1"}, returning(1), "timeout='1': give seconds"),
        ("db", {"timeout": True}, returning(1), "timeout=True: give seconds"),
        ("db", {"every": 0}, returning(1), "every=0: give seconds above 0, e.g. every=10.0"),
        ("db", {"cache": -1}, returning(1), "cache=-1: give seconds above 0, e.g. cache=1.0, or 0"),
        ("db", {"failure_threshold": 0}, returning(1), "failure_threshold=0: give a whole number, 1 or more"),
        ("db", {"failure_threshold": 1.5}, returning(1), "failure_threshold=1.5: give a whole number"),
        ("db", {"restart_container": True}, returning(1), "restart_container=True for the probe 'ready', which"),
        ("db", {"probe": "health", "restart_container": True}, returning(1), "there is no such probe"),
        ("db", {}, 7, "'db' is 7: give a function without arguments"),
        ("taken", {}, returning(1), "There is a check 'taken' for the probe 'ready' already"),
    ],
)
def test_bad_registration_is_refused(name, settings, function, message, registry):
    """The error of an invalid check has the value and the fix."""
    obs = scaleobs.observer_of(service(registry))
    obs.check("taken")(returning(True))

    with pytest.raises((ValueError, TypeError), match=message):
        obs.check(name, **settings)(function)


def test_registration_returns_the_function(registry):
    """The decorator returns the function, and two probes may have a check of the same name."""
    obs = scaleobs.observer_of(service(registry))

    def check():
        return True

    assert check is obs.check("same", probe="ready")(check)
    assert check is obs.check("same", probe="startup")(check)
