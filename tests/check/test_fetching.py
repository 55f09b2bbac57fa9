"""If a URL gives no metrics, one sentence has the reason and the fix."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler

import pytest

from support.check_command import call, check
from support.http_server import answering

METRICS = "text/plain; version=0.0.4; charset=utf-8"


@contextlib.contextmanager
def serving(
    status=200, content_type=METRICS, body=b"", *, wait=0.0, drip=0, certificate=None, received=None, **headers
):
    """Answer every GET with the same response, and yield the URL."""
    is_over = threading.Event()

    class Alike(BaseHTTPRequestHandler):
        def do_GET(self):
            if received is not None:
                received.append((self.path, dict(self.headers)))
            is_over.wait(wait)
            self.send_response(status)
            for name, value in {"Content-Type": content_type, **headers}.items():
                if value is not None:
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
            for _ in range(drip):
                self.wfile.write(b"#\n")
                is_over.wait(0.1)

    tls = None
    if certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(certificate)
    with answering(Alike, tls=tls) as port:
        try:
            yield f"http{'s' if certificate else ''}://127.0.0.1:{port}/metrics"
        finally:
            is_over.set()


def refused(url, *arguments):
    """Return the one sentence on standard error."""
    result = call(url, *arguments)

    assert 2 == result.exit_code
    assert "" == result.stdout
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    return line


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ({"status": 404}, "answered 404: nothing is at this path."),
        ({"status": 401}, "answered 401: give a valid token with --token."),
        ({"status": 403}, "answered 403: give a valid token"),
        ({"status": 503}, "answered 503."),
        ({"status": 302, "Location": "https://login.example/"}, "redirects to https://login.example/: give that URL"),
        ({"content_type": "text/html", "body": b"<html>"}, "answered with text/html, which Prometheus does not accept"),
        ({"content_type": "application/json", "body": b"{}"}, "answered with application/json"),
        ({"content_type": None, "body": b"up 1\n"}, "answered with no content type"),
        ({"body": b"hello, world\n"}, "answered with invalid metrics"),
        ({"body": b'a{b="c} 1\n'}, "answered with invalid metrics"),
        ({"body": b"\xff 1\n"}, "answered with invalid metrics"),
    ],
)
def test_answer_that_is_no_page_of_metrics_is_one_sentence(answer, sentence):
    """
    Statuses, redirects, other pages, and incomplete pages.
    """
    with serving(**answer) as url:
        assert sentence in refused(url)


@pytest.mark.parametrize("answer", [{"wait": 30.0}, {"drip": 300}])
def test_slow_server_is_one_sentence(answer):
    """
    Before its response, and in the middle of it.
    """
    with serving(**answer) as url:
        assert "did not answer within 0.3 s: give a longer --timeout." in refused(url, "--timeout", "0.3")


def test_json_has_the_error_too():
    """
    The JSON contains the same sentence.
    """
    with serving(404) as url:
        result = call(url, "--json")

    assert 2 == result.exit_code
    assert {"url": url, "error": f"{url} answered 404: nothing is at this path."} == json.loads(result.stdout)


def test_unreachable_port_and_host_are_one_sentence():
    """
    A port without a listener, and a host that does not exist.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

        assert "can't be reached: Connection refused. Check the URL, and that the service runs." in refused(
            f"http://127.0.0.1:{port}/metrics"
        )
    assert "there is no host 'nowhere.invalid'" in refused("http://nowhere.invalid/metrics")


@pytest.mark.parametrize("url", ["localhost:8000/metrics", "ftp://a/b", "http://", "http://a:x/", "http://a b/", ""])
def test_other_than_an_http_url_is_refused(url):
    """
    A URL needs a scheme, a host, and a port that is a number.
    """
    assert f"{url!r} is not an HTTP URL: give a URL like http://localhost:8000/metrics" in refused(url)


def test_failing_tls_has_its_fix(tmp_path, tool):
    """
    A self-signed certificate, https:// for plain HTTP, and http:// for TLS.
    """
    certificate = tmp_path / "both.pem"
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = [tool("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"]
    subprocess.run([*command, "-keyout", key, "-out", cert], check=True, capture_output=True)
    certificate.write_text(key.read_text() + cert.read_text())
    with serving(certificate=certificate) as url:
        assert "has a certificate that is not trusted" in refused(url)
        assert "set SSL_CERT_FILE to the certificate of its authority" in refused(url)
        assert "without an HTTP response: if it serves TLS, use https://." in refused(url.replace("https", "http"))
    with serving() as url:
        assert "does not accept TLS" in refused(url.replace("http", "https"))


def test_token_is_sent_to_the_url_only(tmp_path):
    """
    It comes from the command line or a file, and redirects are not followed.
    """
    (tmp_path / "token").write_text("s3cret\n")
    others, received = [], []
    with serving(received=others) as other, serving(302, received=received, Location=other) as url:
        refused(url, "--token", "s3cret")
        refused(url, "--token", f"@{tmp_path / 'token'}")

    assert ["Bearer s3cret"] * 2 == [headers["Authorization"] for _, headers in received]
    assert [] == others
    result = call(url, "--token", "@/nowhere")
    assert 2 == result.exit_code
    assert "Can't read the token file '/nowhere': No such file or directory." in result.stderr


def test_user_in_the_url_is_sent_and_not_shown():
    """
    As basic authentication, which proxies before a Prometheus often require.
    """
    received = []
    with serving(404, received=received) as url:
        message = refused(url.replace("http://", "http://me:s3cret@"))

    assert "Basic bWU6czNjcmV0" == received[0][1]["Authorization"]
    assert "s3cret" not in message


def test_openmetrics_is_read_too():
    """
    A service may have no other format.
    """
    with serving(
        content_type="application/openmetrics-text; version=1.0.0", body=b"# TYPE a counter\na_total 1\n# EOF\n"
    ) as url:
        assert "not present, although every service with scaleobs has it" in check(url).findings()["service_ready"]


def test_service_gets_one_request():
    """
    A check requests only the metrics page, which the service does not count.
    """
    received = []
    with serving(body=b"up 1\n", received=received) as url:
        check(url)

    assert ["/metrics"] == [path for path, _ in received]


def test_other_server_is_neither():
    """
    A URL without a path is tried as a Prometheus, too, and the error has both responses.
    """
    with serving(404) as url:
        message = refused(url.removesuffix("/metrics"))

    assert (
        "is neither a metrics page (answered 404: nothing is at this path) nor a Prometheus (/api/v1/query answered 404"
        in message
    )
