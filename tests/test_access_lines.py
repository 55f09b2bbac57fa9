"""One line per request: levels by status, and samples of successful requests."""

from __future__ import annotations

import functools
import time

import pytest
import structlog

import scaleobs
from scaleobs import Latency, SettingsError
from scaleobs.settings import Settings
from support.exchanges import asgi, finished, log_lines, wsgi


async def asgi_app(scope, receive, send):
    """Answer with the status in the path, or raise."""
    if scope["path"] == "/raise":
        raise ValueError("no")
    if scope["path"] == "/slow":
        time.sleep(0.02)  # noqa: ASYNC251
    status = int(scope["path"][1:]) if scope["path"][1:].isdecimal() else 200
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def wsgi_app(environ, start_response):
    """Do the same."""
    path = environ["PATH_INFO"]
    if path == "/raise":
        raise ValueError("no")
    if path == "/slow":
        time.sleep(0.02)
    start_response(f"{path[1:] if path[1:].isdecimal() else 200} X", [])
    return [b""]


@pytest.fixture(params=[(asgi_app, asgi), (wsgi_app, wsgi)], ids=["asgi", "wsgi"])
def levels(request, registry, capsys):
    """Return a function that requests paths with these settings, and returns the statuses and levels of the lines."""
    app, call = request.param

    def serve(*paths, **settings):
        route = {"route": lambda scope: scope.get("path") or scope["PATH_INFO"]}
        served = scaleobs.instrument(functools.partial(app), registry=registry, **{**route, **settings})
        capsys.readouterr()
        for path in paths:
            call(served, path=path)
        return [(line["status_code"], line["level"]) for line in finished(capsys)]

    return serve


def test_level_follows_the_status(levels):
    """5xx is `error`; everything else is `info`, also 4xx."""
    assert [
        *((200, "info"), (302, "info"), (404, "info"), (499, "info")),
        *((500, "error"), (503, "error"), (500, "error")),
    ] == levels("/200", "/302", "/404", "/499", "/500", "/503", "/raise")


def test_levels_by_class_and_by_status(levels):
    """The level of a status takes precedence over that of its class."""
    levels_given = {"4xx": "warning", 404: "debug", "503": "warning", "2xx": "Critical"}

    assert [(200, "critical"), (400, "warning"), (503, "warning"), (500, "error")] == levels(
        "/200", "/400", "/404", "/503", "/500", access_levels=levels_given
    )


def test_sample_leaves_out_only_successes(levels):
    """With a share of 0 only failed requests have a line."""
    assert [(404, "info"), (500, "error"), (500, "error")] == levels(
        "/200", "/302", "/404", "/500", "/raise", access_sample=0
    )


def test_sample_by_route(levels):
    """A route may have its own share; others have that of `*`."""
    assert [(200, "info"), (202, "info"), (404, "info")] == levels(
        "/200", "/201", "/202", "/404", access_sample={"/200": 1, "/202": 1.0, "*": 0}
    )


def test_sample_of_one_route(levels):
    """A route that is not listed has all its lines."""
    assert [(201, "info")] == levels("/200", "/201", access_sample={"/200": 0})


def test_sample_is_about_its_share(levels):
    """Of a thousand requests about a quarter have a line."""
    assert 150 < len(levels(*["/200"] * 1000, access_sample=0.25)) < 350


def test_slow_requests_always_have_a_line(levels):
    """A request that takes longer than the shortest latency objective has a line for any share."""
    objectives = [Latency(99, under=0.01), Latency(90, under=5)]

    assert [(200, "info")] == levels("/slow", access_sample=0, objectives=objectives)
    assert [] == levels("/slow", access_sample=0)


def test_broken_responses_always_have_a_line(registry, capsys):
    """A request whose client disconnects during the response is no success."""

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        await receive()

    app = scaleobs.instrument(app, registry=registry, access_sample=0)
    asgi(app, received=[{"type": "http.disconnect"}])

    assert [(200, True)] == [(line["status_code"], line["truncated"]) for line in finished(capsys)]


def test_exception_is_in_the_line_of_its_request(levels, capsys, registry):
    """A failure has its exception in its line, once, at any level."""
    app = scaleobs.instrument(functools.partial(asgi_app), registry=registry, access_levels={"5xx": "warning"})
    asgi(app, path="/raise")
    lines = log_lines(capsys)

    assert [("request.finished", "warning")] == [(line["event"], line["level"]) for line in lines]
    assert lines[0]["exception"].endswith("ValueError: no")


