"""Workers of a real uWSGI, which forks in C: they are one group, also if others set its hook."""

from __future__ import annotations

import json

import pytest

from support import servers
from support.group import fleet

pytestmark = pytest.mark.servers

UWSGI = ["uwsgi", "--http-socket", "127.0.0.1:PORT", "--die-on-term", "--need-app", "--module"]
MASTER = [*UWSGI, "wsgi_shop:app", "--master", "--processes"]

HOOK = """
import os
from pathlib import Path

def note():
    Path("forks").open("a").write(f"{os.getpid()}\\n")
"""
HOOKS = {
    "set before": (HOOK + "import uwsgi\nuwsgi.post_fork_hook = note\n", ""),
    "set after": (HOOK, "import own_hook, uwsgi\nuwsgi.post_fork_hook = own_hook.note\n"),
    "decorator before": (HOOK + "import uwsgidecorators\nuwsgidecorators.postfork(note)\n", ""),
    "decorator after": (HOOK, "import own_hook, uwsgidecorators\nuwsgidecorators.postfork(own_hook.note)\n"),
}

ROOTS = """
import json, os, sys, uwsgi
from scaleobs._workers import find_root
from scaleobs._workers.recognition import _roots

def in_child():
    reading, writing = os.pipe()
    if not os.fork():
        os.write(writing, json.dumps(find_root()).encode())
        os._exit(0)
    os.close(writing)
    os.wait()
    return json.loads(os.read(reading, 1000))

def answer(environ, start_response):
    start_response("200 OK", [])
    found = {"root": find_root(), "child": in_child(), "master": uwsgi.masterpid(), "parent": os.getppid()}
    return [json.dumps(found).encode()]

def application(environ, start_response):
    if environ["PATH_INFO"] == "/mule":
        start_response("200 OK", [])
        return [open("mule", "rb").read()]
    return answer(environ, start_response)
"""
MULE = """
import json, time
from scaleobs._workers import find_root
with open("mule.new", "w") as file:
    file.write(json.dumps(find_root()))
import os
os.rename("mule.new", "mule")
while True:
    time.sleep(60)
"""


def send(shop, number):
    """Send requests, each over a connection of its own: uWSGI closes them."""
    return shop.send([f"/hello/{one}" for one in range(number)], each=1)


@pytest.mark.parametrize("lazy", [[], ["--lazy-apps"]], ids=["", "lazy-apps"])
@pytest.mark.parametrize("number", [2, 4])
def test_each_scrape_shows_the_sum(number, lazy, tmp_path):
    """Each page shows all requests and all workers, also after workers were recycled."""
    recycled = ["--max-requests", "30", "--min-worker-lifetime", "1"]
    with fleet.running([*MASTER, str(number), *lazy, *recycled], tmp_path, workers=number) as shop:
        workers = send(shop, 40)
        shop.until(lambda page: page.total("http_requests_total") == 40)
        pages = shop.scrapes(8)
        sent = [40]

        def are_recycled():
            workers.update(send(shop, 20))
            sent[0] += 20
            return len(workers) > number

        servers.until(are_recycled)
        last = shop.until(lambda page: (sent[0], number) == (page.total("http_requests_total"), page.workers))
        later = [last, *shop.scrapes(8)]
        logged = "".join((tmp_path / name).read_text() for name in ("stdout", "stderr"))

    assert {40} == {page.total("http_requests_total") for page in pages}
    assert {sent[0]} == {page.total("http_requests_total") for page in later}
    assert {0} == {page.in_flight for page in (*pages, *later)}
    assert "scaleobs.fault" not in logged


@pytest.mark.parametrize("kind", HOOKS)
def test_hooks_of_others_are_called(kind, tmp_path):
    """The application's own hook is called once in each worker; and all workers join before they have any request."""
    module, added = HOOKS[kind]
    (tmp_path / "own_hook.py").write_text(module)
    settings = '"service": __import__("own_hook").__name__'
    place = tmp_path / "place"
    place.mkdir()
    named = {"SCALEOBS_WORKERS_DIR": str(place)}
    with fleet.running([*MASTER, "3"], tmp_path, workers=1, settings=settings, wsgi=added, **named) as shop:
        servers.until(lambda: len(list(place.rglob("*.ledger"))) == 3)
        page = shop.until(lambda page: page.workers == 3)
        workers = {int(pid) for pid in (tmp_path / "forks").read_text().split()}
        children = set(servers.children_of(shop.root))

    assert 3 == page.workers
    assert children == workers


@pytest.mark.parametrize("option", ["--py-call-osafterfork", "--py-call-uwsgi-fork-hooks"])
def test_hooks_of_python_as_well(option, tmp_path):
    """Options of uWSGI that call Python's hooks, too, count nothing twice."""
    with fleet.running([*MASTER, "2", option], tmp_path, workers=2) as shop:
        send(shop, 40)
        shop.until(lambda page: page.total("http_requests_total") == 40)
        pages = shop.scrapes(8)

    assert {(40, 2)} == {(page.total("http_requests_total"), page.workers) for page in pages}


def test_hook_that_was_lost(tmp_path):
    """Without our hook a worker joins with its first request, and the counts of others are not its own."""
    added = "import uwsgi\nfrom types import ModuleType\nuwsgi.__class__ = ModuleType\nuwsgi.post_fork_hook = print\n"
    with fleet.running([*MASTER, "2"], tmp_path, workers=1, wsgi=added) as shop:
        shop.pids(2)
        send(shop, 40)
        shop.until(lambda page: page.total("http_requests_total") == 40)
        pages = shop.scrapes(8)

    assert {(40, 2)} == {(page.total("http_requests_total"), page.workers) for page in pages}


@pytest.mark.parametrize("master", [[], ["--master", "--mule=mule.py"]], ids=["", "master"])
def test_root(master, tmp_path):
    """The root of a worker is the master; a mule, a child of a worker and a uWSGI without a master have none."""
    (tmp_path / "roots.py").write_text(ROOTS)
    (tmp_path / "mule.py").write_text(MULE)
    port = servers.free_port()
    uwsgi, *rest = [part.replace("PORT", str(port)) for part in [*UWSGI, "roots", *master]]
    with servers.running([str(servers.BIN / uwsgi), *rest], port, tmp_path):
        found = json.loads(servers.get(port, "/")[1])
        if master:
            servers.until((tmp_path / "mule").exists)
            assert "null" == servers.get(port, "/mule")[1].decode()

    assert found["child"] is None
    if master:
        assert ["uwsgi", found["parent"]] == found["root"][:2]
        assert found["master"] == found["parent"]
        assert found["root"][2] > 0
    else:
        assert found["root"] is None
