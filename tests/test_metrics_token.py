"""`/metrics` behind a bearer token, in both protocols and for a real Prometheus."""

from __future__ import annotations

import functools
import os
import re
import socket
import sys
from pathlib import Path

import pytest
import yaml

import scaleobs
from scaleobs import SettingsError
from scaleobs._cli.demo.processes import get_json, prometheus_command, running, wait_until
from scaleobs.settings import Settings
from support.exchanges import asgi, log_lines, wsgi
from support.servers import BIN

TOKEN = "s3cret/t0ken+for~scrapes=="
ROOT = Path(__file__).parents[1]


async def by_asgi(scope, receive, send):
    """Return the response of the application."""
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"the application"})


def by_wsgi(environ, start_response):
    """Return the response of the application."""
    start_response("200 OK", [])
    return [b"the application"]


@pytest.fixture(params=["asgi", "wsgi"])
def request_metrics(request, registry):
    """Return a function that sends requests to a service with a token."""
    app = scaleobs.ASGIMiddleware if request.param == "asgi" else scaleobs.WSGIMiddleware
    app = app(by_asgi if request.param == "asgi" else by_wsgi, registry=registry, metrics_token=TOKEN)
    serve = asgi if request.param == "asgi" else wsgi

    def request_page(authorization=None, path="/metrics", method="GET"):
        return serve(app, method, path, headers=[] if authorization is None else [("Authorization", authorization)])

    return request_page


@pytest.mark.parametrize("authorization", [f"Bearer {TOKEN}", f"bearer {TOKEN}", f"BEARER   {TOKEN}"])
def test_token_gets_the_metrics(authorization, request_metrics):
    """The scheme may have any case and any number of spaces behind it (RFC 9110, section 11)."""
    assert b"active_connections" in request_metrics(authorization).body
    assert (200, b"") == ((head := request_metrics(authorization, method="HEAD")).status, head.body)


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        TOKEN,
        f"Bearer{TOKEN}",
        f"Basic {TOKEN}",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN.upper()}",
        f"Bearer {TOKEN}, Bearer {TOKEN}",
        f"Bearer \xe9{TOKEN}",
        "Bearer \xff\xfe\x80",
        "\xe9",
        "Bearer " + "x" * 100_000,
    ],
)
def test_any_other_request_is_refused(authorization, request_metrics):
    """Without the token, or with any other bytes, the answer is 401 with the challenge and without metrics."""
    refused, head = request_metrics(authorization), request_metrics(authorization, method="HEAD")

    assert (401, "Bearer", "no-store", "text/plain; charset=utf-8") == (
        refused.status,
        refused.headers["www-authenticate"],
        refused.headers["cache-control"],
        refused.headers["content-type"],
    )
    assert (b"Send the bearer token.\n", None) == (refused.body, refused.error)
    assert (401, b"", refused.headers.keys()) == (head.status, head.body, head.headers.keys())


def test_text_that_is_no_header_is_refused(registry):
    """A test client of WSGI may send any text, also half a character of UTF-16."""
    app = scaleobs.WSGIMiddleware(by_wsgi, registry=registry, metrics_token=TOKEN)

    assert [401, 401] == [
        wsgi(app, path="/metrics", HTTP_AUTHORIZATION=f"Bearer {text}").status for text in ("\ud800", "\u20ac")
    ]


def test_nothing_else_needs_it(request_metrics):
    """Probes and the application need no token, and a wrong method is still a 405."""
    assert [200, 200, 200] == [request_metrics(path=path).status for path in ("/health", "/ready", "/startup")]
    assert b"the application" == request_metrics(path="/other").body
    assert 405 == request_metrics(method="POST").status


UNUSABLE = ["", " ", "a b", "secr\xe9t", "secret\n", "\tsecret", "secret\x00", "secret\x7f", "\u2028", 7, b"secret", []]
FIX = "give visible ASCII characters, no space and no line end, e.g. from openssl rand -hex 32."


@pytest.mark.parametrize("value", UNUSABLE)
def test_unusable_token_is_refused_and_not_shown(value):
    """A token that no header can have is an error at start, from any source; its message has name and fix only."""
    sources = [("metrics_token", {"metrics_token": value}, {})]
    if isinstance(value, str):
        sources.append(("SCALEOBS_METRICS_TOKEN", {}, {"SCALEOBS_METRICS_TOKEN": value}))
    for source, arguments, environ in sources:
        with pytest.raises(SettingsError) as refused:
            Settings.read(arguments, environ)

        assert f"{source} is a secret and not shown: {FIX}" == str(refused.value)


