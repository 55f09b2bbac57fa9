"""Secrets are not in the log, in any spelling, nesting or encoding; all other values are."""

from __future__ import annotations

import dataclasses
import enum
import json
import logging
import os
import re
import subprocess
import sys
import time
from collections import UserDict
from types import MappingProxyType

import pytest
import structlog

import scaleobs
from scaleobs.logs._redaction import REDACTED, Redact

SECRET = "hunter2-s3cr3t"


@pytest.fixture
def logged(capfd):
    """Return a function that logs by structlog and by stdlib logging, and returns both lines as text."""
    scaleobs.configure_logging(service="orders", log_format="json")

    def log(event="event", **fields):
        structlog.get_logger("shop").info(event, **fields)
        logging.getLogger("shop").info(event, extra=fields)
        lines = capfd.readouterr().out.splitlines()
        assert 2 == len(list(map(json.loads, lines)))
        return lines

    return log


@dataclasses.dataclass
class Login:
    """Shows its password."""

    user: str
    password: str


class Settings:
    """Shows its token."""

    def __repr__(self):
        return f"Settings(api_token='{SECRET}')"


class Kind(enum.Enum):
    """Has a secret as its value."""

    ONE = {"password": SECRET}  # noqa: RUF012


FIELDS = {
    "password": {"password": SECRET},
    "upper case": {"PASSWORD": SECRET},
    "mixed case": {"PassWord": SECRET},
    "in a longer name": {"db_password_primary": SECRET},
    "camel case": {"apiKey": SECRET},
    "separators": {"x_api_key": SECRET, "api-key": SECRET, "API KEY": SECRET, "a.p.i.key": SECRET},
    "bytes": {"secret": SECRET.encode()},
    "nested": {"request": {"user": {"credentials": {"x": SECRET}}}},
    "nested in lists": {"requests": [1, [{"deep": ({"token": SECRET},)}]]},
    "within its own": {"token": {"value": SECRET}},
    "a list": {"cookies": [SECRET]},
    "headers": {"headers": {"Authorization": f"Bearer {SECRET}", "Accept": "x"}},
    "headers as pairs": {"headers": [("X-Forwarded-For", "x"), ("set-cookie", f"id={SECRET}")]},
    "headers as bytes": {"headers": [(b"accept", b"x"), (b"Cookie", f"id={SECRET}".encode())]},
    "headers as lists": {"headers": [["authorization", SECRET]]},
    "keys as bytes": {"form": {b"password": SECRET}},
    "environ": {"environ": {"HTTP_AUTHORIZATION": SECRET, "HTTP_COOKIE": SECRET, "HTTP_X_API_KEY": SECRET}},
    "mapping": {"form": UserDict(password=SECRET), "other": MappingProxyType({"pwd": SECRET})},
    "dataclass": {"login": Login("anna", SECRET)},
    "in its text": {"settings": Settings()},
    "enum": {"kind": Kind.ONE},
    "query string": {"query": f"a=1&access_token={SECRET}&b=2"},
    "query string as bytes": {"query": f"a=1&access_token={SECRET}&b=2".encode()},
    "query string in a URL": {"url": f"https://x.org/y?TOKEN={SECRET}#z"},
    "percent encoded": {"url": f"https://x.org/y?a=1&%74oken={SECRET}"},
    "plus": {"url": f"https://x.org/y?api+key={SECRET}"},
    "URL with a password": {"dsn": f"postgresql://anna:{SECRET}@db/orders"},
    "DSN": {"dsn": f"host=db user=anna password={SECRET} dbname=x"},
    "DSN with quotes": {"dsn": f"host=db password='{SECRET}'"},
    "bearer": {"header": f"bearer {SECRET}"},
    "JSON": {"body": json.dumps({"user": "anna", "password": SECRET})},
    "JSON in JSON": {"body": json.dumps(json.dumps({"password": SECRET}))},
    "an exception": {"error": ValueError(f"token={SECRET}")},
    "a set": {"seen": {("authorization", SECRET)}},
}


@pytest.mark.parametrize("name", FIELDS)
def test_secret_is_redacted(name, logged):
    """The value of a key with a secret's name, or after such a name in a text, is not in the line."""
    for line in logged(**FIELDS[name]):
        assert SECRET not in line
        assert "redacted" in line


