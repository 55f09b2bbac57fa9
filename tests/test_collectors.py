"""Collectors of a user that hang or take their time, on pages that several threads make."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import pytest
from prometheus_client import Gauge

import scaleobs
from scaleobs._metrics import collectors
from support import servers
from support.collectors import Generating, Hanging
from support.exchanges import wsgi


@pytest.fixture
def scrape(registry):
    """Return a function that makes the page of a service whose registry has another metric."""
    app = scaleobs.instrument(lambda environ, start: [], registry=registry, log_format="off", drain_seconds=0)
    Gauge("other", "Another one.", registry=registry).set(8)
    return lambda query="": wsgi(app, path="/metrics", QUERY_STRING=query).body


@pytest.mark.parametrize("kind", [Hanging, Generating])
def test_collector_that_hangs_is_left_out_until_it_returns(kind, scrape, registry, monkeypatch, caplog):
    """Pages lack its metrics; the one fault has the place where it hangs. The page that called it is complete."""
    monkeypatch.setattr(collectors, "HANGS_SECONDS", 0.2)
    collector = kind()
    registry.register(collector)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(scrape)
        servers.until(lambda: collector.threads)
        pages = [scrape() for _ in range(3)] + [scrape("name[]=other"), scrape("name[]=hanging")]
        callers = len(collector.threads)
        collector.released.set()
        first = first.result(servers.LIMIT)
    after = scrape()
    (line,) = [record for record in caplog.records if record.getMessage() == "scaleobs.fault"]

    assert [b"other 8.0" in page for page in pages] == [True, True, True, True, False]
    assert not any(b"hanging 7.0" in page for page in pages)
    assert 1 == callers
    assert all(b"hanging 7.0" in page and b"other 8.0" in page for page in (first, after))
    assert b"scaleobs_internal_faults_total 1.0" in after
    assert "support.collectors." in str(line.exc_info[1])
    assert "collect" in frames_of(line.exc_info[2])


def frames_of(traceback):
    """Return the names of the functions in a stack trace."""
    names = set()
    while traceback is not None:
        names.add(traceback.tb_frame.f_code.co_name)
        traceback = traceback.tb_next
    return names


def test_collector_that_takes_its_time_is_waited_for(scrape, registry):
    """Several pages at once have its metrics, and one thread at a time calls it."""
    collector = Hanging()
    registry.register(collector)
    with ThreadPoolExecutor(4) as pool:
        pages = [pool.submit(scrape) for _ in range(4)]
        servers.until(lambda: collector.threads)
        callers = len(collector.threads)
        collector.released.set()
        pages = [page.result(servers.LIMIT) for page in pages]

    assert 1 == callers
    assert all(b"hanging 7.0" in page for page in pages)


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_collector_that_hangs_in_the_parent_is_called_in_a_child(scrape, registry, monkeypatch):
    """A process that is forked meanwhile has none of its parent's calls."""
    monkeypatch.setattr(collectors, "HANGS_SECONDS", 60)
    collector = Hanging()
    registry.register(collector)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(scrape)
        servers.until(lambda: collector.threads)
        child = os.fork()
        if not child:
            signal.alarm(servers.LIMIT)
            collector.released.set()
            os._exit(0 if b"hanging 7.0" in scrape() else 1)
        status = os.waitpid(child, 0)[1]
        collector.released.set()
        first.result(servers.LIMIT)

    assert 0 == status


def test_registry_that_is_no_collector_registry_is_collected():
    """A registry that collects in its own way is called as one collector."""
    family = Gauge("own", "Of another registry.", registry=None).collect()[0]

    class Own:
        def collect(self):
            return [family]

    assert [family] == [one for one in collectors.collect(Own(), (), pytest.fail) if one is not None]
