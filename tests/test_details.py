"""Details of probes: what checks return and why they fail, without secrets, for those who may see them."""

from __future__ import annotations

import json

import pytest

import scaleobs
from support import servers
from support.exchanges import asgi, log_lines, wsgi

TOKEN = "s3cret-t0ken"
URL = "postgres://u:p4ssw0rd@db.internal/orders"


def failing():
    """Fail with a secret in the text."""
    msg = f"no connection to {URL}"
    raise ConnectionError(msg)


CHECKS = [
    scaleobs.Check("raises", failing),
    scaleobs.Check("returns", lambda: {"dsn": URL, "api_key": "p4ssw0rd", "nested": [{"password": "p4ssw0rd"}]}),
    scaleobs.Check("odd", lambda: URL),
    # A text is shortened after that, so that no half of a secret is left.
    scaleobs.Check("long", lambda: "x" * 60 + f"postgres://u:{20 * 'p4ssw0rd'}@db"),
    scaleobs.Check("own", lambda: {"iban": "DE75 p4ssw0rd"}),
]


def raises_long(before):
    """Return a check whose reason is cut near the secret, by the number of characters before it."""

    def check():
        raise scaleobs.CheckFailed("x" * before + " " + URL)

    return check


def test_details_have_no_secrets(manage, registry):
    """What checks return and why they fail is redacted as in logs, on the management port and with `details`."""
    port, obs = manage(checks=CHECKS, log_redact=["iban"])
    for before in range(900, 1000, 7):
        obs.check(f"cut {before}")(raises_long(before))
    bodies = [servers.get(port, "/ready")[1], servers.get(port, "/ready", {"Accept": "application/health+json"})[1]]

    for body in bodies:
        assert b"p4ss" not in body
        assert b"no connection to postgres://u:[redacted]@db.internal/orders" in body
    data = {check["name"]: check["data"] for check in json.loads(bodies[0])["checks"]}
    assert {"dsn": "postgres://u:[redacted]@db.internal/orders", "api_key": "[redacted]"}.items() <= (
        data["returns"].items()
    )


@pytest.mark.parametrize("protocol", ["asgi", "wsgi"])
def test_details_of_the_application_have_no_secrets(protocol, registry, capsys):
    """The same holds for the endpoints of the application, and for the log."""

    async def app(scope, receive, send):
        raise AssertionError

    settings = {"registry": registry, "checks": CHECKS, "details": True, "log_format": "json", "log_redact": ["iban"]}
    if protocol == "asgi":
        body = asgi(scaleobs.ASGIMiddleware(app, **settings), path="/ready").body
    else:
        body = wsgi(scaleobs.WSGIMiddleware(lambda environ, start: [], **settings), path="/ready").body
    lines = json.dumps(log_lines(capsys))

    assert b"no connection to postgres://u:[redacted]@db.internal/orders" in body
    assert b"p4ss" not in body
    assert "check.failed" in lines
    assert "p4ss" not in lines


def test_details_require_the_token(manage):
    """With a token, details are shown to clients that have it; probes need none, and show states."""
    port, _ = manage(checks=CHECKS, metrics_token=TOKEN)
    without, wrong, right = (
        servers.get(port, "/ready", headers)
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Bearer {TOKEN}"})
    )

    assert [503] * 3 == [without[0], wrong[0], right[0]]
    assert without == wrong
    assert {"name": "raises", "status": "DOWN"} == json.loads(without[1])["checks"][0]
    assert b"no connection to" in right[1]
    assert [401, 200] == [
        servers.get(port, "/metrics", headers)[0] for headers in ({}, {"Authorization": f"Bearer {TOKEN}"})
    ]


def test_details_of_the_application_require_the_token(registry):
    """The same holds for `details=True`."""
    app = scaleobs.WSGIMiddleware(
        lambda environ, start: [], registry=registry, checks=CHECKS, details=True, metrics_token=TOKEN, log_format="off"
    )
    without, right = wsgi(app, path="/ready"), wsgi(app, path="/ready", headers=[("Authorization", f"Bearer {TOKEN}")])

    assert {"name": "raises", "status": "DOWN"} == without.json["checks"][0]
    assert b"no connection to" in right.body