def test_token_is_never_shown(monkeypatch, registry, capsys):
    """The token is neither in `repr`, nor in the error of a second call, nor in the log."""
    monkeypatch.setenv("SCALEOBS_METRICS_TOKEN", TOKEN)
    app = scaleobs.instrument(functools.partial(by_wsgi), registry=registry)
    settings = scaleobs.observer_of(app).settings

    assert TOKEN == settings.metrics_token
    assert "token" not in repr(settings)
    with pytest.raises(SettingsError, match=r"metrics_token is not shown, but .* with another one: give") as refused:
        scaleobs.instrument(app, metrics_token="changed")
    assert not re.search(f"{re.escape(TOKEN)}|changed", str(refused.value))
    statuses = [
        wsgi(app, path=path, headers=[("Authorization", f"Bearer {token}")]).status
        for path in ("/metrics", "/items")
        for token in (TOKEN, f"not-{TOKEN}")
    ]
    lines = log_lines(capsys)

    assert [200, 401, 200, 200] == statuses
    assert ["request.finished", "request.finished"] == [line["event"] for line in lines]
    assert TOKEN not in str(lines)


SERVICE = """
import scaleobs


async def by_asgi(scope, receive, send):
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def by_wsgi(environ, start_response):
    start_response("200 OK", [])
    return []


asgi = scaleobs.instrument(by_asgi, service="orders")
wsgi = scaleobs.instrument(by_wsgi, service="billing")
"""


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    """Return two real services with a token from the environment."""
    folder = tmp_path_factory.mktemp("services")
    (folder / "protected.py").write_text(SERVICE)
    env = {**os.environ, "SCALEOBS_METRICS_TOKEN": TOKEN, "SCALEOBS_DRAIN_SECONDS": "0"}

    def uvicorn(port):
        return [sys.executable, "-m", "uvicorn", "protected:asgi", "--port", str(port)]

    def gunicorn(port):
        return [str(BIN / "gunicorn"), "protected:wsgi", "-b", f"127.0.0.1:{port}"]

    with (
        running("uvicorn", uvicorn, ready="/health", directory=folder, env=env) as by_uvicorn,
        running("gunicorn", gunicorn, ready="/health", directory=folder, env=env) as by_gunicorn,
    ):
        yield {"uvicorn": by_uvicorn, "gunicorn": by_gunicorn}


@pytest.mark.servers
@pytest.mark.parametrize("server", ["uvicorn", "gunicorn"])
@pytest.mark.parametrize(("sent", "status"), [(TOKEN.encode(), b"200"), (b"\xff\xfe", b"401"), (b"", b"401")])
def test_servers_hand_any_byte_over(sent, status, server, services):
    """A header may have any byte of latin-1 without a fault."""
    with socket.create_connection(("127.0.0.1", services[server].port), timeout=10) as connection:
        connection.sendall(b"GET /metrics HTTP/1.0\r\nHost: localhost\r\nAuthorization: Bearer " + sent + b"\r\n\r\n")
        head = connection.recv(1000)

    assert status == head.split()[1]


@pytest.mark.servers
def test_prometheus_sends_it(services, tmp_path, tool, monkeypatch):
    """With the documented configuration, targets with the token are up, and those without are down with a 401."""
    monkeypatch.setenv("PATH", str(Path(tool("prometheus")).parent), prepend=os.pathsep)
    page = (ROOT / "integrations/prometheus/README.md").read_text()
    (shown,) = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (job,) = yaml.safe_load(shown)["scrape_configs"]
    ports = {name: service.port for name, service in services.items()}
    command = prometheus_command(
        tmp_path,
        targets=ports | {f"{name} without": port for name, port in ports.items()},
        alertmanager=9,
        scrape_interval="200ms",
    )
    config = yaml.safe_load((tmp_path / "prometheus.yml").read_text())
    for one in config["scrape_configs"]:
        if "without" not in one["job_name"]:
            one["authorization"] = job["authorization"]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    (tmp_path / job["authorization"]["credentials_file"]).write_text(TOKEN + "\n")

    with running("prometheus", command, ready="/-/ready", directory=tmp_path) as prometheus:

        def scraped():
            targets = get_json(f"{prometheus.url}/api/v1/targets")["data"]["activeTargets"]
            seen = {target["labels"]["job"]: (target["health"], target["lastError"]) for target in targets}
            return seen if "unknown" not in {health for health, _ in seen.values()} else None

        seen = wait_until(scraped, seconds=20, what="a scrape of each")

    up, down = ("up", ""), ("down", "server returned HTTP status 401 Unauthorized")
    assert {"uvicorn": up, "gunicorn": up, "uvicorn without": down, "gunicorn without": down} == seen
