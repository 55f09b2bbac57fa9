"""The wrapper of SIGTERM: it defers the first one if something is served, and changes nothing otherwise."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap

import pytest

PREAMBLE = """
import os, signal, sys, threading, time
import scaleobs

def app(environ, start_response):
    start_response("200 OK", [])
    return [b""]

lines = []

def report(what):
    lines.append(what)
    os.write(1, f"{what}\\n".encode())  # In one piece: log lines come from another thread.

def serve(path="/ready"):
    statuses = []
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": path}
    list(app(environ, lambda status, headers, exc_info=None: statuses.append(status[:3])))
    return statuses[0]

def term():
    os.kill(os.getpid(), signal.SIGTERM)

def wait(condition):
    limit = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.01)
"""
INSTRUMENT = "app = scaleobs.instrument(app, log_format='off', drain_seconds=1)"


def run(*parts):
    """Run a script; return its exit code and the lines that it wrote."""
    script = "\n".join([PREAMBLE, *map(textwrap.dedent, parts)])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout.split("\n")[:-1]


@pytest.mark.servers
def test_signal_is_passed_on_after_the_drain():
    """The first SIGTERM ends readiness; after the drain the previous handler is called, once."""
    code, lines = run(
        "signal.signal(signal.SIGTERM, lambda number, frame: report(f'handled {number}'))",
        INSTRUMENT,
        """
        report(serve())
        term()
        report(serve() + serve("/health") + serve("/"))
        wait(lambda: "handled 15" in lines)
        report(serve())
        time.sleep(0.3)  # It isn't handled once more.
        """,
    )

    assert (0, ["200", "503200200", "handled 15", "503"]) == (code, lines)


@pytest.mark.servers
def test_process_without_a_handler_ends_by_the_signal():
    """Without a handler SIGTERM ends the process after the drain."""
    code, lines = run(INSTRUMENT, "serve()\nterm()\nreport(serve())\ntime.sleep(20)\nreport('not ended')")

    assert (-signal.SIGTERM, ["503"]) == (code, lines)


def test_process_that_serves_nothing_is_left_alone():
    """If the application was loaded and isn't served, as by a management command, SIGTERM isn't deferred."""
    code, lines = run(INSTRUMENT, "term()\nreport('not ended')")

    assert (-signal.SIGTERM, []) == (code, lines)


@pytest.mark.parametrize("setting", ["drain_seconds=0", "drain_seconds='0'"])
def test_no_handler_is_touched_with_0_seconds(setting):
    """With `drain_seconds=0` no handler is changed."""
    _, lines = run(
        f"app = scaleobs.instrument(app, log_format='off', {setting})",
        "serve()\nreport(signal.getsignal(signal.SIGTERM) == signal.getsignal(signal.SIGURG) == signal.SIG_DFL)",
    )

    assert ["True"] == lines


def test_later_handler_of_the_application_is_called_at_once():
    """A handler that is set later is called at once; there is a drain if it calls the previous one."""
    later = """
        serve()
        before = signal.getsignal(signal.SIGTERM)
        def own(number, frame):
            report("own")
            {}
        signal.signal(signal.SIGTERM, own)
        term()
        report(serve())
        """

    assert (0, ["own", "200"]) == run(INSTRUMENT, later.format("pass"))
    assert (0, ["own", "503"]) == run(INSTRUMENT, later.format("before(number, frame)"))


@pytest.mark.servers
def test_earlier_handler_of_the_application_is_called_after_the_drain():
    """A handler that is set between loading and serving is called when the drain is over."""
    code, lines = run(
        INSTRUMENT,
        """
        signal.signal(signal.SIGTERM, lambda *_: report("own"))
        serve()
        term()
        report(serve())
        wait(lambda: "own" in lines)
        """,
    )

    assert (0, ["503", "own"]) == (code, lines)


def test_ignored_signal_stays_ignored():
    """If SIGTERM is ignored there is no drain."""
    code, lines = run("signal.signal(signal.SIGTERM, signal.SIG_IGN)", INSTRUMENT, "serve()\nterm()\nreport(serve())")

    assert (0, ["200"]) == (code, lines)


def test_second_signal_is_passed_on_at_once():
    """A second SIGTERM ends the drain."""
    code, lines = run(
        "signal.signal(signal.SIGTERM, lambda number, frame: report('handled'))",
        "app = scaleobs.instrument(app, log_format='off', drain_seconds=60)",
        "serve()\nterm()\nreport('held back')\nterm()\nterm()\nreport(serve())",
    )

    assert (0, ["held back", "handled", "handled", "503"]) == (code, lines)


def test_child_of_a_process_that_serves_ends_at_once():
    """SIGTERM ends a forked child, such as one of a pool, without a drain."""
    _, lines = run(
        "app = scaleobs.instrument(app, log_format='off', drain_seconds=60)",
        """
        serve()
        read, write = os.pipe()
        child = os.fork()
        if not child:
            os.write(write, b"!")
            time.sleep(20)
            os._exit(0)
        os.read(read, 1)
        os.kill(child, signal.SIGTERM)
        report(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        report(serve())
        """,
    )

    assert ["-15", "200"] == lines


@pytest.mark.servers
def test_request_on_another_thread_reaches_the_main_thread():
    """If the server sets its handler after loading, a request on another thread has it wrapped."""
    code, lines = run(
        INSTRUMENT,
        """
        signal.signal(signal.SIGTERM, lambda *_: report("handled"))
        thread = threading.Thread(target=serve)
        thread.start()
        thread.join()
        wait(lambda: type(signal.getsignal(signal.SIGTERM)).__name__ == "_Handler")
        term()
        report(serve())
        wait(lambda: "handled" in lines)
        """,
    )

    assert (0, ["503", "handled"]) == (code, lines)


@pytest.mark.servers
@pytest.mark.parametrize("path", ["/ready", "/"])
def test_main_thread_is_woken_again_until_it_has_wrapped_the_handler(path):
    """A signal that arrives just as the main thread begins to wait doesn't wake it: the next request sends another."""
    code, lines = run(
        INSTRUMENT,
        f"path = {path!r}",
        """
        signal.signal(signal.SIGTERM, lambda *_: report("handled"))
        sent, send = [], signal.pthread_kill
        def lose_the_first(*signals):
            sent.append(signals)
            if len(sent) > 1:
                send(*signals)
        signal.pthread_kill = lose_the_first
        def request():
            thread = threading.Thread(target=serve, args=[path])
            thread.start()
            thread.join()
        request()
        request()
        wait(lambda: type(signal.getsignal(signal.SIGTERM)).__name__ == "_Handler")
        request()
        report(len(sent))
        term()
        report(serve())
        wait(lambda: "handled" in lines)
        """,
    )

    assert (0, ["2", "503", "handled"]) == (code, lines)


@pytest.mark.servers
def test_signal_that_another_thread_takes_wakes_the_main_thread():
    """The kernel delivers a signal to any thread; Python runs handlers on the main thread, which may sleep."""
    code, lines = run(
        INSTRUMENT,
        """
        handled = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: handled.set())
        threading.Thread(target=time.sleep, args=[25], daemon=True).start()  # It takes the signal.
        thread = threading.Thread(target=serve)
        thread.start()
        thread.join()
        wait(lambda: type(signal.getsignal(signal.SIGTERM)).__name__ == "_Handler")
        threading.Timer(0.3, term).start()
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        begun = time.monotonic()
        report(handled.wait(20) and time.monotonic() - begun < 10)
        """,
    )

    assert (0, ["True"]) == (code, lines)


def test_application_that_is_loaded_by_a_thread_has_no_drain():
    """Only the main thread can set a handler; everything else works in other threads, without an error."""
    code, lines = run(
        """
        def load():
            global app
            app = scaleobs.instrument(app, log_format="off", drain_seconds=60)
            report(serve())
        thread = threading.Thread(target=load)
        thread.start()
        thread.join()
        term()
        """
    )

    assert (-signal.SIGTERM, ["200"]) == (code, lines)


@pytest.mark.servers
def test_handler_takes_no_lock():
    """The main thread may hold any lock at the signal: the handler neither logs nor waits for a lock."""
    code, lines = run(
        "import logging",
        "signal.signal(signal.SIGTERM, lambda number, frame: report('handled'))",
        "app = scaleobs.instrument(app, log_format='json', drain_seconds=1)",
        """
        scaleobs.observer_of(app).on_drain(lambda: None)
        serve("/health")
        with logging._lock, threading._active_limbo_lock:
            term()
            report("held back")
        wait(lambda: "handled" in lines)
        """,
    )

    assert 0 == code
    assert ["held back", "handled"] == [line for line in lines if not line.startswith("{")]


def test_no_thread_can_be_started():
    """If the thread of the drain can't be started, the signal is passed on at once."""
    code, lines = run(
        "signal.signal(signal.SIGTERM, lambda number, frame: report('handled'))",
        INSTRUMENT,
        """
        import _thread
        def refuse(*_):
            raise RuntimeError("can't start new thread")
        serve()
        _thread.start_new_thread = refuse
        term()
        """,
    )

    assert (0, ["handled"]) == (code, lines)


def test_late_hook_is_logged_before_the_process_ends():
    """On a busy machine the thread of the hooks may be late itself: the signal is passed on after its line."""
    code, lines = run(
        "app = scaleobs.instrument(app, log_format='json', drain_seconds=0.2)",
        """
        from scaleobs._lifecycle import hooks
        run = hooks.run
        hooks.run = lambda waiting, deadline, failed: run(waiting, deadline + 0.2, failed)
        scaleobs.observer_of(app).on_drain(lambda: time.sleep(60))
        serve()
        term()
        time.sleep(20)
        """,
    )

    assert -signal.SIGTERM == code
    assert 1 == sum("It took longer than the drain." in line for line in lines)
