"""What the probe answers for services that use TLS, HTTP/2, something else, or nothing."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from functools import partial

import pytest

from scaleobs import probe
from support import servers
from support.servers import BIN, LIMIT, free_port

SHOP = """
import scaleobs

async def app(scope, receive, send):
    if scope["type"] == "lifespan":  # hypercorn with trio ends if an application has none.
        while (message := await receive())["type"] == "lifespan.startup":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b""})

app = scaleobs.instrument(app, service="shop", log_format="off")

@scaleobs.observer_of(app).check("postgres")
def postgres():
    return False

def plain(environ, start_response):
    start_response("404 Not Found", [])
    return [b""]

wsgi = scaleobs.instrument(plain, service="shop", log_format="off")
"""

ALL = ["--bind", "127.0.0.1:PORT"]
FILES = ["--certfile", "cert.pem", "--keyfile", "key.pem"]
WITHOUT_TLS = {
    "uvicorn": ["uvicorn", "shop:app", "--port", "PORT"],
    "hypercorn, trio": ["hypercorn", "shop:app", "-k", "trio", *ALL],
    "granian": ["granian", "--interface", "asgi", "--port", "PORT", "shop:app"],
    "gunicorn": ["gunicorn", "shop:wsgi", *ALL],
}
WITH_TLS = {
    "uvicorn": [*WITHOUT_TLS["uvicorn"], "--ssl-certfile", "cert.pem", "--ssl-keyfile", "key.pem"],
    "hypercorn, trio": [*WITHOUT_TLS["hypercorn, trio"], *FILES],
    "granian": [*WITHOUT_TLS["granian"], "--ssl-certificate", "cert.pem", "--ssl-keyfile", "key.pem"],
    "gunicorn": [*WITHOUT_TLS["gunicorn"], *FILES],
}
ADD = "live: DOWN, no answer from port PORT: it uses TLS; add --tls"
LEAVE_OUT = "live: DOWN, no answer from port PORT: it uses HTTP without TLS; leave out --tls"
HTTP_2 = "live: DOWN, no answer from port PORT: it uses HTTP/2 alone, and the probe HTTP/1.1; "


def answer(port, *arguments):
    """Return what the probe answers, with `PORT` for the port."""
    is_up, line = probe._answer([*arguments, "--port", str(port), "--timeout", str(LIMIT)])
    return is_up, line.replace(str(port), "PORT")


@contextlib.contextmanager
def running(command, folder):
    """Run a server until the block ends; yield its port."""
    servers.assert_marked()
    port = free_port()
    (folder / "shop.py").write_text(SHOP)
    words = [word.replace("PORT", str(port)) for word in command]
    environ = {**os.environ, "SCALEOBS_DRAIN_SECONDS": "0"}
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(
            [str(BIN / words[0]), *words[1:]],
            cwd=folder,
            env=environ,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )

    def is_listening():
        assert process.poll() is None, (folder / "output").read_text()
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), LIMIT).close()
            return True

    try:
        servers.until(is_listening)
        yield port
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(LIMIT)
        servers.end_group(process)


@pytest.fixture(name="folder", scope="module")
def _folder(tmp_path_factory):
    """Return a folder with a self-signed certificate and its key."""
    folder = tmp_path_factory.mktemp("shop")
    if shutil.which("openssl") is None:
        pytest.skip("This machine has no openssl, which makes the certificate.")
    made = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key.pem -out cert.pem -days 2 -subj /CN=shop.example"
    subprocess.run(made.split(), cwd=folder, check=True, capture_output=True)
    return folder


@pytest.mark.servers
@pytest.mark.parametrize("name", WITH_TLS)
def test_service_with_tls(name, folder):
    """With `--tls` the probe answers for any certificate; without it, the line has the missing option."""
    with running(WITH_TLS[name], folder) as port:
        assert (True, "live: UP") == answer(port, "--tls")
        if name != "gunicorn":
            assert (False, "ready: DOWN, 503: postgres") == answer(port, "ready", "--tls")
        assert (False, ADD) == answer(port)


@pytest.mark.servers
@pytest.mark.parametrize("name", WITHOUT_TLS)
def test_service_without_tls(name, folder):
    """If the service has no TLS, the line has the option that is wrong."""
    with running(WITHOUT_TLS[name], folder) as port:
        assert (True, "live: UP") == answer(port)
        assert (False, LEAVE_OUT) == answer(port, "--tls")


@pytest.mark.servers
@pytest.mark.parametrize("files", [[], ["--ssl-certificate", "cert.pem", "--ssl-keyfile", "key.pem"]])
def test_service_with_http_2_alone(files, folder):
    """A service that uses HTTP/2 only is named as such."""
    with running([*WITHOUT_TLS["granian"], "--http", "2", *files], folder) as port:
        is_up, line = answer(port, *(["--tls"] if files else []))

    assert not is_up
    assert line.startswith(HTTP_2)


@pytest.mark.servers
def test_service_that_requires_a_certificate(folder):
    """A service that requires a certificate of its clients is named as such."""
    command = [*WITH_TLS["uvicorn"], "--ssl-ca-certs", "cert.pem", "--ssl-cert-reqs", str(int(ssl.CERT_REQUIRED))]
    with running(command, folder) as port:
        is_up, line = answer(port, "--tls")

    assert not is_up
    assert "maybe since it requires a certificate of its clients; set management_port" in line


@contextlib.contextmanager
def listening(serve):
    """Accept connections until the block ends, each served by a function and then closed; yield the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with contextlib.suppress(OSError), connection:
                        serve(connection)

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
    thread.join(LIMIT)


