"""Precedence: argument, SCALEOBS_*, OTEL_*, default. Other values are refused with the fix."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields

import pytest
from prometheus_client import CollectorRegistry

import scaleobs
from scaleobs import Availability, Latency, SettingsError
from scaleobs.settings import Arguments, Settings


def test_arguments_and_settings_have_the_same_names():
    """`Arguments` and `Settings` have the same names."""
    assert [field.name for field in fields(Settings)] == list(Arguments.__annotations__)


def test_defaults():
    """Every setting has a default."""
    settings = Settings.read({}, {})

    assert ("service", "unknown", "unknown") == (settings.service, settings.version, settings.environment)
    assert ("/health", "/ready", "/startup", "/metrics") == (
        settings.health_path,
        settings.ready_path,
        settings.startup_path,
        settings.metrics_path,
    )
    assert (None, False) == (settings.metrics_token, settings.probe_aliases)
    assert (False, (), "auto", "info", None) == (
        settings.manual_start,
        settings.objectives,
        settings.log_format,
        settings.log_level,
        settings.registry,
    )


RESOURCE = "service.name=by%20resource,service.version=3,deployment.environment.name=prod,broken,=x,y="


@pytest.mark.parametrize(
    ("arguments", "environ", "service"),
    [
        ({"service": "a"}, {"SCALEOBS_SERVICE": "b", "OTEL_SERVICE_NAME": "c"}, "a"),
        ({}, {"SCALEOBS_SERVICE": "b", "OTEL_SERVICE_NAME": "c", "OTEL_RESOURCE_ATTRIBUTES": RESOURCE}, "b"),
        ({}, {"OTEL_SERVICE_NAME": "c", "OTEL_RESOURCE_ATTRIBUTES": RESOURCE}, "c"),
        ({}, {"OTEL_SERVICE_NAME": "", "OTEL_RESOURCE_ATTRIBUTES": RESOURCE}, "by resource"),
        ({}, {"OTEL_RESOURCE_ATTRIBUTES": ",,=;"}, "service"),
    ],
)
def test_precedence(arguments, environ, service):
    """The source with the highest precedence counts; unreadable parts of OpenTelemetry's variable are ignored."""
    assert service == Settings.read(arguments, environ).service


def test_resource_attributes_give_version_and_environment():
    """OpenTelemetry's variable gives version and environment, also by the environment's older name."""
    settings = Settings.read({}, {"OTEL_RESOURCE_ATTRIBUTES": RESOURCE})
    older = Settings.read({}, {"OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=old"})

    assert ("3", "prod", "old") == (settings.version, settings.environment, older.environment)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("version", " 1.2 ", "1.2"),
        ("health_path", "/h", "/h"),
        ("metrics_path", "off", None),
        ("metrics_path", "", None),
        ("manual_start", "TRUE", True),
        ("manual_start", "0", False),
        ("probe_aliases", "true", True),
        ("management_port", "9090", 9090),
        ("management_port", "off", None),
        ("management_host", "127.0.0.1", "127.0.0.1"),
        ("management_host", "", None),
        ("stall_seconds", "45", 45.0),
        ("log_format", "JSON", "json"),
        ("log_level", "Warning", "warning"),
    ],
)
def test_variable_is_read(name, text, value):
    """A variable is read as its argument is."""
    assert value == getattr(Settings.read({}, {f"SCALEOBS_{name.upper()}": text}), name)


