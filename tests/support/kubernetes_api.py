"""The part of an API server of Kubernetes that `kubectl apply` uses; it is as strict as a real one."""

import json
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from urllib.parse import urlsplit

import yaml

from support.http_server import answering
from support.operator_schema import faults

VERBS = ["create", "get", "list", "patch"]
GROUP = {"groupVersion": "monitoring.coreos.com/v1", "version": "v1"}
KINDS = {
    "/api/v1": ("configmaps", "ConfigMap"),
    f"/apis/{GROUP['groupVersion']}": ("prometheusrules", "PrometheusRule"),
}
KNOWN = {
    "/api": {"kind": "APIVersions", "versions": ["v1"]},
    "/apis": {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [{"name": "monitoring.coreos.com", "versions": [GROUP], "preferredVersion": GROUP}],
    },
    **{
        path: {
            "kind": "APIResourceList",
            "groupVersion": path.removeprefix("/apis/").removeprefix("/api/"),
            "resources": [{"name": plural, "namespaced": True, "kind": kind, "verbs": VERBS}],
        }
        for path, (plural, kind) in KINDS.items()
    },
}


def merged(old, patch):
    """Return an object after a JSON merge patch (RFC 7386)."""
    if not isinstance(patch, dict):
        return patch
    new = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            new.pop(key, None)
        else:
            new[key] = merged(new.get(key), value)
    return new


class Keeping(BaseHTTPRequestHandler):
    """Answers one request; what was accepted is kept by its path."""

    protocol_version = "HTTP/1.1"
    kept: dict

    def do_GET(self):
        """Return what is known or kept. Without a schema from here, kubectl leaves the checks to the server."""
        path = urlsplit(self.path).path
        if path == "/openapi/v2":
            self.answer(200, b"", "application/octet-stream")
        elif path in KNOWN or path in self.kept:
            self.answer(200, KNOWN.get(path) or self.kept[path])
        else:
            self.refuse(404, "NotFound", f"{path} is not here")

    def do_POST(self):
        """Create."""
        new = self.body()
        self.keep(f"{urlsplit(self.path).path}/{new['metadata']['name']}", new, 201)

    def do_PATCH(self):
        """Change, or make it so (server-side apply)."""
        path = urlsplit(self.path).path
        applies = self.headers["Content-Type"] == "application/apply-patch+yaml"
        self.keep(path, self.body() if applies else merged(self.kept.get(path), self.body()), 200)

    def keep(self, path, new, status):
        """Keep what a strict server would, in the namespace that its path names."""
        namespace = path.split("/")[-3]
        new["metadata"].setdefault("namespace", namespace)
        found = faults(new)
        if new["metadata"]["namespace"] != namespace:
            found.append("the namespace of the object does not match the namespace of the request")
        if found:
            self.refuse(400, "BadRequest", "; ".join(found))
        else:
            self.kept[path] = new
            self.answer(status, new)

    def body(self):
        """Return what was sent; JSON is YAML."""
        return yaml.safe_load(self.rfile.read(int(self.headers["Content-Length"])))

    def refuse(self, code, reason, message):
        """Answer with an error in the form of Kubernetes."""
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure"}
        self.answer(code, {**status, "message": message, "reason": reason, "code": code})

    def answer(self, code, content, kind="application/json"):
        """Send one answer."""
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


@contextmanager
def api_server():
    """Yield the address of a server on a free port, and what it keeps by path."""
    kept = {}
    with answering(type("Keeping", (Keeping,), {"kept": kept})) as port:
        yield f"http://127.0.0.1:{port}", kept