EVENTS = {
    "query string": f"GET /x?token={SECRET} HTTP/1.1",
    "a dict": f"{ {'password': SECRET, 'a': 1} }",
    "headers": str([(b"authorization", f"Bearer {SECRET}".encode())]),
    "a header": f"Authorization: Basic {SECRET}",
    "a cookie": f"Cookie: a=1; session={SECRET}",
    "a dataclass": str(Login("anna", SECRET)),
    "line breaks": f"one\ntoken={SECRET}\ntwo",
}


@pytest.mark.parametrize("name", EVENTS)
def test_secret_in_the_event_is_redacted(name, logged):
    """The same for the event itself."""
    for line in logged(EVENTS[name]):
        assert SECRET not in line


def test_arguments_and_exceptions(logged, capfd):
    """Secrets in arguments of a stdlib line and in the text of an exception are redacted as well."""
    logging.getLogger("x").info("login %s with %s", "anna", {"password": SECRET})
    try:
        raise ValueError(f"no access to https://anna:{SECRET}@x.org?token={SECRET}")  # noqa: TRY301
    except ValueError:
        logging.getLogger("x").exception("failed")
        scaleobs.get_logger().exception("failed")
    out = capfd.readouterr().out

    assert SECRET not in out
    assert 3 == len(out.splitlines())


HARMLESS = {
    "numbers of tokens": {"prompt_tokens": 123, "max_tokens": 4.5},
    "yes or no": {"has_password": True, "token": None},
    "ordinary names": {"key": "value", "author": "anna", "passenger": "bob", "basket": [1], "monkey": "x", "host": "y"},
    "ordinary text": {"text": "a=1, b: 2, 'c': 3, it's \"fine\": http://x.org/y?page=2"},
    "a time": {"at": "12:30:15"},
    "an assignment": {"text": "x=1 y=2"},
    "ids": {"request_id_upstream": "abc"},
}


@pytest.mark.parametrize("name", HARMLESS)
def test_other_values_are_kept(name, logged):
    """Ordinary values do not change."""
    for line in logged(**HARMLESS[name]):
        found = json.loads(line)
        assert HARMLESS[name] == {key: found[key] for key in HARMLESS[name]}


def test_text_around_a_secret_is_kept(logged):
    """The text before and after a secret stays."""
    line = json.loads(logged(url=f"https://x.org/y?page=2&token={SECRET}&z=3")[0])

    assert f"https://x.org/y?page=2&token={REDACTED}&z=3" == line["url"]


def test_own_patterns(capfd):
    """A word adds a name of secrets; the matches of a regular expression are redacted in texts."""
    scaleobs.configure_logging(log_format="json", log_redact=["iban", r"\b\d{16}\b"])
    fields = {"customer_IBAN": "DE00", "a": [{"Iban": 1}], "b": ["x 1234567812345678"]}
    scaleobs.get_logger().info("card 4111111111111111 of anna", **fields)
    out = capfd.readouterr().out
    line = json.loads(out)

    assert f"card {REDACTED} of anna" == line["event"]
    assert (REDACTED, [{"Iban": REDACTED}], [f"x {REDACTED}"]) == (line["customer_IBAN"], line["a"], line["b"])


def test_own_patterns_by_the_environment():
    """In the variable they are separated by spaces."""
    code = "import scaleobs; scaleobs.configure_logging(); scaleobs.get_logger().info('x', iban='DE00', text='a 1234')"
    env = {**os.environ, "SCALEOBS_LOG_REDACT": r"iban \d{4}", "SCALEOBS_LOG_FORMAT": "json"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, timeout=30, check=True)
    line = json.loads(done.stdout)

    assert (REDACTED, f"a {REDACTED}") == (line["iban"], line["text"])


@pytest.mark.parametrize("given", [["("], [1], 7])
def test_invalid_pattern_is_refused(given):
    """It is an error at the start."""
    with pytest.raises(scaleobs.SettingsError, match="log_redact is "):
        scaleobs.configure_logging(log_redact=given)


