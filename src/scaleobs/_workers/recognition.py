"""Recognition: whether this process is a worker of a supported server, and of which root process."""

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
    """The process that started this one as its worker. The start time excludes a later process with the same pid."""

    server: str
    """gunicorn, uvicorn, granian, hypercorn, anycorn or uwsgi."""
    pid: int
    started: int
    """Field 22 of `/proc/<pid>/stat`, in clock ticks since boot. 0 if it can't be read."""
    previous: int
    """After a re-exec of gunicorn (USR2) the pid of the previous arbiter, otherwise 0."""


# By the pid of the process that was its worker: this process, and those from which it was forked.
_roots: dict[int, Root] = {}

# Functions that these servers pass to multiprocessing: uvicorn._subprocess.subprocess_started, _spawn_asgi_worker and
# others in granian.server.mp, asyncio_worker and others in hypercorn and anycorn. A user's Process(target=uvicorn.run)
# isn't one.
_BY_MULTIPROCESSING = ("uvicorn", "granian", "hypercorn", "anycorn")
_TARGETS = ("subprocess_started", "_worker")

# Signals of gunicorn's worker whose handlers are least likely to be replaced by applications, or by uvicorn inside it.
_HANDLED = ("SIGUSR1", "SIGABRT", "SIGWINCH")


def find_root() -> Root | None:
    """
    Return the root process, `None` if this process isn't a worker of a recognised server.

    Any thread may call it at any time, also a hook of `os.register_at_fork`. A root never changes. `None` may change: a
    process that preloads the application is no worker, but the processes forked from it are; and a process that is
    being spawned imports the main script, as `__mp_main__`, before its purpose is visible.

    Never raises. Costs one lookup once there is a root, and some microseconds as long as it returns `None`.
    """
    root = _roots.get(os.getpid())
    if root is None:
        try:
            root = _detect()
        except Exception:  # The evidence is in the servers' own objects, which may change.
            return None
        if root is not None:
            _roots[os.getpid()] = root
    return root


def _detect() -> Root | None:
    # A child that a worker forks inherits all evidence of a worker except the parent. If the worker has ended and the
    # root, as pid 1, has adopted the child, then the inherited root of the worker shows it.
    parent = os.getppid()
    if parent <= 0:  # Outside this container.
        return None
    for server, pid in _candidates():
        if pid == parent:
            found = Root(server, pid, start_ticks(pid), _previous_arbiter(pid) if server == "gunicorn" else 0)
            inherited = [root for worker, root in list(_roots.items()) if worker != os.getpid()]
            return None if found in inherited else found
    return None


def _candidates() -> Iterator[tuple[str, int]]:
    """Yield servers and the pids of their roots by each kind of evidence, which may be inherited from a worker."""
    if "gunicorn.arbiter" in sys.modules:
        yield from _by_handlers()
    if "gunicorn.arbiter" in sys.modules or "multiprocessing.popen_fork" in sys.modules:
        # During a fork the current stack shows it. Afterwards the main thread of a gunicorn worker stays inside the
        # call that forked it, unless that is a greenlet.
        yield from _by_stack(sys._getframe())  # noqa: SLF001
        yield from _by_stack(sys._current_frames().get(threading.main_thread().ident or 0))  # noqa: SLF001
    if "multiprocessing.process" in sys.modules:
        yield from _by_target(sys.modules["multiprocessing.process"].current_process())
    if "uwsgi" in sys.modules:  # Only uWSGI itself provides this module.
        uwsgi: Any = sys.modules["uwsgi"]
        if uwsgi.worker_id():  # 0: the master, a mule, a spooler.
            yield "uwsgi", uwsgi.masterpid()


def _by_handlers() -> Iterator[tuple[str, int]]:
    """A worker of gunicorn, of any class except `asgi`, handles some signal by one of its methods."""
    for name in _HANDLED:
        worker: Any = getattr(signal.getsignal(getattr(signal, name)), "__self__", None)
        if any(kind.__module__ == "gunicorn.workers.base" for kind in type(worker).__mro__):
            if worker.pid == os.getpid():
                yield "gunicorn", worker.ppid
            return


def _by_stack(frame: FrameType | None) -> Iterator[tuple[str, int]]:
    """The innermost call that forks shows the server; the pid of the root shows whether this is the child."""
    while frame is not None:
        function = frame.f_globals.get("__name__"), frame.f_code.co_name
        if function == ("gunicorn.arbiter", "spawn_worker"):
            # In a hook of the fork the worker doesn't have its pid yet.
            worker: Any = frame.f_locals["worker"]
            if worker.pid == os.getpid() or not isinstance(worker.pid, int):
                yield "gunicorn", frame.f_locals["self"].pid
            return
        if function == ("multiprocessing.popen_fork", "_launch"):
            yield from _by_target(frame.f_locals["process_obj"])
            return
        frame = frame.f_back


def _by_target(process: Any) -> Iterator[tuple[str, int]]:
    target: Any = getattr(process, "_target", None)  # The main process has none.
    server = str(getattr(target, "__module__", "")).partition(".")[0]
    if server in _BY_MULTIPROCESSING and target.__name__.endswith(_TARGETS):
        yield server, process._parent_pid  # noqa: SLF001


def next_user() -> tuple[int, int] | None:
    """
    Return the user and the group to which gunicorn will change this worker, `None` if it won't.

    A worker that was forked from root with a loaded application (`--preload --user`) is still root in the fork.
    """
    frame: FrameType | None = sys._getframe() if os.geteuid() == 0 else None  # noqa: SLF001
    while frame is not None:
        if (frame.f_globals.get("__name__"), frame.f_code.co_name) == ("gunicorn.arbiter", "spawn_worker"):
            cfg: Any = frame.f_locals["self"].cfg
            return (cfg.uid, cfg.gid) if cfg.uid else None
        frame = frame.f_back
    return None


def start_ticks(pid: int) -> int:
    """Return the start time of a process, in clock ticks since boot; 0 if it has ended or can't be read."""
    stat = _proc(pid, "stat")
    # The second field is a name in brackets, which may contain any character.
    return int(stat.rpartition(b")")[2].split()[19]) if stat else 0


def start_time(root: Root) -> float:
    """Return the start time of a root in seconds since 1970; 0 if it is unknown."""
    boot = next((line for line in _read("/proc/stat").splitlines() if line.startswith(b"btime ")), b"btime 0")
    since = int(boot.split()[1])
    return since + root.started / os.sysconf("SC_CLK_TCK") if since and root.started else 0.0


def _previous_arbiter(arbiter: int) -> int:
    # An arbiter deletes the variable when the previous one has ended. The environment with which it was started keeps
    # it, so that workers get the same root before and after that.
    start = b"GUNICORN_PID="
    values = [item.removeprefix(start) for item in _proc(arbiter, "environ").split(b"\0") if item.startswith(start)]
    values.append(os.environ.get("GUNICORN_PID", "").encode())
    return next((int(pid) for pid in values if pid.isdigit()), 0)


def _proc(pid: int, name: str) -> bytes:
    return _read(f"/proc/{pid}/{name}")


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:
        return b""