@pytest.mark.parametrize(
    ("name", "value", "fix"),
    [
        ("service", "", "give a name of printable characters, e.g. service='orders'"),
        ("service", "a\nb", "give a name of printable characters"),
        ("version", "  ", "give a name of printable characters, e.g. version="),
        ("environment", "\x00", "give a name of printable characters"),
        ("health_path", "health", "give a path that starts with '/', or 'off' to turn it off"),
        ("metrics_path", "/m?x", "give a path that starts with '/'"),
        ("probe_aliases", "", "give one of True, False, true, 1, false, 0"),
        ("manual_start", "maybe", "give one of True, False, true, 1, false, 0"),
        ("management_port", "99999", "give a port from 1 to 65535, e.g. 9090, or 'off' for none"),
        ("management_port", "http", "give a port from 1 to 65535"),
        ("management_port", "-1", "give a port from 1 to 65535"),
        (
            "management_host",
            "all of them",
            "give an address of this machine, e.g. '127.0.0.1', or leave it out for all",
        ),
        ("management_host", "10.0.0.0/8", "give an address of this machine"),
        ("stall_seconds", "0", "give seconds from 1 to 86400, e.g. 30"),
        ("stall_seconds", "soon", "give seconds from 1 to 86400"),
        ("log_format", "xml", "give one of auto, json, console"),
        ("log_level", "loud", "give one of debug, info, warning, error, critical"),
    ],
)
def test_bad_text_is_refused_from_any_source(name, value, fix):
    """The message names the argument or the variable, its value and the fix, on one line."""
    for source, arguments, environ in (
        (name, {name: value}, {}),
        (f"SCALEOBS_{name.upper()}", {}, {f"SCALEOBS_{name.upper()}": value}),
    ):
        with pytest.raises(SettingsError) as refused:
            Settings.read(arguments, environ)

        assert str(refused.value).startswith(f"{source} is {value!r}: {fix}")
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("service", 7, "service is 7: give a name"),
        ("service", None, "service is None: give a name"),
        ("ready_path", b"/x", "ready_path is b'/x': give a path"),
        ("ready_path", ["/x"], r"ready_path is \['/x'\]: give a path"),
        ("manual_start", 2, "manual_start is 2: give one of"),
        ("manual_start", [], r"manual_start is \[\]: give one of"),
        ("management_port", True, "management_port is True: give a port"),
        ("management_port", 9090.0, "management_port is 9090.0: give a port"),
        ("management_host", 9090, "management_host is 9090: give an address"),
        ("stall_seconds", True, "stall_seconds is True: give seconds"),
        ("stall_seconds", float("inf"), "stall_seconds is inf: give seconds"),
        ("log_level", None, "log_level is None: give one of"),
        ("log_level", [], r"log_level is \[\]: give one of"),
        ("objectives", "availability=99", r"objectives is 'availability=99': give Availability\(99.9\)"),
        ("objectives", Latency(99, under=1), "objectives is Latency.*: give Availability"),
        ("objectives", 99.9, "objectives is 99.9: give Availability"),
        ("objectives", [99.9], "objectives has 99.9, which is not an objective"),
        ("registry", "mine", "registry is 'mine': give a prometheus_client.CollectorRegistry"),
        ("registry", CollectorRegistry, "give a prometheus_client.CollectorRegistry"),
    ],
)
def test_bad_object_is_refused(name, value, message):
    """The same for values that only an argument can have."""
    with pytest.raises(SettingsError, match=message):
        Settings.read({name: value}, {})


def test_otel_variable_is_named():
    """The error about a bad value of an OpenTelemetry variable names that variable."""
    with pytest.raises(SettingsError, match=r"OTEL_SERVICE_NAME is 'a\\tb'"):
        Settings.read({}, {"OTEL_SERVICE_NAME": "a\tb"})


@pytest.mark.parametrize(("name", "meant"), [("servcie", "service"), ("metrics_url", "metrics_path"), ("zzz", None)])
def test_unknown_setting_suggests_the_nearest(name, meant):
    """An unknown name is refused with the closest one."""
    with pytest.raises(SettingsError, match=f"'{name}' is not a setting of scaleobs.") as refused:
        scaleobs.instrument(lambda environ, start_response: [], **{name: "x"})

    assert (f"Did you mean {meant!r}?" in str(refused.value)) is (meant is not None)
    assert "Known are service, version" in str(refused.value)


def test_endpoints_need_paths_of_their_own():
    """Two endpoints on one path are refused with both names; two that are off have no path."""
    with pytest.raises(SettingsError, match="ready_path is '/health', and so is health_path: give each its own path"):
        Settings.read({"ready_path": "/health"}, {})
    assert Settings.read({"ready_path": None, "metrics_path": None}, {}).ready_path is None


def test_settings_cannot_be_changed():
    """Settings are frozen; an iterable of objectives is read once."""
    settings = Settings.read({"objectives": iter([Availability(99.9)])}, {})

    assert (Availability(99.9),) == settings.objectives
    with pytest.raises(FrozenInstanceError):
        settings.service = "other"


def test_environment_of_the_process_is_read(monkeypatch, registry):
    """`instrument` reads the process's own variables."""
    monkeypatch.setenv("SCALEOBS_SERVICE", "orders")
    monkeypatch.setenv("SCALEOBS_READY_PATH", "/r")
    app = scaleobs.instrument(lambda environ, start_response: [], registry=registry)
    settings = scaleobs.observer_of(app).settings

    assert ("orders", "/r") == (settings.service, settings.ready_path)
