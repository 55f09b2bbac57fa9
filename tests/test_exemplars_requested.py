"""A scrape that requests exemplars takes one request of a worker off the fast path, and later traces are found."""

from __future__ import annotations

import functools
import re

import pytest

import scaleobs
from scaleobs._metrics.siblings import Index, Key, LabelSetIndex, SiblingStorage
from scaleobs._workers.kinds import Kind
from support.exchanges import asgi, wsgi
from support.expositions import OPENMETRICS, PROTOBUF
from support.in_process_workers import workers

EXEMPLAR = re.compile(rb'trace_id="([0-9a-f]{32})"')


async def asgi_app(scope, receive, send):
    """Send a response."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"x"})


def wsgi_app(environ, start_response):
    """Send a response."""
    start_response("200 OK", [])
    return [b"x"]


class Service:
    """An instrumented application that counts the requests that leave its fast path."""

    def __init__(self, app, call, monkeypatch, **settings):
        self.app, self._call = scaleobs.instrument(app, **settings), call
        self.left = 0
        service = scaleobs.observer_of(self.app)._service
        choose_path = service.choose_path

        def chosen(traceparent):
            self.left += 1
            choose_path(traceparent)

        monkeypatch.setattr(service, "choose_path", chosen)
        self.send(2)  # The first request decides what later ones need.
        self.left = 0

    def send(self, requests, trace=None):
        """Send requests, of one trace if it is given."""
        headers = [] if trace is None else [("traceparent", f"00-{trace * 32}-{'c' * 16}-01")]
        for _ in range(requests):
            assert 200 == self._call(self.app, path="/", headers=headers).status

    def scrape(self, accept=OPENMETRICS):
        """Return the traces of the exemplars on a page."""
        return {
            found.decode()[0]
            for found in EXEMPLAR.findall(self._call(self.app, path="/metrics", headers=[("Accept", accept)]).body)
        }


@pytest.fixture(name="service", params=["asgi off", "asgi json", "wsgi off", "wsgi json"])
def _service(request, registry, monkeypatch):
    protocol, log_format = request.param.split()
    app, call = {"asgi": (asgi_app, asgi), "wsgi": (wsgi_app, wsgi)}[protocol]
    return Service(functools.partial(app), call, monkeypatch, registry=registry, log_format=log_format)


@pytest.mark.parametrize("accept", [OPENMETRICS, PROTOBUF])
def test_scrape_costs_one_request_the_fast_path(service, accept):
    """At most one request after each scrape leaves the fast path."""
    for _ in range(3):
        service.scrape(accept)
        service.left = 0
        service.send(20)

        assert service.left <= 1


@pytest.mark.parametrize("between", [0, 1, 10, 100])
def test_exemplars_that_begin_later_are_kept(between, service):
    """After 1,000 requests without a trace and a scrape, a trace is on the page at most two scrapes later."""
    service.send(1000)
    assert set() == service.scrape()
    service.send(between)
    service.send(3, trace="a")
    first = service.scrape()
    service.send(3, trace="b")

    if between < 20:
        assert {"a"} == first
    assert "b" in service.scrape()  # Beside an older one of another bucket, if a request took longer.


@pytest.mark.parametrize("service", ["asgi json", "wsgi json"], indirect=True)
def test_first_trace_is_kept_where_requests_have_lines(service):
    """Requests with a line read their trace anyway, so none is missed after exemplars were requested."""
    service.scrape()
    service.send(5)
    service.send(1, trace="a")

    assert {"a"} == service.scrape()


def test_few_traces_among_many_requests_are_found(service):
    """If one request in ten has a trace, it is found within two scrapes."""
    service.scrape()
    for _ in range(2):
        for _ in range(5):
            service.send(9)
            service.send(1, trace="a")
        shown = service.scrape()

    assert {"a"} == shown


def test_no_exemplar_before_a_scrape_requests_it(service):
    """Without a scrape of a format with exemplars, traces cost nothing."""
    service.left = 0
    service.send(5, trace="a")
    assert 0 == service.left
    service.scrape("text/plain")
    service.send(5, trace="a")
    assert 0 == service.left

    assert set() == service.scrape()


@pytest.mark.parametrize(
    ("had", "raised", "expected"), [(0, 1, [1, 0]), (1, 1, [1, 1]), (1, 2, [2, 0]), (2, 1, [2, 1])]
)
def test_sibling_is_written_to_only_if_its_flag_is_lower(had, raised, expected, monkeypatch, tmp_path):
    """A scrape does not change the fast path of a sibling if exemplars were requested before."""
    worker = workers(monkeypatch, tmp_path)
    sibling, own = worker(1), worker()
    key = Key(0, 0).packed()
    flags = sibling.ledger.slots(Kind.FLAGS, key, 2)
    flags[0], flags[1] = had, 1
    own.read(sibling)
    SiblingStorage(own.siblings[0], Index(0, LabelSetIndex()), key).request_exemplars(raised)

    assert expected == flags.tolist()
