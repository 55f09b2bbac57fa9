"""A collector that takes OTLP over HTTP on loopback, and keeps the spans that it is sent."""

from __future__ import annotations

import contextlib
import gzip
from http.server import BaseHTTPRequestHandler
from typing import NamedTuple

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from support.http_server import answering


class Received(NamedTuple):
    """A span as it came over the wire."""

    name: str
    kind: int
    trace_id: str
    span_id: str
    attributes: dict
    resource: dict
    scope: str


def _plain(attributes):
    """Return attributes as a dict."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value") or "string_value") for one in attributes}


@contextlib.contextmanager
def collecting():
    """Run a collector, and yield its endpoint and the list of what it has received."""
    received: list[Received] = []

    class Collecting(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            if self.path == "/v1/traces":
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    for scope in resource.scope_spans:
                        for span in scope.spans:
                            ids = span.trace_id.hex(), span.span_id.hex()
                            about = _plain(span.attributes), _plain(resource.resource.attributes)
                            received.append(Received(span.name, span.kind, *ids, *about, scope.scope.name))
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

    with answering(Collecting) as port:
        yield f"http://127.0.0.1:{port}", received
