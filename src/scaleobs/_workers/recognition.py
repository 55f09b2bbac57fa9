"""Whether this process is a worker of a server that is known here, and of which root process."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple


class Root(NamedTuple):
    """The process that started this one as its worker, told apart from any other by when it started."""

    server: str
    """gunicorn, uvicorn, granian, hypercorn or uwsgi."""
    pid: int
    started: int
    """Field 22 of `/proc/<pid>/stat`, in clock ticks since boot. 0 where that can't be read."""
    before: int
    """After a re-exec of gunicorn (USR2) the pid of the arbiter before this one, otherwise 0."""


# By the pid that was asked: of this process, and of those it was forked from.
_known: dict[int, Root] = {}

# What they hand to multiprocessing as a target: uvicorn._subprocess.subprocess_started, _spawn_asgi_worker and its
# like in granian.server.mp, asyncio_worker and its like in hypercorn. A user's own Process(target=uvicorn.run) isn't.
_BY_MULTIPROCESSING = ("uvicorn", "granian", "hypercorn")
_TARGETS = ("subprocess_started", "_worker")

# Those of gunicorn's worker that applications and uvicorn inside it are least likely to take over.
_HANDLED = ("SIGUSR1", "SIGABRT", "SIGWINCH")


def root() -> Root | None:
    """
    Return the root process, None if this isn't a worker of a recognised server.

    Any thread may ask, at any time, a hook of `os.register_at_fork` among them. A root is for life. None isn't: a
    process that preloads the application is no worker, those forked from it are; and a process being spawned imports
    the main script, as `__mp_main__`, before anyone can know what it was spawned for.

    Never raises. Costs a look at the pid once it has said a root, and some microseconds as long as it says None.
    """
    answer = _known.get(os.getpid())
    if answer is None:
        try:
            answer = _find()
        except Exception:  # The evidence lies in the servers' own objects, which may change.
            return None
        if answer is not None:
            _known[os.getpid()] = answer
    return answer


def _find() -> Root | None:
    # A child that a worker forks inherits every sign of being a worker but the parent. Should the worker be gone and
    # the root, as pid 1, have adopted the child, then the memory of what the worker was gives it away.
    parent = os.getppid()
    if parent <= 0:  # Outside this container.
        return None
    for server, pid in _claims():
        if pid == parent:
            found = Root(server, pid, started(pid), _before(pid) if server == "gunicorn" else 0)
            inherited = [known for asked, known in list(_known.items()) if asked != os.getpid()]
            return None if found in inherited else found
    return None


def _claims() -> Iterator[tuple[str, int]]:
    """Yield what speaks for a server and the pid of its root; all of it may be inherited from a worker."""
    if "gunicorn.arbiter" in sys.modules:
        yield from _by_handlers()
    if "gunicorn.arbiter" in sys.modules or "multiprocessing.popen_fork" in sys.modules:
        # A fork is seen where it happens, on the current stack. Afterwards a worker of gunicorn lives on its main
        # thread inside the call that forked it, unless that is a greenlet.
        yield from _by_stack(sys._getframe())  # noqa: SLF001
        yield from _by_stack(sys._current_frames().get(threading.main_thread().ident or 0))  # noqa: SLF001
    if "multiprocessing.process" in sys.modules:
        yield from _by_target(sys.modules["multiprocessing.process"].current_process())
    if "uwsgi" in sys.modules:  # Which uWSGI puts there itself, and only there.
        uwsgi: Any = sys.modules["uwsgi"]
        if uwsgi.worker_id():  # 0: the master, a mule, a spooler.
            yield "uwsgi", uwsgi.masterpid()


def _by_handlers() -> Iterator[tuple[str, int]]:
    """A worker of gunicorn handles some signal by a method of its own (all kinds but `asgi`)."""
    for name in _HANDLED:
        worker: Any = getattr(signal.getsignal(getattr(signal, name)), "__self__", None)
        if any(kind.__module__ == "gunicorn.workers.base" for kind in type(worker).__mro__):
            if worker.pid == os.getpid():
                yield "gunicorn", worker.ppid
            return


def _by_stack(frame: FrameType | None) -> Iterator[tuple[str, int]]:
    """The innermost call that forks says what for, in the child; the parent's pid gives the parent away."""
    while frame is not None:
        where = frame.f_globals.get("__name__"), frame.f_code.co_name
        if where == ("gunicorn.arbiter", "spawn_worker"):
            # In a hook of the fork the worker doesn't have its pid yet.
            worker: Any = frame.f_locals["worker"]
            if worker.pid == os.getpid() or not isinstance(worker.pid, int):
                yield "gunicorn", frame.f_locals["self"].pid
            return
        if where == ("multiprocessing.popen_fork", "_launch"):
            yield from _by_target(frame.f_locals["process_obj"])
            return
        frame = frame.f_back


def _by_target(process: Any) -> Iterator[tuple[str, int]]:
    target: Any = getattr(process, "_target", None)  # The main process has none.
    server = str(getattr(target, "__module__", "")).partition(".")[0]
    if server in _BY_MULTIPROCESSING and target.__name__.endswith(_TARGETS):
        yield server, process._parent_pid  # noqa: SLF001


def started(pid: int) -> int:
    """Return when a process started, in clock ticks since boot; 0 where it is gone or can't be read."""
    stat = _proc(pid, "stat")
    # The second field is a name in brackets, with anything in it.
    return int(stat.rpartition(b")")[2].split()[19]) if stat else 0


def started_at(root: Root) -> float:
    """Return the same in seconds since 1970; 0 where it can't be known."""
    boot = next((line for line in _read("/proc/stat").splitlines() if line.startswith(b"btime ")), b"btime 0")
    since = int(boot.split()[1])
    return since + root.started / os.sysconf("SC_CLK_TCK") if since and root.started else 0.0


def _before(arbiter: int) -> int:
    # An arbiter forgets the variable when the one before it is gone; the environment it was started with keeps it, so
    # that workers born before and after give the same answer.
    start = b"GUNICORN_PID="
    said = [item.removeprefix(start) for item in _proc(arbiter, "environ").split(b"\0") if item.startswith(start)]
    said.append(os.environ.get("GUNICORN_PID", "").encode())
    return next((int(pid) for pid in said if pid.isdigit()), 0)


def _proc(pid: int, name: str) -> bytes:
    return _read(f"/proc/{pid}/{name}")


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""
