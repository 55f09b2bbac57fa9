"""An application with checks of each kind, and its client, in the words of the MicroProfile Health TCK."""

from __future__ import annotations

import jsonschema

import scaleobs
from scaleobs._health import Report
from support.exchanges import asgi, wsgi

PATHS = {"live": "/health", "ready": "/ready", "startup": "/startup"}

SCHEMA = {
    "type": "object",
    "required": ["status", "checks"],
    "additionalProperties": False,
    "properties": {
        "status": {"enum": ["UP", "DOWN"]},
        "checks": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["name", "status"],
                "additionalProperties": False,
                "properties": {
                    "name": {"type": "string"},
                    "status": {"enum": ["UP", "DOWN"]},
                    "data": {
                        "type": "object",
                        "additionalProperties": {"type": ["string", "boolean", "number", "null"]},
                    },
                },
            },
        },
    },
}

UP, DOWN = "UP", "DOWN"


class Deployment:
    """An application with checks, and its client."""

    def __init__(self, protocol, registry):
        self.protocol, self.registry = protocol, registry

    def deploy(self, *checks, **settings):
        """Deploy it with checks, each a kind, a name and a function."""

        async def by_asgi(scope, receive, send):
            """Never be called."""

        made = [
            scaleobs.Check(name, function, probe=kind, timeout=20, restart_container=kind == "live")
            for kind, name, function in checks
        ]
        app = by_asgi if self.protocol == "asgi" else lambda environ, start: []
        self.app = scaleobs.instrument(app, registry=self.registry, log_format="off", checks=made, **settings)
        self.obs = scaleobs.observer_of(self.app)
        return self

    def get(self, kind):
        """Return the status, the overall state, and each check with its own."""
        body = self.body(kind)
        return self.status, body["status"], [(check["name"], check["status"]) for check in body["checks"]]

    def body(self, kind):
        """Return what a probe answers."""
        if kind == "live":
            self.obs._service.checks.report("live")
        seen = (asgi if self.protocol == "asgi" else wsgi)(self.app, path=PATHS[kind])
        assert "application/json" == seen.headers["content-type"]
        self.status = seen.status
        jsonschema.validate(seen.json, SCHEMA)
        return seen.json

    def aggregate(self):
        """Return the same for all kinds together, in the process."""
        reports = [self.obs._service.checks.report(kind) for kind in PATHS]
        checks = tuple(check for report in reports for check in report.checks)
        answer = self.obs._service.answers.probe(
            "live", Report(all(report.is_up for report in reports), checks), lambda _: ""
        )
        return answer.status, [(name, UP if result.is_up else DOWN) for name, result in checks]