def sends(answered, connection):
    """Read a request, and send an answer."""
    connection.recv(1000)
    connection.sendall(answered)


OTHERS = {
    "a mail server": (b"220 smtp.example ready\r\n", "the answer is not HTTP: it begins with b'220 smtp.example ready"),
    "an answer that is cut": (b"HTTP/1.", "the answer is not HTTP: it begins with b'HTTP/1.'"),
    "a binary protocol": (b"\x00\x01\xff", "the answer is not HTTP: it begins with b'\\x00\\x01\\xff'"),
    "no answer": (b"", "it closed the connection without an answer"),
    "the settings of HTTP/2": (b"\0\0\6\4\0\0\0\0\0" + b"\0\3\0\0\0\x80", "it uses HTTP/2 alone"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_something_else_answers(name):
    """The line has what was received instead of HTTP."""
    sent, expected = OTHERS[name]
    with listening(partial(sends, sent)) as port:
        is_up, line = answer(port)

    assert not is_up
    assert expected in line


@pytest.mark.parametrize("arguments", [[], ["--tls"]])
def test_nothing_listens(arguments):
    """A closed port is named as such, with TLS and without."""
    line = "live: DOWN, no answer from port PORT: nothing listens on 127.0.0.1"

    assert (False, line) == answer(free_port(), *arguments)


@pytest.mark.parametrize("arguments", [[], ["--tls"]])
def test_silent_service(arguments):
    """A service that accepts connections and sends nothing is down when the time is over."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        line = f"live: DOWN, no answer from port {port}: it took longer than 0.4 s"

        assert (False, line) == probe._answer([*arguments, "--port", str(port), "--timeout", "0.4"])


def test_unfinished_answer():
    """A service that does not finish its answer is down when the time is over."""
    is_over = threading.Event()

    def serve(connection):
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        is_over.wait(LIMIT)

    with listening(serve) as port:
        is_up, line = probe._answer(["--port", str(port), "--timeout", "0.4"])
        is_over.set()

    assert (False, f"live: DOWN, no answer from port {port}: it took longer than 0.4 s") == (is_up, line)


def test_bad_request_of_the_application():
    """A 400 is an answer of HTTP, and is shown as it is."""
    with listening(partial(sends, b"HTTP/1.1 400 Bad Request\r\n\r\n")) as port:
        assert (False, "live: DOWN, 400") == answer(port)


def test_tls_is_loaded_only_if_needed():
    """The probe of a service without TLS stays as fast as it was."""
    code = "import sys; from scaleobs import probe; probe.main(['--port', sys.argv[1]]); print('ssl' in sys.modules)"
    with listening(partial(sends, b"HTTP/1.0 200 OK\r\n\r\n")) as port:
        done = subprocess.run([sys.executable, "-c", code, str(port)], capture_output=True, text=True, check=True)

    assert ["live: UP", "False"] == done.stdout.split("\n")[:2]