@pytest.mark.parametrize(
    "text",
    [
        "a" * 16_000 + "=",
        "=" * 16_000,
        "'" * 16_000,
        "a='" * 5_000,
        "authorization:" * 1_000,
        "://" * 5_000,
        "x:" * 8_000,
        'b"' * 8_000,
        "bearer " * 2_000,
        "%" * 8000 + "=1",
        "\\" * 16_000 + "'",
        "a-" * 8_000 + "api-key",
    ],
    ids=range(12),
)
def test_hostile_text_is_read_in_bounded_time(text):
    """No text makes the expressions slow."""
    redact = Redact()
    begun = time.process_time()
    redact.text(text)

    assert time.process_time() - begun < 0.2


def test_event_is_not_changed_in_the_application(logged):
    """The application's own objects do not change."""
    headers = {"authorization": SECRET, "list": [{"token": SECRET}]}
    logged(headers=headers)

    assert {"authorization": SECRET, "list": [{"token": SECRET}]} == headers


def test_console_shows_no_secret(capfd):
    """The console format is redacted, too."""
    scaleobs.configure_logging(log_format="console")
    scaleobs.get_logger().info("x", password=SECRET, text=f"token={SECRET}")

    assert SECRET not in capfd.readouterr().out


def test_console_shows_no_secret_of_an_exception(capfd):
    """Neither its message nor the local variables of its frames are a secret on the terminal."""
    scaleobs.configure_logging(log_format="console")
    local = SECRET
    try:
        raise ValueError(f"token={local}")  # noqa: TRY301
    except ValueError:
        scaleobs.get_logger().exception("failed")
    out = capfd.readouterr().out

    assert "ValueError: token=[redacted]" in out
    assert SECRET not in out


STEERING = "\x1b[2J\x1b]0;title\x07\x9b31m\x7f\r\u202e\u2028"
EVENT = f"one\n\ttwo{STEERING}"


def test_no_text_steers_the_terminal(capfd):
    """The console format escapes control characters in the event, in keys, values and exceptions."""
    scaleobs.configure_logging(log_format="console")
    logger = scaleobs.get_logger(f"shop{STEERING}")
    try:
        raise ValueError(STEERING)  # noqa: TRY301
    except ValueError:
        logger.exception(EVENT, path=f"/{STEERING}", **{f"key{STEERING}": [STEERING]}, text="a\nb\tc")
    logging.getLogger("x").info("GET %s", f"/{STEERING}")
    out = re.sub(r"\x1b\[\d*(;\d+)*m", "", capfd.readouterr().out)  # The colours of the console itself.

    assert [] == [one for one in STEERING if one in out and not one.isprintable()]
    assert r"path=/\x1b[2J\x1b]0;title\x07\x9b31m\x7f\r\u202e\u2028" in out
    assert r"text=a\nb\tc" in out
    assert "one\n\ttwo" in out


@dataclasses.dataclass
class Person:
    """Has friends."""

    name: str
    password: str
    hidden: str = dataclasses.field(default="hidden", repr=False)
    friends: list = dataclasses.field(default_factory=list)


def test_objects_are_their_fields(logged):
    """A dataclass is an object in the line, without its secrets and what its text leaves out, also in a circle."""
    anna, bob = Person("anna", SECRET), Person("bob", SECRET)
    anna.friends.append(bob)
    bob.friends.append(anna)
    line = json.loads(logged(person=anna, kind=Kind.ONE)[0])

    assert {"name": "bob", "password": REDACTED, "friends": ["…[circular reference]…"]} == line["person"]["friends"][0]
    assert {"password": REDACTED} == line["kind"]


@pytest.mark.parametrize("library", ["attrs", "pydantic", "msgspec"])
def test_models_are_their_fields(library, logged):
    """The same for models of attrs, pydantic and msgspec."""
    module = pytest.importorskip(library)
    annotated = {"__annotations__": {"user": str, "token": str}}
    if library == "attrs":
        model = module.make_class("Model", ["user", "token"])
    else:
        model = type("Model", (module.BaseModel if library == "pydantic" else module.Struct,), annotated)
    line = json.loads(logged(value=[model(user="anna", token=SECRET)])[0])

    assert [{"user": "anna", "token": REDACTED}] == line["value"]
