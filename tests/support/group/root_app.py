"""An application for any server, WSGI and ASGI, that answers with its roots, by moment and process."""

import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor

from scaleobs._workers import recognition
from scaleobs._workers.recognition import find_root

AT_IMPORT = {"import": find_root(), "before the fork": None, "in the fork": None}
FORK = multiprocessing.get_context("fork")
SPAWN = multiprocessing.get_context("spawn")
CODE = "import json; from scaleobs._workers.recognition import find_root; print(json.dumps(find_root()))"

os.register_at_fork(
    before=lambda: AT_IMPORT.update({"before the fork": find_root()}),
    after_in_child=lambda: AT_IMPORT.update({"in the fork": find_root()}),
)


def afresh():
    """Find the root as if for the first time in this process."""
    recognition._roots.clear()
    return find_root()


def in_a_thread():
    """Find the root in a new thread."""
    roots = []
    thread = threading.Thread(target=lambda: roots.append(afresh()))
    thread.start()
    thread.join()
    return roots[0]


def send_root(end):
    """Send the roots to a pipe."""
    end.send([AT_IMPORT["in the fork"], find_root(), afresh(), in_a_thread()])
    end.close()


def forked():
    """Find roots in a child of `os.fork`."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writing, json.dumps([AT_IMPORT["in the fork"], find_root(), afresh()]).encode())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    # Not to the end: gevent defers `os.close`, and the pipe has no end before.
    roots = json.loads(os.read(reading, 1 << 16))
    os.close(reading)
    os.close(writing)
    return roots


def process(context):
    """Find roots in a child of multiprocessing."""
    reading, writing = context.Pipe(duplex=False)
    child = context.Process(target=send_root, args=(writing,))
    child.start()
    roots = reading.recv()
    child.join()
    return roots


def pooled():
    """Find the root in a child of a pool."""
    with ProcessPoolExecutor(1, mp_context=FORK) as pool:
        return [pool.submit(find_root).result()]


def children():
    """Return the roots of children of this process, which are no workers."""
    program = subprocess.run([sys.executable, "-c", CODE], capture_output=True, check=True)
    roots = {"fork": forked(), "subprocess": [json.loads(program.stdout)]}
    # A daemon may have none of multiprocessing, and gevent may wait for them without end.
    if not multiprocessing.current_process().daemon and "gevent.monkey" not in sys.modules:
        roots |= {"Process": process(FORK), "pool": pooled(), "spawned": process(SPAWN)}
    return roots


def answer(path):
    """Return JSON, slowly enough that the next request goes to another worker."""
    limit = time.perf_counter() + 0.05
    while time.perf_counter() < limit:
        pass
    roots = {**AT_IMPORT, "thread": in_a_thread(), "request": afresh(), "pid": os.getpid(), "parent": os.getppid()}
    return json.dumps({**roots, "children": children() if path == "/children" else {}}).encode()


def wsgi(environ, start_response):
    """Serve WSGI."""
    body = answer(environ["PATH_INFO"])
    start_response("200 OK", [("content-length", str(len(body)))])
    return [body]


async def asgi(scope, receive, send):
    """Serve ASGI."""
    if scope["type"] == "lifespan":
        while True:
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return
    body = answer(scope["path"])
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})