def test_request_without_a_line_has_an_id(registry, capsys):
    """If sampling leaves out the line of a request, the application's lines still have its id."""

    async def app(scope, receive, send):
        scaleobs.get_logger().info("event")
        await asgi_app(scope, receive, send)

    app = scaleobs.instrument(app, registry=registry, access_sample=0)
    seen = asgi(app, headers=[("X-Request-ID", "r1")])

    assert "r1" == seen.headers["x-request-id"]
    assert [("event", "r1")] == [(line["event"], line["request_id"]) for line in log_lines(capsys)]


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("access_levels", "4xx=warning, 404=INFO", {"4xx": "warning", "404": "info"}),
        ("access_levels", "", {}),
        ("access_sample", "0.1", {"*": 0.1}),
        ("access_sample", "1", {"*": 1.0}),
        ("access_sample", "/feed=0,/items/{id}=0.5,*=0.1", {"/feed": 0.0, "/items/{id}": 0.5, "*": 0.1}),
        ("access_sample", "/a=b=0.5", {"/a=b": 0.5}),
    ],
)
def test_settings_by_the_environment(name, given, expected):
    """Both settings can be a text."""
    assert expected == getattr(Settings.read({}, {f"SCALEOBS_{name.upper()}": given}), name)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        *[
            ("access_levels", one)
            for one in ("4xx", "4xx=loud", "9xx=info", "4x=info", {"4xx": None}, 4, {600: "info"})
        ],
        *[("access_sample", one) for one in (-0.1, 1.1, "x", "/a=x", True, None, ["/a"], {"/a": 2}, "nan", "")],
    ],
)
def test_anything_else_is_refused_with_the_fix(name, given):
    """The message names the setting and the value, and shows what to write."""
    with pytest.raises(SettingsError, match=f"(?s){name}.*give.*e.g. {name}="):
        Settings.read({name: given}, {})


@pytest.mark.parametrize("log_level", ["debug", "error", "critical"])
def test_log_level_applies(log_level, levels):
    """A line below the configured level is not written."""
    at = {"debug": [(200, "info"), (500, "error")], "error": [(500, "error")], "critical": []}

    assert at[log_level] == levels("/200", "/500", log_level=log_level)


def test_processor_may_drop_lines(registry, capsys):
    """A processor of the user changes the line, or drops it."""

    def drop(logger, method, event):
        if event["path"] == "/drop":
            raise structlog.DropEvent
        return {**event, "mine": True}

    scaleobs.configure_logging(processors=[drop, *scaleobs.logs.processors()])
    app = scaleobs.instrument(functools.partial(asgi_app), registry=registry)
    for path in ("/drop", "/200"):
        asgi(app, path=path)

    assert [("/200", True)] == [(line["path"], line["mine"]) for line in finished(capsys)]


def test_structlog_of_the_application(registry):
    """If the application has configured structlog itself, its loggers and processors get the line, after a hint."""
    seen = []

    class Bound(structlog.BoundLogger):
        def info(self, event, **fields):
            return self._proxy_to_logger("info", event, bound_by="mine", **fields)

    def keep(logger, method, event):
        seen.append(event)
        raise structlog.DropEvent

    structlog.configure(processors=[keep], wrapper_class=Bound)
    asgi(scaleobs.instrument(functools.partial(asgi_app), registry=registry), headers=[("X-Request-ID", "r1")])

    assert ["logging.left_alone", "request.finished"] == [one["event"] for one in seen]
    assert ("r1", "mine") == (seen[1]["request_id"], seen[1]["bound_by"])


def test_lines_can_be_captured(registry):
    """The line is captured by structlog's `capture_logs`."""
    scaleobs.configure_logging(log_format="json")
    app = scaleobs.instrument(functools.partial(asgi_app), registry=registry)
    with structlog.testing.capture_logs() as captured:
        asgi(app)
        asgi(app)

    assert ["request.finished"] * 2 == [line["event"] for line in captured]


def test_new_configuration_applies(registry, capsys):
    """A new configuration of logging applies from the next probe on, at the latest."""
    app = scaleobs.instrument(functools.partial(asgi_app), registry=registry, service="before")
    asgi(app)
    scaleobs.configure_logging(service="after", log_format="json")
    asgi(app, path="/health")
    asgi(app)

    assert ["before", "after"] == [line["service"] for line in finished(capsys)]
